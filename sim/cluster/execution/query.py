"""Queries by the primary index (scans) or a secondary one: rows as a stream of chunks, resumable after any digest."""

import math
import struct
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, chain, repeat
from operator import attrgetter

from geotrain.wire import codes
from geotrain.wire.codes import DIGEST_BYTES, INFO3_PARTITION_DONE, Field, OpCode, ResultCode
from geotrain.wire.frames import MESSAGE, frame_header
from geotrain.wire.messages import HEADER_BYTES, Message, pack_header
from geotrain.wire.partitions import NUM_PARTITIONS, partition_of
from sim.cluster.cluster import Cluster
from sim.cluster.execution.indexes import keys_of, lookup_of
from sim.cluster.execution.jobs import Job, number
from sim.cluster.execution.streams import CHUNK_BYTES, Chunk, last_chunk
from sim.cluster.execution.transactions import MONITORS
from sim.cluster.expression.expression_records import NS_PER_MS, updated_until_ns
from sim.cluster.expression.expressions import filter_of
from sim.cluster.node import Node
from sim.cluster.records import InOrder, Record, Shape, in_order, since_epoch
from sim.cluster.values.operations import READS, read_all
from sim.cluster.values.refused import Refused

CHUNK_ROWS = 1024  # at most, so that the other connections have their turn
CHUNKS_PER_SECOND = 20  # at least, where the client limits the rate of records
_NUM_OPS_AT = HEADER_BYTES - 2
_LAST_BYTES = len(last_chunk(ResultCode.OK).frames)
_UNSUPPORTED_FIELDS = frozenset({Field.UDF_PACKAGE, Field.UDF_FUNCTION, Field.TRANSACTION_ID})

_row: Callable[[Record], bytes] = attrgetter("row")

Project = Callable[[Record], bytes]
"""The row that is sent for a record; empty for one that has none of the selected bins."""


def query(cluster: Cluster, node: Node, request: Message, now_ms: int) -> Iterator[Chunk]:
    """Stream the records that the request asks for, from this node's own copies."""
    code = ResultCode.SERVER  # as it stays where the client leaves
    job = node.jobs.start(request, "basic")
    try:
        _check(cluster, request)
        rows = _rows(cluster, node, request, job, now_ms)
        for chunk in _chunks(rows, job.rate):
            job.num_bytes += len(chunk.frames)
            yield chunk
        code = ResultCode.OK
    except Refused as refused:
        code = refused.code
    finally:
        job.end(code)
        source = "si_query" if Field.INDEX_RANGE in request.fields else "pi_query"
        node.counters[source, "long_basic", code] += 1
    job.num_bytes += _LAST_BYTES
    yield last_chunk(code)


def _check(cluster: Cluster, request: Message) -> None:
    fields = request.fields
    if fields.get(Field.NAMESPACE) != cluster.namespace:
        raise Refused(ResultCode.NAMESPACE)
    if not _UNSUPPORTED_FIELDS.isdisjoint(fields) or any(op.code not in READS for op in request.ops):
        raise Refused(ResultCode.UNSUPPORTED)
    if Field.PARTITION_IDS not in fields and Field.DIGESTS not in fields:
        raise Refused(ResultCode.PARAMETER)


