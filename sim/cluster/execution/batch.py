"""Batches: many rows in one request, each a command of its own."""

from collections.abc import Iterator

from geotrain.wire.batches import batch_size, decode_batch
from geotrain.wire.codes import Field, ResultCode
from geotrain.wire.frames import MESSAGE, encode_frame
from geotrain.wire.messages import HEADER_BYTES, Message, pack_header
from sim.cluster.cluster import Cluster
from sim.cluster.execution.commands import execute
from sim.cluster.execution.streams import CHUNK_BYTES, Chunk, last_chunk
from sim.cluster.node import Node
from sim.cluster.sites.distances import wait_s

MAX_ROWS = 5000  # the default batch-max-requests of a real server
CHUNK_ROWS = 512  # a server that does more at a stretch makes everyone else wait


def batch(cluster: Cluster, node: Node, request: Message, now_ms: int, now_s: float) -> Iterator[Chunk]:
    """Perform the rows in their order and answer each, once all other nodes that one needs have been waited for.

    now_ms: the node's clock. now_s: that of the links. Raises ProtocolError for rows that can't be read.
    """
    rows = request.fields[Field.BATCH]
    node.statistics["batch_index_initiate"] += 1
    if batch_size(rows) > MAX_ROWS:
        node.statistics["batch_index_error"] += 1
        yield last_chunk(ResultCode.BATCH_MAX_REQUESTS)
        return
    default_filter = request.fields.get(Field.FILTER)
    replies: list[bytes] = []
    num_bytes = 0
    waits_s = 0.0
    held: list[Chunk] = []
    for row in decode_batch(rows):
        filter_ = row.fields.get(Field.FILTER, default_filter)
        code, generation, num_ops, ops, void_time, num_fields, fields = execute(
            cluster, node, "batch_sub", row, row.digest, filter_, now_ms
        )
        header = pack_header(HEADER_BYTES, 0, 0, 0, 0, code, generation, void_time, row.position, num_fields, num_ops)
        replies.append(header + fields + ops)
        if cluster.network.has_delays:
            waits_s = max(waits_s, wait_s(cluster, node, row, row.digest, now_s, len(replies[-1])))
        num_bytes += HEADER_BYTES + len(fields) + len(ops)
        if num_bytes >= CHUNK_BYTES or len(replies) >= CHUNK_ROWS:
            held.append(Chunk(encode_frame(MESSAGE, b"".join(replies))))
            replies, num_bytes = [], 0
            yield Chunk(b"") if cluster.network.has_delays else held.pop()
    if replies:
        held.append(Chunk(encode_frame(MESSAGE, b"".join(replies))))
    if waits_s:
        yield Chunk(b"", waits_s)
    yield from held
    node.statistics["batch_index_complete"] += 1
    yield last_chunk(ResultCode.OK)
