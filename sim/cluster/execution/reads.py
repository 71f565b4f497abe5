"""Reads of one record, in a transaction or not, and the time to live that they may renew."""

from geotrain.wire import codes
from geotrain.wire.codes import TTL_NEVER, Field, OpCode, ResultCode
from geotrain.wire.partitions import partition_of
from sim.cluster.cluster import Cluster
from sim.cluster.execution.requests import Outcome, Request
from sim.cluster.execution.transactions import check_version, version_field
from sim.cluster.expression.expressions import Filter
from sim.cluster.node import Node
from sim.cluster.records import Record, live, make_record, since_epoch
from sim.cluster.sites.read_modes import ReadMode, Source, read_mode
from sim.cluster.values import operations
from sim.cluster.values.refused import Refused

_MAX_PERCENT = 100


def read(
    cluster: Cluster,
    node: Node,
    request: Request,
    digest: bytes,
    matches: Filter | None,
    now_ms: int,
    transaction: int,
) -> Outcome:
    """Answer a read. In a transaction, from what it has written itself. Raises Refused."""
    if read_mode(request.info3) is ReadMode.LINEARIZE and not cluster.is_enterprise:
        return Outcome(ResultCode.ENTERPRISE_ONLY)
    set_name = request.fields.get(Field.SET, b"")
    if transaction and cluster.transactions.holder((set_name, digest)) == transaction:
        record = live(cluster.transactions.written((set_name, digest)), now_ms)
        return _answer(cluster, node, request, record, matches, now_ms)
    from_own = cluster.source(node, request.info3, partition_of(digest)) is Source.OWN_COPY
    record = live(cluster.find(node, set_name, digest, from_own=from_own), now_ms)
    if request.info4 & codes.INFO4_VERIFY_READ:
        check_version(request.fields, record)
        return Outcome(ResultCode.OK)
    if not transaction:
        return _answer(cluster, node, request, record, matches, now_ms)
    outcome = _answer(cluster, node, request, record, matches, now_ms)
    return outcome if record is None else outcome._replace(num_fields=1, fields=version_field(record))


def _answer(
    cluster: Cluster, node: Node, request: Request, record: Record | None, matches: Filter | None, now_ms: int
) -> Outcome:
    """What a read says of a record."""
    if record is None:
        return Outcome(ResultCode.NOT_FOUND)
    generation, void_time = record.generation, record.void_time
    if matches is not None and not matches(record, now_ms):
        return Outcome(ResultCode.FILTERED_OUT, generation, void_time=void_time)
    if void_time:
        _touch_by_reading(cluster, node, request.record_ttl, record, now_ms)
    if request.info1 & codes.INFO1_NO_BIN_DATA:
        return Outcome(ResultCode.OK, generation, void_time=void_time)
    if request.info1 & codes.INFO1_GET_ALL:
        return Outcome(ResultCode.OK, generation, record.num_bins, record.ops, void_time)
    names = [op.name for op in request.ops if op.code == OpCode.READ]
    if len(names) < len(request.ops):
        respond_all = bool(request.info2 & codes.INFO2_RESPOND_ALL_OPS)
        answers = operations.read_all(record, request.ops, now_ms, respond_all=respond_all)
        return Outcome(ResultCode.OK, generation, len(answers), b"".join(answers), void_time)
    if names == list(record.shape.bounds):
        return Outcome(ResultCode.OK, generation, record.num_bins, record.ops, void_time)
    found = [ops for ops in map(record.bin, names) if ops is not None]
    return Outcome(ResultCode.OK, generation, len(found), b"".join(found), void_time)


def _touch_by_reading(cluster: Cluster, node: Node, percent: int, record: Record, now_ms: int) -> None:
    """Begin a record's time to live anew where a read falls into its last part. Its generation stays.

    `percent` is the size of that part; 0 leaves it to the configuration, and TTL_NEVER is none. Raises Refused.
    """
    if percent == TTL_NEVER or cluster.transactions.holder((record.set_name, record.digest)):
        return
    if percent > _MAX_PERCENT:
        raise Refused(ResultCode.PARAMETER)
    percent = percent or cluster.config.default_read_touch_ttl_pct
    now = since_epoch(now_ms)
    ttl_s = record.void_time - since_epoch(record.last_update_ms)
    if (record.void_time - now) * _MAX_PERCENT < ttl_s * percent:
        owner, generation, bins = cluster.record_set(node, record.set_name), record.generation, record.bins()
        touched = make_record(owner.name, record.digest, record.key, generation, now_ms, bins, now + ttl_s)
        cluster.put(owner, record.digest, touched)
