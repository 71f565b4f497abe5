"""What a coordinator knows of itself, its sites and its jobs, as plain values for JSON. Pure: no clock, no network.

Times are seconds since the Unix epoch; null is what is not known. docs/reference/snapshot.md describes every field.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from coordinator.config import JobConfig
from coordinator.facts import JobFacts, RoundFacts
from coordinator.history import line
from coordinator.job import Job
from coordinator.leadership import Leadership, Role
from coordinator.membership import Member, State
from geotrain.rpc import coordinator_pb2 as pb

NEVER_SEEN = "no agent of it has connected to this coordinator"


class Known(Protocol):
    """A job as its coordinator knows it: a JobRunner.

    machine: what decides now; None while the job does not run. waiting: for what the coordinator itself waits, since
    waiting_since_s; empty: for nothing. progress: what each site said last.
    """

    id: str
    config: JobConfig
    facts: JobFacts
    machine: Job | None
    waiting: str
    waiting_since_s: float
    progress: dict[str, pb.Progress]


def snapshot(
    coordinator: Mapping[str, Any],
    members: Mapping[str, Member],
    jobs: Iterable[Known],
    *,
    now_s: float,
    boot_s: float,
) -> dict[str, Any]:
    """Returns everything at a glance. boot_s: the Unix time at which the machines' clock, a monotonic one, was 0."""
    known = sorted(jobs, key=lambda job: (job.facts.launched_s, job.id))
    return {
        "time_s": now_s,
        "coordinator": dict(coordinator),
        "sites": _sites(members, [job for job in known if job.machine is not None], boot_s),
        "jobs": [summary(job, known, boot_s=boot_s) for job in known],
    }


def every_job(
    seen: Sequence[Mapping[str, Any]], past: Iterable[Mapping[str, Any]], num_older: int, *, now_s: float
) -> dict[str, Any]:
    """Returns the jobs of a snapshot, after those that only the view knows. past: their records; num_older: of how many
    more it has one."""
    unknown = dict.fromkeys(("model", "phase", "round", "rounds", "version", "sites"))
    earlier = [{**unknown, **row, "ended_s": row["ended_s"] or None} for row in past]
    listed = sorted([*earlier, *seen], key=lambda job: (job["launched_s"], job["job"]))
    return {"time_s": now_s, "jobs": listed, "total": len(listed) + num_older}


def coordinator(
    leadership: Leadership, *, now_s: float, boot_s: float, facts: Mapping[str, Any], ready: bool
) -> dict[str, Any]:
    """Returns what a coordinator is. facts: what of it never changes. ready: it leads and has taken up the jobs."""
    leader, role, reason = leadership.leader, leadership.role, leadership.reason
    if leadership.is_leading and not leadership.holds_at(now_s - boot_s):  # it stood still, and is about to notice
        role, reason = Role.STOPPING, "its lease has run out"
    elif leadership.is_leading and not ready:
        reason += ", and takes up the jobs that the ledger names"
    return {
        **facts,
        "role": role.value,
        "ready": ready,
        "reason": reason,
        "since_s": boot_s + leadership.since_s,
        "epoch": leadership.epoch,
        "leader": None
        if leader is None or not leader.is_held
        else {name: getattr(leader, name) for name in ("address", "status", "epoch", "since_s")},
    }


def summary(job: Known, known: Iterable[Known], *, boot_s: float) -> dict[str, Any]:
    """Returns where a job stands, why, and since when. known: all jobs; one may wait for another."""
    machine, facts = job.machine, job.facts
    if job.waiting:
        phase, reason, since_s = "waiting", job.waiting, job.waiting_since_s
    elif machine is not None:
        phase, reason, since_s = machine.phase.value, machine.reason, boot_s + machine.since_s
    else:
        reason = facts.reason or _why_it_does_not_run(job, known)
        phase, since_s = None, facts.since_s
    return {
        "job": job.id,
        "model": job.config.task.name,
        "status": facts.status,
        "phase": phase,
        "round": machine.round if machine else max((past.round for past in facts.rounds), default=0),
        "rounds": job.config.rounds,
        "version": facts.version,
        "reason": reason,
        "since_s": since_s,
        "launched_s": facts.launched_s,
        "ended_s": facts.ended_s or None,
        "sites": sorted(job.config.sites),
    }