def _chunks(partitions: Iterator[list[bytes]], rate: int) -> Iterator[Chunk]:
    """Pack the rows of partitions into chunks; at most `rate` rows a second (0: as fast as they are taken)."""
    max_rows = max(1, rate // CHUNKS_PER_SECOND) if rate else CHUNK_ROWS
    pending: list[bytes] = []
    num_bytes = 0

    def chunk() -> Chunk:
        frame = b"".join((frame_header(MESSAGE, num_bytes), *pending)) if num_bytes else b""
        return Chunk(frame, sum(map(bool, pending)) / rate if rate else 0.0)

    for rows in partitions:
        for piece, size in _pieces(rows, max_rows):
            pending += piece
            num_bytes += size
            if num_bytes >= CHUNK_BYTES or len(pending) >= max_rows:
                yield chunk()
                pending, num_bytes = [], 0
    yield chunk()


def _pieces(rows: list[bytes], max_rows: int) -> Iterator[tuple[list[bytes], int]]:
    """The rows in runs of no more than `max_rows` and a chunk's size, or of one larger row; and the size of each."""
    ends = list(accumulate(map(len, rows)))
    start = num_bytes = 0
    while start < len(rows):
        end = max(start + 1, min(bisect_right(ends, num_bytes + CHUNK_BYTES), start + max_rows))
        yield rows[start:end], ends[end - 1] - num_bytes
        start, num_bytes = end, ends[end - 1]


def _rows(cluster: Cluster, node: Node, request: Message, job: Job, now_ms: int) -> Iterator[list[bytes]]:
    """The rows asked for, by partition: an empty one where there are none, so that finding nothing has steps too."""
    fields = request.fields
    matches = filter_of(fields[Field.FILTER]) if Field.FILTER in fields else None
    until_ms = _updated_until_ms(fields)
    lookup = lookup_of(cluster.indexes, request)
    project = _projection(request, now_ms)
    if lookup is not None:
        project = lookup.with_key(project)
    remaining = number(fields, Field.MAX_RECORDS) or sys.maxsize
    for pid, after, after_key in wanted(fields):
        if job.is_aborted:
            raise Refused(ResultCode.QUERY_ABORT)
        job.num_partitions_done += 1
        if pid not in node.held:
            yield [pack_header(HEADER_BYTES, 0, 0, INFO3_PARTITION_DONE, 0, ResultCode.UNAVAILABLE, pid, *[0] * 4)]
            continue
        found = records_of(node, fields.get(Field.SET, b""), pid, b"" if lookup else after, since_epoch(now_ms))
        records = found.records if lookup is None else lookup.select(found.records, after, after_key)
        num_found = len(records)
        if matches is not None and found.updated_ms > until_ms:
            records = [record for record in records if matches(record, now_ms)]
        job.num_filtered += num_found - len(records)
        if lookup is not None or not _is_sent_whole(request, found.shapes):
            rows = list(filter(None, map(project, records)))
        elif records is found.records:  # nothing is asked of each record, which makes a scan as fast as copying
            rows = found.rows
        else:
            rows = list(map(_row, records))
        job.num_succeeded += min(remaining, len(records))
        yield rows[:remaining] or [b""]
        remaining -= len(rows)
        if remaining <= 0:
            return


def wanted(fields: dict[int, bytes]) -> list[tuple[int, bytes, int]]:
    """The partitions asked for, each with the digest after which to go on, and its place in an index.

    Both are empty where the partition is read from its beginning. Raises Refused.
    """
    pids, digests = fields.get(Field.PARTITION_IDS, b""), fields.get(Field.DIGESTS, b"")
    if len(pids) % 2 or len(digests) % DIGEST_BYTES:
        raise Refused(ResultCode.PARAMETER)
    found = [(pid, b"", 0) for pid in struct.unpack(f"<{len(pids) // 2}H", pids)]
    resumed = (digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES))
    found += [
        (partition_of(digest), digest, key)
        for digest, key in zip(resumed, chain(keys_of(fields), repeat(0)), strict=False)
    ]
    if any(pid >= NUM_PARTITIONS for pid, _, _ in found):
        raise Refused(ResultCode.PARAMETER)
    return found


def records_of(node: Node, set_name: bytes, pid: int, after: bytes, now: int) -> InOrder:
    """This node's living records of a partition; without a set, those of all sets.

    `now` is in seconds since 2010, as the void-times are.
    """
    if set_name:
        found = node.copy(set_name, pid).in_order()
    else:
        shown = (copies[pid] for name, copies in node.sets.items() if pid in copies and name != MONITORS)
        found = in_order(chain.from_iterable(copy.values() for copy in shown))
    return found.select(after, now)


def _updated_until_ms(fields: Mapping[int, bytes]) -> float:
    """Records updated until then pass the filter, whatever else is in them."""
    until_ns = updated_until_ns(fields.get(Field.FILTER, b""))
    return -math.inf if until_ns is None else until_ns // NS_PER_MS


def _is_sent_whole(request: Message, shapes: Iterable[Shape]) -> bool:
    """Whether records of these shapes are sent as they are."""
    if request.info1 & codes.INFO1_NO_BIN_DATA or any(op.code != OpCode.READ for op in request.ops):
        return False
    names = {op.name for op in request.ops}
    return not names or all(shape.bounds.keys() <= names for shape in shapes)


def _projection(request: Message, now_ms: int) -> Project:
    """What is sent for a record."""
    if request.info1 & codes.INFO1_NO_BIN_DATA:
        return _without_bins
    if not request.ops:
        return _row
    if any(op.code != OpCode.READ for op in request.ops):
        return _performing(request, now_ms)
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
        if bounds == [(0, shape.num_bytes)]:
            return row
        start = len(row) - shape.num_bytes
        parts = [row[start + begin : start + end] for begin, end in bounds]
        return b"".join((row[:_NUM_OPS_AT], num_ops, row[HEADER_BYTES:start], *parts))

    return selected


def _performing(request: Message, now_ms: int) -> Project:
    """Rows with what reading operations find in a record; those that can't be performed on it leave it out."""
    respond_all = bool(request.info2 & codes.INFO2_RESPOND_ALL_OPS)

    def performed(record: Record) -> bytes:
        try:
            answers = read_all(record, request.ops, now_ms, respond_all=respond_all)
        except Refused:
            return b""
        header = record.row[:_NUM_OPS_AT] + len(answers).to_bytes(2, "big")
        return b"".join((header, record.fields, *answers))

    return performed


def _plan(shape: Shape, names: set[bytes]) -> tuple[bytes, list[tuple[int, int]]]:
    """How many of the named bins records of a shape have, as it travels, and where these lie; neighbours as one."""
    found = [bounds for name, bounds in shape.bounds.items() if name in names]
    joined: list[tuple[int, int]] = []
    for begin, end in found:
        if joined and joined[-1][1] == begin:
            begin = joined.pop()[0]
        joined.append((begin, end))
    return len(found).to_bytes(2, "big"), joined


def _without_bins(record: Record) -> bytes:
    row = record.row
    return b"".join((row[:1], bytes([codes.INFO1_NO_BIN_DATA]), row[2:_NUM_OPS_AT], b"\0\0", record.fields))
