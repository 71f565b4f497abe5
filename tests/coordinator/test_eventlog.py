"""What a job remembers of what happened."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from coordinator import eventlog
from coordinator.eventlog import EventLog
from geotrain.rpc import coordinator_pb2 as pb

KINDS = {
    "site": pb.JobEvent(site=pb.SiteEvent(site="ewr")),
    "phase": pb.JobEvent(phase=pb.PhaseEvent(phase="training")),
    "round": pb.JobEvent(round=pb.RoundEvent(round=1)),
    "cut": pb.JobEvent(cut=pb.CutEvent(round=1)),
}
PASSING = ("site", "phase")


def test_who_follows_hears_signs_of_life_while_nothing_happens(monkeypatch):
    monkeypatch.setattr(eventlog, "SIGN_OF_LIFE_S", 0.01)

    async def scene() -> list[str | None]:
        log = EventLog("j")
        heard = []
        async for event in log.follow():
            heard.append(event.WhichOneof("body"))
            if len(heard) == 2:
                log.add(pb.JobEvent(ended=pb.JobEnded()))
        return heard

    assert asyncio.run(scene()) == [None, None, "ended"]


@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=40), st.integers(1, 5), st.integers(0, 45))
def test_it_keeps_the_newest_of_what_passes_and_of_what_stays_in_their_order(told, max_events, after):
    log = EventLog("j", max_events)
    for kind in told:
        log.add(KINDS[kind])
    numbered = list(enumerate(told, start=1))
    passing = [one for one in numbered if one[1] in PASSING][-max_events:]
    lasting = [one for one in numbered if one[1] not in PASSING][-max_events:]
    kept = [one for one in sorted(passing + lasting) if one[0] > after]
    assert [(number, event.WhichOneof("body")) for number, event in log.after(after)] == kept
    assert log.num_events == len(told)
