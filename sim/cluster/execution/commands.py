"""Commands on one record: what may be done at all, and by whom in a transaction. Knows neither sockets nor clocks."""

from collections.abc import Mapping
from dataclasses import replace

from geotrain.wire import codes
from geotrain.wire.codes import DIGEST_BYTES, Field, ResultCode
from geotrain.wire.messages import Message
from geotrain.wire.partitions import partition_of
from sim.cluster.cluster import Cluster
from sim.cluster.execution.reads import read
from sim.cluster.execution.requests import Outcome, Request
from sim.cluster.execution.transactions import (
    MONITORS,
    ROLLS,
    Place,
    deadline_of,
    id_of,
    is_committed,
    transaction_of,
)
from sim.cluster.execution.writes import Lock, Target, delete, write
from sim.cluster.expression.expressions import filter_of
from sim.cluster.metadata import truncated_before_ms
from sim.cluster.node import Node
from sim.cluster.records import live
from sim.cluster.sites.read_modes import Source
from sim.cluster.sites.subclusters import RecordSet
from sim.cluster.values.refused import Refused

_TRANSACTION_KINDS = {
    codes.INFO4_VERIFY_READ: "verify_read",
    codes.INFO4_ROLL_FORWARD: "roll_forward",
    codes.INFO4_ROLL_BACK: "roll_back",
}
"""Commands that end a transaction are counted apart."""

_UNSUPPORTED_FIELDS = frozenset({Field.UDF_PACKAGE, Field.UDF_FUNCTION})


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
    if request.info4:
        kind = next((name for bit, name in _TRANSACTION_KINDS.items() if request.info4 & bit), kind)
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
    pid = partition_of(digest)
    if pid in node.view.unavailable and (kind != "read" or cluster.source(node, request.info3, pid) is Source.NOWHERE):
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
    set_name = fields.get(Field.SET, b"")
    if now_ms < truncated_before_ms(cluster.truncate_luts, set_name):
        return Outcome(ResultCode.FORBIDDEN)
    owner = cluster.record_set(node, set_name)
    place = owner.name.name, digest
    if request.info4 & ROLLS:
        return _roll(cluster, owner, place, transaction, forward=bool(request.info4 & codes.INFO4_ROLL_FORWARD))
    deadline = deadline_of(fields, now_ms) if transaction else 0
    committed = owner.get(digest)
    lock = Lock(transaction, deadline, cluster.transactions.holder(place), live(committed, now_ms))
    stored = cluster.transactions.written(place) if lock.is_own else committed
    target = Target(cluster, owner, digest, now_ms, stored, live(stored, now_ms), lock)
    if kind == "delete":
        return delete(target, request, matches)
    return write(target, request, matches)


def _with_fields(request: Request, fields: dict[int, bytes]) -> Request:
    """The same command with other fields; rows of a batch may share theirs."""
    return replace(request, fields=fields) if isinstance(request, Message) else request._replace(fields=fields)


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
    kept = cluster.record_set(node, MONITORS)
    monitors = (record for pid in kept.filled for record in kept.records(pid).values())
    decided = {id_of(record) for record in monitors if not record.is_tombstone and is_committed(record)}
    for transaction, places in overdue.items():
        for place in places:
            owner = cluster.record_set(node, place[0])
            _roll(cluster, owner, place, transaction, forward=transaction in decided)
