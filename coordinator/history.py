"""What those who follow a job are told of what the ledger knows: the same now as after a restart. Pure."""

import math
from collections.abc import Iterator

from coordinator.config import JobConfig
from coordinator.facts import CutFacts, JobFacts, LocalizedFacts, RoundFacts
from geotrain.rpc import coordinator_pb2 as pb


def told(facts: JobFacts, config: JobConfig, *, consistency: str, num_racks: int) -> Iterator[pb.JobEvent]:
    """The events of a job so far, in order, but for its sites' progress."""
    started = pb.JobStarted(sites=sorted(config.sites), rounds=config.rounds, consistency=consistency, racks=num_racks)
    yield pb.JobEvent(time_s=facts.launched_s, started=started)
    for past in facts.rounds:
        if past.cut:
            yield cut_event(past.round, past.cut)
        if past.commit and past.round:
            yield round_event(past)
    for localized in sorted(facts.localized.values(), key=lambda facts: facts.committed_s):
        yield localized_event(localized, config.task.name)
    if facts.ended_s:
        ended = pb.JobEnded(status=facts.status, reason=facts.reason)
        yield pb.JobEvent(time_s=facts.ended_s, ended=ended)


def cut_event(number: int, cut: CutFacts) -> pb.JobEvent:
    event = pb.CutEvent(round=number, rows=cut.rows, dropped=cut.dropped, equal=cut.equal)
    return pb.JobEvent(time_s=cut.decided_s, cut=event)


def round_event(facts: RoundFacts) -> pb.JobEvent:
    commit = facts.commit
    assert commit is not None
    event = pb.RoundEvent(
        round=facts.round,
        seconds=commit.seconds,
        version=commit.version,
        bytes_up=commit.bytes_up,
        bytes_down=commit.bytes_down,
        loss={site: measured["loss"] for site, measured in commit.metrics.items()},
        reason=commit.reason,
    )
    return pb.JobEvent(time_s=commit.committed_s, round=event)


def localized_event(facts: LocalizedFacts, model: str) -> pb.JobEvent:
    event = pb.LocalizedEvent(
        site=facts.site,
        state=f"{model}/site/{facts.site}@{facts.version}",
        rows=facts.samples,
        metrics=facts.metrics,
    )
    return pb.JobEvent(time_s=facts.committed_s, localized=event)


def describe(event: pb.JobEvent) -> str | None:
    """One line for people, for the events worth one."""
    match event.WhichOneof("body"):
        case "started":
            return f"job {event.job}: {event.started.rounds} rounds at {', '.join(event.started.sites)}"
        case "cut":
            agreement = "equal everywhere" if event.cut.equal else f"{event.cut.dropped} rows dropped"
            return f"round {event.cut.round}: cut of {event.cut.rows} rows, {agreement}"
        case "round":
            loss = ", ".join(f"{site} {value:.4f}" for site, value in sorted(event.round.loss.items()))
            return f"round {event.round.round}: committed as version {event.round.version}, loss {loss}"
        case "localized":
            metrics = ", ".join(f"{name} {value:.4f}" for name, value in sorted(event.localized.metrics.items()))
            return f"{event.localized.state}: {event.localized.rows} rows, {metrics}"
        case "ended":
            return f"job {event.ended.status}: {event.ended.reason}"
    return None


def line(event: pb.JobEvent) -> str:
    """One line for people, also for what passes: where a phase or a site stands."""
    match event.WhichOneof("body"):
        case "phase":
            return f"round {event.phase.round} {event.phase.phase}: {event.phase.reason}"
        case "site":
            progress = event.site.progress
            loss = "" if math.isnan(progress.loss) else f", loss {progress.loss:.4f}"
            note = f": {progress.note}" if progress.note else ""
            where = f" round {progress.round}" * bool(progress.round)
            return f"{event.site.site}: {progress.phase}{where}{loss}{note}"
    return describe(event) or ""
