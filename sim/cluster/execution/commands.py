"""Commands on one record: what may be done at all, and by whom in a transaction. Knows neither sockets nor clocks."""

from collections.abc import Mapping
from dataclasses import replace

from geotrain.wire import codes
from geotrain.wire.codes import DIGEST_BYTES, Field, ResultCode
from geotrain.wire.messages import Message
from geotrain.wire.partitions import partition_of
from sim.cluster.cluster import Cluster, Node
from sim.cluster.execution.reads import read
from sim.cluster.execution.requests import Outcome, Request
from sim.cluster.execution.transactions import (
    MONITORS,
    ROLLS,
    Place,
    check_version,
    deadline_of,
    id_of,
    is_committed,
    transaction_of,
)
from sim.cluster.execution.writes import Target, delete, write
from sim.cluster.expression.expressions import filter_of
from sim.cluster.records import live
from sim.cluster.sites.subclusters import RecordSet
from sim.cluster.values.refused import Refused

_UNSUPPORTED_FIELDS = frozenset({Field.UDF_PACKAGE, Field.UDF_FUNCTION})
_ALLOW_UNAVAILABLE = codes.INFO3_SC_READ_RELAX | codes.INFO3_SC_READ_TYPE


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
    if (pid := partition_of(digest)) in node.view.unavailable and not _may_be_old(node, kind, request, pid):
        return Outcome(ResultCode.UNAVAILABLE)
    matches = filter_of(filter_) if filter_ else None
    transaction = _transaction_of(cluster, fields)
    if not fields.get(Field.SET) and (set_name := cluster.set_with(node, digest)):
        fields = {**fields, Field.SET: set_name}
        request = _with_fields(request, fields)
    if kind == "read":
        return read(cluster, node, request, digest, matches, now_ms, transaction)
    if node.view.stops_writes:
        return Outcome(ResultCode.FORBIDDEN)
    owner = cluster.record_set(node, fields.get(Field.SET, b""))
    place = owner.name.name, digest
    if request.info4 & ROLLS:
        return _roll(cluster, owner, place, transaction, forward=bool(request.info4 & codes.INFO4_ROLL_FORWARD))
    stored = owner.copies[pid][0].get(digest)
    holder = cluster.transactions.holder(place)
    if holder not in (0, transaction):
        return Outcome(ResultCode.BLOCKED)
    if transaction:
        deadline = deadline_of(fields, now_ms)
        check_version(fields, live(stored, now_ms))
        stored = cluster.transactions.written(place) if holder else stored
        present = live(stored, now_ms)
        target = Target(cluster, owner, digest, now_ms, stored, present, transaction, deadline, bool(holder))
    else:
        target = Target(cluster, owner, digest, now_ms, stored, live(stored, now_ms))
    if kind == "delete":
        return delete(target, request, matches)
    return write(target, request, matches)


def _with_fields(request: Request, fields: dict[int, bytes]) -> Request:
    """The same command with other fields; rows of a batch may share theirs."""
    return replace(request, fields=fields) if isinstance(request, Message) else request._replace(fields=fields)


def _may_be_old(node: Node, kind: str, request: Request, pid: int) -> bool:
    """Whether a read takes what the node happens to hold of a partition that can't be served."""
    return kind == "read" and request.info3 & _ALLOW_UNAVAILABLE == _ALLOW_UNAVAILABLE and node.memory.versions[pid] > 0


def _transaction_of(cluster: Cluster, fields: Mapping[int, bytes]) -> int:
    """The transaction that a command on a record is part of, or 0. Raises Refused where there are none."""
    is_monitor = fields.get(Field.SET) == MONITORS
    if not is_monitor and Field.TRANSACTION_ID not in fields:
        return 0
    if not cluster.is_enterprise:
        raise Refused(ResultCode.ENTERPRISE_ONLY)
    if not cluster.config.strong_consistency:
        raise Refused(ResultCode.UNSUPPORTED)
    return 0 if is_monitor else transaction_of(fields)


def _roll(cluster: Cluster, owner: RecordSet, place: Place, transaction: int, *, forward: bool) -> Outcome:
    """Put what a transaction has written to a record in its place, or forget it. Doing it again does nothing."""
    if transaction and cluster.transactions.holder(place) == transaction:
        if forward:
            cluster.put(owner, place[1], cluster.transactions.written(place))
        cluster.release(owner, place[1], transaction)
    return Outcome(ResultCode.OK)


def end_overdue_transactions(cluster: Cluster, node: Node, now_ms: int) -> None:
    """End the transactions whose clients did not in time: forward where that was decided, back otherwise."""
    overdue = cluster.transactions.overdue(now_ms)
    if not overdue:
        return
    monitors = (record for copies in cluster.record_set(node, MONITORS).copies for record in copies[0].values())
    decided = {id_of(record) for record in monitors if not record.is_tombstone and is_committed(record)}
    for transaction, places in overdue.items():
        for place in places:
            owner = cluster.record_set(node, place[0])
            _roll(cluster, owner, place, transaction, forward=transaction in decided)
