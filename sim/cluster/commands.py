"""Commands on one record: read, write, delete, checked in a server's order. Knows neither sockets nor clocks."""

from typing import NamedTuple

from geotrain.wire import codes
from geotrain.wire.batches import BatchRow
from geotrain.wire.codes import DIGEST_BYTES, Field, OpCode, ResultCode
from geotrain.wire.messages import Message
from geotrain.wire.partitions import partition_of
from sim.cluster import operations
from sim.cluster.cluster import Cluster, Node, Partition
from sim.cluster.expressions import Filter, filter_of
from sim.cluster.operations import Refused
from sim.cluster.records import Bins, Record, make_record

MAX_GENERATION = 0xFFFF
DONT_UPDATE_TTL = 0xFFFFFFFE
_UNSUPPORTED_FIELDS = frozenset({Field.TRANSACTION_ID, Field.UDF_PACKAGE, Field.UDF_FUNCTION})
_REPLACES = codes.INFO3_CREATE_OR_REPLACE | codes.INFO3_REPLACE_ONLY
_MUST_EXIST = codes.INFO3_UPDATE_ONLY | codes.INFO3_REPLACE_ONLY


class Outcome(NamedTuple):
    """What a command ended with: the reply without its envelope."""

    result_code: int
    generation: int = 0
    num_ops: int = 0
    ops: bytes = b""


Request = Message | BatchRow
"""A command for one record, alone or as a row of a batch."""


def execute(
    cluster: Cluster, node: Node, source: str, request: Request, digest: bytes, filter_: bytes | None, now_ms: int
) -> Outcome:
    """Perform one command that came to `node`, and count it there under `source`: client or batch_sub."""
    kind = "read"
    if request.info2 & codes.INFO2_WRITE:
        kind = "delete" if request.info2 & codes.INFO2_DELETE else "write"
    try:
        outcome = _execute(cluster, node, kind, request, digest, filter_, now_ms)
    except Refused as refusal:
        outcome = Outcome(refusal.code)
    node.counters[source, kind, outcome.result_code] += 1
    return outcome


def _execute(
    cluster: Cluster, node: Node, kind: str, request: Request, digest: bytes, filter_: bytes | None, now_ms: int
) -> Outcome:
    fields = request.fields
    if fields.get(Field.NAMESPACE) != cluster.namespace:
        return Outcome(ResultCode.NAMESPACE)
    if len(digest) != DIGEST_BYTES:
        return Outcome(ResultCode.PARAMETER)
    if not _UNSUPPORTED_FIELDS.isdisjoint(fields):
        return Outcome(ResultCode.UNSUPPORTED)
    matches = filter_of(filter_) if filter_ else None
    if kind == "read":
        return _read(cluster, node, request, digest, matches, now_ms)
    copies = cluster.record_set(fields.get(Field.SET, b"")).copies[partition_of(digest)]
    if kind == "delete":
        return _delete(cluster, request, copies, digest, matches, now_ms)
    return _write(cluster, request, copies, digest, matches, now_ms)


def _read(
    cluster: Cluster, node: Node, request: Request, digest: bytes, matches: Filter | None, now_ms: int
) -> Outcome:
    is_linearizable = request.info3 & codes.INFO3_SC_READ_TYPE and not request.info3 & codes.INFO3_SC_READ_RELAX
    if is_linearizable and not cluster.is_enterprise:
        return Outcome(ResultCode.ENTERPRISE_ONLY)
    record = cluster.find(node, request.fields.get(Field.SET, b""), digest)
    if record is None:
        return Outcome(ResultCode.NOT_FOUND)
    if matches is not None and not matches(record, now_ms):
        return Outcome(ResultCode.FILTERED_OUT, record.generation)
    if request.info1 & codes.INFO1_NO_BIN_DATA:
        return Outcome(ResultCode.OK, record.generation)
    if request.info1 & codes.INFO1_GET_ALL:
        return Outcome(ResultCode.OK, record.generation, record.num_bins, record.ops)
    if any(op.code != OpCode.READ for op in request.ops):
        return Outcome(ResultCode.UNSUPPORTED)
    found = [ops for ops in (record.bin(op.name) for op in request.ops) if ops is not None]
    return Outcome(ResultCode.OK, record.generation, len(found), b"".join(found))


