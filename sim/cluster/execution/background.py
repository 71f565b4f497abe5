"""Background queries: the same write to every record that a query finds, done after the request is answered."""

from collections.abc import Iterator

from geotrain.wire import codes
from geotrain.wire.codes import Field, ResultCode
from geotrain.wire.messages import Message
from sim.cluster.cluster import Cluster
from sim.cluster.execution.commands import execute
from sim.cluster.execution.indexes import Lookup, lookup_of
from sim.cluster.execution.jobs import Job
from sim.cluster.execution.query import records_of, wanted
from sim.cluster.expression.expressions import filter_of
from sim.cluster.node import Node, State
from sim.cluster.records import since_epoch
from sim.cluster.values import operations
from sim.cluster.values.refused import Refused

_PAUSED_S = 0.05  # after which a job looks whether its node goes on
_UNSUPPORTED_FIELDS = frozenset({Field.UDF_PACKAGE, Field.UDF_FUNCTION, Field.TRANSACTION_ID})


def start(cluster: Cluster, node: Node, request: Message) -> tuple[ResultCode, Iterator[float]]:
    """How the request is answered, and the steps in which it is then performed: after each, how long to wait."""
    try:
        lookup = _check(cluster, request)
        pids = [pid for pid, _, _ in wanted(request.fields)] or node.owned[0]
    except Refused as refused:
        return refused.code, iter(())
    return ResultCode.OK, _perform(cluster, node, request, lookup, pids, node.jobs.start(request, "background-ops"))


def _check(cluster: Cluster, request: Message) -> Lookup | None:
    fields = request.fields
    if fields.get(Field.NAMESPACE) != cluster.namespace:
        raise Refused(ResultCode.NAMESPACE)
    if not _UNSUPPORTED_FIELDS.isdisjoint(fields):
        raise Refused(ResultCode.UNSUPPORTED)
    if not request.ops or request.info1 & codes.INFO1_READ:
        raise Refused(ResultCode.PARAMETER)
    operations.check(request.ops, replaces=False)
    if Field.FILTER in fields:
        filter_of(fields[Field.FILTER])
    return lookup_of(cluster.indexes, request)


def _perform(
    cluster: Cluster, node: Node, request: Message, lookup: Lookup | None, pids: list[int], job: Job
) -> Iterator[float]:
    """Write to the records of one partition after the other, a step each.

    A node that is killed goes no further, nor does it when it is started again: it has forgotten its queries.
    """
    jobs = node.jobs
    code = ResultCode.SERVER  # as it stays where the node dies
    job.num_pids = len(pids)
    try:
        for pid in pids:
            while node.state is State.PAUSED:
                yield _PAUSED_S
            if node.jobs is not jobs:
                return
            if job.is_aborted:
                code = ResultCode.QUERY_ABORT
                return
            _write(cluster, node, request, lookup, pid, job)
            job.num_partitions_done += 1
            yield 0.0
        code = ResultCode.OK
    finally:
        job.end(code)
        source = "pi_query" if lookup is None else "si_query"
        node.counters[source, "ops_bg", code] += 1


def _write(cluster: Cluster, node: Node, request: Message, lookup: Lookup | None, pid: int, job: Job) -> None:
    """Write to the records of one partition."""
    fields = request.fields
    now_ms = node.now_ms()
    records = records_of(node, fields.get(Field.SET, b""), pid, b"", since_epoch(now_ms)).records
    for record in records if lookup is None else lookup.select(records, b"", 0):
        write = Message(
            info2=request.info2 & (codes.INFO2_WRITE | codes.INFO2_DURABLE_DELETE),
            info3=codes.INFO3_UPDATE_ONLY,
            record_ttl=request.record_ttl,
            fields={Field.NAMESPACE: cluster.namespace, Field.SET: record.set_name},
            ops=request.ops,
        )
        outcome = execute(cluster, node, "ops_sub", write, record.digest, fields.get(Field.FILTER), now_ms)
        job.num_succeeded += outcome.result_code == ResultCode.OK
        job.num_filtered += outcome.result_code == ResultCode.FILTERED_OUT
        job.num_failed += outcome.result_code not in (ResultCode.OK, ResultCode.FILTERED_OUT)
