"""What those who follow a job are told of what the ledger knows: the same now as after a restart. Pure."""

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
        ended = pb.JobEnded(finished=facts.status == "finished", reason=facts.reason)
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
