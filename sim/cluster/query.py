"""Primary-index queries (scans): the rows of some partitions as a stream of chunks, resumable after any digest."""

import struct
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator

from geotrain.wire import codes
from geotrain.wire.codes import DIGEST_BYTES, INFO3_PARTITION_DONE, Field, OpCode, ResultCode
from geotrain.wire.frames import MESSAGE, encode_frame
from geotrain.wire.messages import HEADER_BYTES, Message, pack_header
from geotrain.wire.partitions import NUM_PARTITIONS, partition_of
from sim.cluster.cluster import Cluster, Node
from sim.cluster.expressions import filter_of
from sim.cluster.operations import Refused
from sim.cluster.records import Record, Shape
from sim.cluster.streams import CHUNK_BYTES, Chunk, last_chunk

CHUNK_ROWS = 1024  # at most, so that the other connections have their turn
CHUNKS_PER_SECOND = 20  # at least, where the client limits the rate of records
_NUM_OPS_AT = HEADER_BYTES - 2
_UNSUPPORTED_FIELDS = frozenset({Field.UDF_PACKAGE, Field.UDF_FUNCTION, Field.TRANSACTION_ID})

Project = Callable[[Record], bytes]
"""The row that is sent for a record; empty for one that has none of the selected bins."""


def query(cluster: Cluster, node: Node, request: Message, now_ms: int) -> Iterator[Chunk]:
    """Stream the records that the request asks for, from this node's own copies."""
    code = ResultCode.OK
    try:
        _check(cluster, request)
        yield from _chunks(_rows(node, request, now_ms), _number(request.fields, Field.RECORDS_PER_SECOND))
    except Refused as refused:
        code = refused.code
    node.counters["pi_query", "long_basic", code] += 1
    yield last_chunk(code)


def _check(cluster: Cluster, request: Message) -> None:
    fields = request.fields
    if fields.get(Field.NAMESPACE) != cluster.namespace:
        raise Refused(ResultCode.NAMESPACE)
    if Field.PARTITION_IDS not in fields and Field.DIGESTS not in fields:
        raise Refused(ResultCode.PARAMETER)
    if Field.INDEX_RANGE in fields:
        raise Refused(ResultCode.INDEX_NOT_FOUND)
    is_background = request.info2 & codes.INFO2_WRITE
    if is_background or not _UNSUPPORTED_FIELDS.isdisjoint(fields) or any(op.code != OpCode.READ for op in request.ops):
        raise Refused(ResultCode.UNSUPPORTED)


def _chunks(rows: Iterator[bytes], rate: int) -> Iterator[Chunk]:
    """Pack rows into chunks; at most `rate` of them a second (0: as fast as they are taken)."""
    max_rows = max(1, rate // CHUNKS_PER_SECOND) if rate else CHUNK_ROWS
    pending: list[bytes] = []
    num_bytes = 0

    def chunk() -> Chunk:
        body = b"".join(pending)
        num_rows = sum(map(bool, pending))
        return Chunk(encode_frame(MESSAGE, body) if body else b"", num_rows / rate if rate else 0.0)

    for row in rows:
        pending.append(row)
        num_bytes += len(row)
        if num_bytes >= CHUNK_BYTES or len(pending) >= max_rows:
            yield chunk()
            pending, num_bytes = [], 0
    yield chunk()


def _rows(node: Node, request: Message, now_ms: int) -> Iterator[bytes]:
    """The rows asked for, and an empty one after each partition, so that a scan that finds nothing has steps too."""
    fields = request.fields
    matches = filter_of(fields[Field.FILTER]) if Field.FILTER in fields else None
    project = _projection(request)
    remaining = _number(fields, Field.MAX_RECORDS) or sys.maxsize
    for pid, after in _wanted(fields):
        if pid not in node.held:
            yield pack_header(HEADER_BYTES, 0, 0, INFO3_PARTITION_DONE, 0, ResultCode.UNAVAILABLE, pid, *[0] * 4)
            continue
        records = _records(node, fields.get(Field.SET, b""), pid, after)
        if matches is not None:
            records = [record for record in records if matches(record, now_ms)]
        rows = list(filter(None, map(project, records)))
        yield from rows[:remaining]
        remaining -= len(rows)
        if remaining <= 0:
            return
        yield b""


def _number(fields: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(fields.get(kind, b""), "big")


def _wanted(fields: dict[int, bytes]) -> list[tuple[int, bytes]]:
    """The partitions asked for, each with the digest after which to go on (none: from the beginning)."""
    pids, digests = fields.get(Field.PARTITION_IDS, b""), fields.get(Field.DIGESTS, b"")
    if len(pids) % 2 or len(digests) % DIGEST_BYTES:
        raise Refused(ResultCode.PARAMETER)
    wanted = [(pid, b"") for pid in struct.unpack(f"<{len(pids) // 2}H", pids)]
    resumed = (digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES))
    wanted += [(partition_of(digest), digest) for digest in resumed]
    if any(pid >= NUM_PARTITIONS for pid, _ in wanted):
        raise Refused(ResultCode.PARAMETER)
    return wanted


def _records(node: Node, set_name: bytes, pid: int, after: bytes) -> list[Record]:
    """This node's records of a partition in the order of their digests; without a set, those of all sets."""
    if set_name:
        partition = node.sets.get(set_name, {}).get(pid, {})
    else:
        partition = {digest: record for copies in node.sets.values() for digest, record in copies[pid].items()}
    digests = sorted(partition)
    return [partition[digest] for digest in digests[bisect_right(digests, after) :]]


def _projection(request: Message) -> Project:
    if request.info1 & codes.INFO1_NO_BIN_DATA:
        return _without_bins
    if not request.ops:
        return _whole
    names = {op.name for op in request.ops}
    plans: dict[Shape, tuple[bytes, list[tuple[int, int]]]] = {}

    def selected(record: Record) -> bytes:
        row, shape = record.row, record.shape
        plan = plans.get(shape)
        if plan is None:
            plan = plans[shape] = _plan(shape, names)
        num_ops, bounds = plan
        if not bounds:
            return b""
        start = len(row) - shape.num_bytes
        if len(bounds) == 1 and bounds[0] == (0, shape.num_bytes):
            return row
        parts = [row[start + begin : start + end] for begin, end in bounds]
        return b"".join((row[:_NUM_OPS_AT], num_ops, row[HEADER_BYTES:start], *parts))

    return selected


def _plan(shape: Shape, names: set[bytes]) -> tuple[bytes, list[tuple[int, int]]]:
    """How many of the named bins records of a shape have, as it travels, and where these lie; neighbours as one."""
    found = [bounds for name, bounds in shape.bounds.items() if name in names]
    joined: list[tuple[int, int]] = []
    for begin, end in found:
        if joined and joined[-1][1] == begin:
            begin = joined.pop()[0]
        joined.append((begin, end))
    return len(found).to_bytes(2, "big"), joined


def _whole(record: Record) -> bytes:
    return record.row


def _without_bins(record: Record) -> bytes:
    row = record.row
    return b"".join((row[:1], bytes([codes.INFO1_NO_BIN_DATA]), row[2:_NUM_OPS_AT], b"\0\0", record.fields))