def _why_it_does_not_run(job: Known, known: Iterable[Known]) -> str:
    running = [other for other in known if other.machine is not None and other.id != job.id]
    model = job.config.task.name
    if job.facts.status != "queued" or not running:
        return "it is being taken up from the ledger"
    for other in running:
        if other.config.task.name == model:
            return f"waiting for job {other.id} to end, which makes states of the same model, {model}"
    return f"waiting for one of {len(running)} running jobs to end (max_running_jobs)"


def detail(job: Known, known: Iterable[Known], *, boot_s: float) -> dict[str, Any]:
    """Returns a job with its sites and its rounds. known: all jobs."""
    standing = job.machine.standing() if job.machine else {}
    return {
        **summary(job, known, boot_s=boot_s),
        "standing": [
            {"site": site, "standing": word, "reason": reason, **_progress(job.progress.get(site))}
            for site, (word, reason) in sorted(standing.items())
        ],
        "history": [_round(past) for past in job.facts.rounds if past.round],
        "localized": [
            {**asdict(facts), "metrics": _all_finite(facts.metrics)} for _, facts in sorted(job.facts.localized.items())
        ],
    }


def event(told: pb.JobEvent) -> dict[str, Any]:
    """Returns what happened: its kind, the round, site and phase that it is about, and a line for people."""
    kind = told.WhichOneof("body") or ""
    body = getattr(told, kind)
    about = body.progress if kind == "site" else body
    return {
        "time_s": told.time_s,
        "kind": kind,
        "round": getattr(about, "round", None) or None,
        "site": getattr(body, "site", None),
        "phase": getattr(about, "phase", None),
        "note": getattr(about, "note", None) or None,
        "text": line(told),
    }


def _sites(members: Mapping[str, Member], running: Sequence[Known], boot_s: float) -> list[dict[str, Any]]:
    wanted = {site for job in running for site in job.config.sites}
    return [_site(site, members.get(site), running, boot_s) for site in sorted(members.keys() | wanted)]


def _site(site: str, member: Member | None, running: Sequence[Known], boot_s: float) -> dict[str, Any]:
    if member is None:
        unknown: dict[str, Any] = {"since_s": None, "heard_s": None, "version": None, "work": []}
        return {"site": site, "state": "unseen", "reason": NEVER_SEEN, **unknown}
    working = [job for job in running if site in job.progress] if member.state is not State.GONE else []
    return {
        "site": site,
        "state": member.state.value,
        "reason": member.reason,
        "since_s": boot_s + member.since_s,
        "heard_s": boot_s + member.heard_s,
        "version": member.version,
        "work": [{"job": job.id, **_progress(job.progress[site])} for job in working],
    }


def _progress(said: pb.Progress | None) -> dict[str, Any]:
    """What a site said last of its work in a job."""
    if said is None:
        return dict.fromkeys(("phase", "round", "rows", "loss", "bytes_up", "bytes_down", "note"))
    return {
        "phase": said.phase,
        "round": said.round or None,
        "rows": said.rows or None,
        "loss": _finite(said.loss),
        "bytes_up": said.bytes_up,
        "bytes_down": said.bytes_down,
        "note": said.note or None,
    }


def _round(past: RoundFacts) -> dict[str, Any]:
    shown = {**asdict(past), "status": "committed" if past.commit else "open"}
    if past.commit:
        shown["commit"]["metrics"] = {site: _all_finite(metrics) for site, metrics in past.commit.metrics.items()}
    return shown


def _all_finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in metrics.items()}


def _finite(number: float) -> float | None:
    """JSON has no other numbers."""
    return number if math.isfinite(number) else None