def _write(
    cluster: Cluster,
    request: Request,
    copies: tuple[Partition, ...],
    digest: bytes,
    matches: Filter | None,
    now_ms: int,
) -> Outcome:
    replaces = bool(request.info3 & _REPLACES)
    if not request.ops:
        return Outcome(ResultCode.PARAMETER)
    if 0 < request.record_ttl < DONT_UPDATE_TTL:
        return Outcome(ResultCode.FORBIDDEN)  # as any server with nsup-period 0
    must_exist = operations.check(request.ops, replaces=replaces) or bool(request.info3 & _MUST_EXIST)
    present = copies[0].get(digest)
    generation = 0 if present is None else present.generation
    refusal = _refusal(present, request, matches, now_ms, must_exist=must_exist)
    if refusal is not None:
        return Outcome(refusal, generation)
    bins = {} if present is None or replaces else present.bins()
    respond_all = bool(request.info2 & codes.INFO2_RESPOND_ALL_OPS)
    try:
        answers = operations.apply(bins, request.ops, respond_all=respond_all)
        generation = _store(cluster, request, copies, digest, present, bins, now_ms)
    except Refused as refused:
        return Outcome(refused.code, generation)
    return Outcome(ResultCode.OK, generation, len(answers), b"".join(answers))


def _store(
    cluster: Cluster,
    request: Request,
    copies: tuple[Partition, ...],
    digest: bytes,
    present: Record | None,
    bins: Bins,
    now_ms: int,
) -> int:
    """Put the record's next version on every node that holds it. Returns its generation. Raises Refused."""
    fields = request.fields
    generation, key = (0, b"") if present is None else (present.generation, present.key)
    generation = generation % MAX_GENERATION + 1
    if not bins:  # a record without bins does not exist
        _remove(cluster, request, copies, digest, present)
        return generation
    name = cluster.record_set(fields.get(Field.SET, b"")).name
    record = make_record(name, digest, fields.get(Field.KEY) or key, generation, now_ms, bins)
    if len(record.row) > cluster.config.max_record_bytes:
        raise Refused(ResultCode.TOO_BIG)
    for copy in copies:
        copy[digest] = record
    return generation


def _delete(
    cluster: Cluster,
    request: Request,
    copies: tuple[Partition, ...],
    digest: bytes,
    matches: Filter | None,
    now_ms: int,
) -> Outcome:
    if request.info2 & codes.INFO2_DURABLE_DELETE and not cluster.is_enterprise:
        return Outcome(ResultCode.ENTERPRISE_ONLY)
    present = copies[0].get(digest)
    refusal = _refusal(present, request, matches, now_ms, must_exist=True)
    if refusal is not None:
        return Outcome(refusal)
    _remove(cluster, request, copies, digest, present)
    return Outcome(ResultCode.OK)


def _remove(
    cluster: Cluster, request: Request, copies: tuple[Partition, ...], digest: bytes, present: Record | None
) -> None:
    if present is None:
        raise Refused(ResultCode.NOT_FOUND)
    if cluster.config.strong_consistency and not request.info2 & codes.INFO2_DURABLE_DELETE:
        raise Refused(ResultCode.FORBIDDEN)  # a delete that leaves no tombstone could be undone by an old copy
    for copy in copies:
        del copy[digest]


def _refusal(
    present: Record | None, request: Request, matches: Filter | None, now_ms: int, *, must_exist: bool
) -> ResultCode | None:
    """Why a record can't be written or deleted as asked, or None; in a server's order of checks."""
    if present is None:
        if must_exist:
            return ResultCode.NOT_FOUND
        return None if _generation_fits(request, 0) else ResultCode.GENERATION
    if request.info2 & codes.INFO2_CREATE_ONLY:
        return ResultCode.EXISTS
    if not _generation_fits(request, present.generation):
        return ResultCode.GENERATION
    if matches is not None and not matches(present, now_ms):
        return ResultCode.FILTERED_OUT
    key = request.fields.get(Field.KEY)
    if key and present.key and key != present.key:
        return ResultCode.KEY_MISMATCH
    return None


def _generation_fits(request: Request, current: int) -> bool:
    """Whether the generation is the one that the writer expects; an absent record has generation 0."""
    if request.info2 & codes.INFO2_GENERATION_EQUAL:
        return request.generation == current
    if request.info2 & codes.INFO2_GENERATION_GREATER:
        return request.generation > current
    return True
