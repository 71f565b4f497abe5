"""Batches: many rows in one request, each a command of its own."""

from collections.abc import Iterator

from geotrain.wire.batches import BatchRow, batch_size, decode_batch
from geotrain.wire.codes import Field, ResultCode
from geotrain.wire.frames import MESSAGE, frame_header
from geotrain.wire.messages import HEADER_BYTES, Message, Operation, pack_header
from sim.cluster.cluster import Cluster
from sim.cluster.execution.alike import Answer, answer_of
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
    ops: list[Operation] | None = None
    answer: Answer | None = None
    for row in decode_batch(rows):
        if row.ops is not ops:  # one that repeats another shares them
            ops = row.ops
            answer = answer_of(cluster, node, row) if default_filter is None else None
        reply = answer(row.digest, row.position) if answer is not None else None
        if reply is None:
            reply = _perform(cluster, node, row, default_filter, now_ms)
        replies.append(reply)
        num_bytes += len(reply)
        if cluster.network.has_delays:
            waits_s = max(waits_s, wait_s(cluster, node, row, row.digest, now_s, len(reply)))
        if num_bytes >= CHUNK_BYTES or len(replies) >= CHUNK_ROWS:
            held.append(Chunk(b"".join((frame_header(MESSAGE, num_bytes), *replies))))
            replies, num_bytes = [], 0
            yield Chunk(b"") if cluster.network.has_delays else held.pop()
    if replies:
        held.append(Chunk(b"".join((frame_header(MESSAGE, num_bytes), *replies))))
    if waits_s:
        yield Chunk(b"", waits_s)
    yield from held
    node.statistics["batch_index_complete"] += 1
    yield last_chunk(ResultCode.OK)


def _perform(cluster: Cluster, node: Node, row: BatchRow, default_filter: bytes | None, now_ms: int) -> bytes:
    """Do what one row says. Returns the reply to it."""
    filter_ = row.fields.get(Field.FILTER, default_filter)
    code, generation, num_ops, ops, void_time, num_fields, fields = execute(
        cluster, node, "batch_sub", row, row.digest, filter_, now_ms
    )
    header = pack_header(HEADER_BYTES, 0, 0, 0, 0, code, generation, void_time, row.position, num_fields, num_ops)
    return header + fields + ops
