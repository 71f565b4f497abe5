"""What a job's events add up to, and the line that is told of each."""

import math

from geotrain.rpc import coordinator_pb2 as pb
from sim.history import Cut, History, Span
from tests.sim import events


def test_a_whole_job_adds_up_to_its_rounds_cuts_and_models() -> None:
    told = events.history(events.job(num_rounds=3))
    assert [each.round for each in told.rounds] == [1, 2, 3]
    assert told.rounds[1].cut == Cut(rows=330_668, dropped=17, equal=False)
    assert told.rounds[2].loss == {"ewr": 0.46, "jfk": 0.45, "lga": 0.44}
    assert told.localized["jfk"].state == "flights/site/jfk@1"
    assert (told.consistency, told.num_racks, told.num_rounds, told.finished) == ("strong", 3, 3, True)


def test_a_site_shows_its_latest_progress() -> None:
    told = History()
    told.apply(events.progress(1, "ewr", "training", 2, 90_000, 0.5))
    told.apply(events.progress(2, "ewr", "training", 2, 90_000, 0.4))
    site = told.sites["ewr"]
    assert (site.phase, site.round, site.rows, site.loss) == ("training", 2, 90_000, 0.4)
    assert (site.bytes_up, site.bytes_down) == (800_000, 1_400_000)


def test_a_line_is_told_for_each_change_of_phase_or_round_and_not_for_heartbeats() -> None:
    told = History()
    lines = [
        told.apply(events.progress(1, "ewr", "training", 1)),
        told.apply(events.progress(2, "ewr", "training", 1, 10, 0.5)),
        told.apply(events.progress(3, "ewr", "training", 2)),
        told.apply(events.progress(4, "ewr", "idle", 2)),
        told.apply(events.progress(5, "ewr", "localizing", 0)),
    ]
    assert lines == ["ewr: training, round 1", None, "ewr: training, round 2", None, "ewr: localizing"]


def test_the_jobs_own_events_are_told_in_words() -> None:
    told = History()
    said = [told.apply(event) for event in events.job(1) if not event.HasField("site")]
    assert all(said)
    assert "330668 rows" in str(said[1])


def test_spans_follow_each_other_and_end() -> None:
    told = History()
    told.apply(events.job(1)[0])
    told.apply(events.progress(1, "ewr", "scanning", 1))
    told.apply(events.progress(2, "jfk", "scanning", 1))
    told.apply(events.progress(4, "ewr", "training", 1))
    told.apply(events.progress(9, "ewr", "idle", 1))
    at = events.START_S
    assert told.spans == [
        Span(site="ewr", phase="scanning", round=1, start_s=at + 1, end_s=at + 4),
        Span(site="jfk", phase="scanning", round=1, start_s=at + 2, end_s=None),
        Span(site="ewr", phase="training", round=1, start_s=at + 4, end_s=at + 9),
    ]
    told.apply(pb.JobEvent(time_s=at + 12, job="j1", ended=pb.JobEnded(status="failed", reason="two sites are gone")))
    assert told.spans[1].end_s == at + 12
    assert (told.finished, told.reason) == (False, "two sites are gone")


def test_every_span_of_a_finished_job_has_an_end_and_none_overlaps_another_of_its_site() -> None:
    told = events.history()
    for site in events.SITES:
        spans = [span for span in told.spans if span.site == site]
        ends = [span.end_s for span in spans]
        assert None not in ends
        starts = [span.start_s for span in spans[1:]]
        assert all(end is not None and end <= start for end, start in zip(ends, starts, strict=False))


def test_a_site_that_never_trained_has_no_loss() -> None:
    told = History()
    told.apply(events.job(1)[0])
    assert all(math.isnan(site.loss) and site.phase == "waiting" for site in told.sites.values())
