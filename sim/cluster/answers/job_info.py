"""Info requests about queries: show them, abort them."""

from geotrain.wire.codes import ResultCode
from geotrain.wire.info import decode_parameters, encode_parameters
from sim.cluster.answers.info_parameters import Answer, InfoError
from sim.cluster.cluster import Cluster
from sim.cluster.execution.jobs import Job
from sim.cluster.node import Node


def _show(cluster: Cluster, node: Node, parameters: str) -> str:
    jobs = [_job(node, parameters)] if parameters else reversed(node.jobs.by_trid.values())
    described = (job.described(cluster.config.namespace, node.host) for job in jobs)
    return ";".join(encode_parameters(values, ":") for values in described)


def _abort(cluster: Cluster, node: Node, parameters: str) -> str:
    job = _job(node, parameters)
    if job.result_code is not None:
        raise InfoError(ResultCode.NOT_FOUND, "job not active")
    job.is_aborted = True
    return "ok"


def _abort_all(cluster: Cluster, node: Node, parameters: str) -> str:
    running = [job for job in node.jobs.by_trid.values() if job.result_code is None]
    for job in running:
        job.is_aborted = True
    return f"OK - number of queries killed: {len(running)}"


def _job(node: Node, parameters: str) -> Job:
    values = decode_parameters(parameters)
    trid = values.get("trid") or values.get("id") or ""
    if not trid.isdecimal():
        raise InfoError(ResultCode.PARAMETER, "bad 'trid'")
    job = node.jobs.by_trid.get(int(trid))
    if job is None:
        raise InfoError(ResultCode.NOT_FOUND, "job not found")
    return job


JOB_ANSWERS: dict[str, Answer] = {"query-abort": _abort, "query-abort-all": _abort_all, "query-show": _show}
