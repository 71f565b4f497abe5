"""Queries as a node remembers them: what was asked, how far it is, how it ended. Info requests show and abort them."""

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from geotrain.wire.codes import Field, ResultCode
from geotrain.wire.messages import Message

MAX_JOBS = 100  # the default query-max-done of a real server
_MS_PER_NS = 1_000_000
_PID_BYTES, _DIGEST_BYTES = 2, 20


@dataclass(slots=True, kw_only=True)
class Job:
    """One query on one node."""

    trid: int
    set_name: str
    kind: str
    """`basic`, or `background-ops`."""
    num_pids: int
    num_digests: int
    rate: int
    socket_timeout_ms: int
    num_partitions_done: int = 0
    num_succeeded: int = 0
    num_failed: int = 0
    num_filtered: int = 0
    num_bytes: int = 0
    result_code: int | None = None
    """None while it runs."""
    is_aborted: bool = False
    started_ns: int = field(default_factory=time.monotonic_ns)
    ended_ns: int = 0

    def end(self, code: int) -> None:
        """Keep how it ended."""
        self.result_code = code
        self.ended_ns = time.monotonic_ns()

    @property
    def status(self) -> str:
        """In the words of a server."""
        if self.result_code is None:
            return "active(ok)"
        reason = {ResultCode.OK: "ok", ResultCode.QUERY_ABORT: "user-aborted"}.get(ResultCode(self.result_code))
        return f"done({reason or f'abandoned-{self.result_code}'})"

    def described(self, namespace: str, from_: str) -> dict[str, object]:
        """All about it, under the names and in the order of a server."""
        now_ns = time.monotonic_ns()
        is_done = self.result_code is not None
        num_asked = max(1, self.num_pids + self.num_digests)
        progress = 100.0 if is_done else 100.0 * min(num_asked, self.num_partitions_done) / num_asked
        return {
            "trid": self.trid,
            "ns": namespace,
            "set": self.set_name,
            "n-pids-requested": self.num_pids,
            "n-keyds-requested": self.num_digests,
            "rps": self.rate,
            "active-threads": int(not is_done),
            "status": self.status,
            "job-progress": f"{progress:.2f}",
            "run-time": ((self.ended_ns if is_done else now_ns) - self.started_ns) // _MS_PER_NS,
            "time-since-done": (now_ns - self.ended_ns) // _MS_PER_NS if is_done else 0,
            "recs-throttled": 0,
            "recs-filtered-meta": 0,
            "recs-filtered-bins": self.num_filtered,
            "recs-succeeded": self.num_succeeded,
            "recs-failed": self.num_failed,
            "from": from_,
            "job-type": self.kind,
            "net-io-bytes": self.num_bytes,
            "net-io-time": 0,
            "socket-timeout": self.socket_timeout_ms,
        }


class Jobs:
    """The queries of a node, the latest last; the oldest are forgotten."""

    def __init__(self) -> None:
        self.by_trid: OrderedDict[int, Job] = OrderedDict()

    def start(self, request: Message, kind: str) -> Job:
        """Remember a query that begins."""
        fields = request.fields
        job = Job(
            trid=number(fields, Field.TASK_ID),
            set_name=fields.get(Field.SET, b"").decode(errors="replace"),
            kind=kind,
            num_pids=len(fields.get(Field.PARTITION_IDS, b"")) // _PID_BYTES,
            num_digests=len(fields.get(Field.DIGESTS, b"")) // _DIGEST_BYTES,
            rate=number(fields, Field.RECORDS_PER_SECOND),
            socket_timeout_ms=number(fields, Field.SOCKET_TIMEOUT),
        )
        self.by_trid.pop(job.trid, None)
        self.by_trid[job.trid] = job
        while len(self.by_trid) > MAX_JOBS:
            self.by_trid.popitem(last=False)
        return job


def number(fields: dict[int, bytes], kind: int) -> int:
    """A field that is a number, or 0."""
    return int.from_bytes(fields.get(kind, b""), "big")
