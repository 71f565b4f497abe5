"""A round that was left is taken up again, by another coordinator or the same one: whom it waits for, whom it asks."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from coordinator import events, instructions
from coordinator.events import Held
from coordinator.facts import CommitFacts, CutFacts, JobFacts, LocalizedFacts, RoundFacts, proof
from coordinator.instructions import Instruction
from coordinator.job import Job
from coordinator.rules import Phase, Rules
from tests.coordinator.test_job import RULES, SITES

ZEROS = {"legs": np.zeros(4096, np.uint64)}
OTHERS = {"legs": np.ones(4096, np.uint64)}
NOW_S = 1000.0


def resumed(facts: JobFacts, *prepared: events.SitePrepared, rules: Rules = RULES) -> tuple[Job, list[Instruction]]:
    job = Job(rules, now_s=NOW_S, facts=facts)
    asked: list[Instruction] = []
    for event in (*(events.SiteJoined(site.site) for site in prepared), *prepared):
        asked += job.handle(event, now_s=NOW_S)
    return job, [one for one in asked if not isinstance(one, instructions.Prepare)]


def report(job: Job, site: str, found: dict[str, np.ndarray], number: int = 1) -> list[Instruction]:
    return job.handle(events.CutReported(site, number, {"legs": 10}, found), now_s=NOW_S)


def update(job: Job, site: str) -> list[Instruction]:
    return job.handle(events.UpdateArrived(site, 1, 100, {}, Path(site)), now_s=NOW_S)


CUT = CutFacts(decided_s=0, rows=10, dropped=0, equal=True, proof=proof(ZEROS))
FIRST = RoundFacts(round=0, commit=CommitFacts(committed_s=0, version=7))
OPEN = RoundFacts(round=1, base_version=0, sites=SITES, cut=CUT)
LEFT = JobFacts(rounds=(FIRST, OPEN))
LGA_HOLDS_NOTHING = (
    *(events.SitePrepared(site, Held(1, 7)) for site in ("ewr", "jfk")),
    events.SitePrepared("lga"),
)


def test_who_finds_other_rows_in_the_cut_waits_for_the_next_round_where_there_are_enough_without_it():
    job, asked = resumed(LEFT, *LGA_HOLDS_NOTHING)
    assert asked == [instructions.ScanCut(("lga",), 1, 7)]
    assert report(job, "lga", OTHERS) == [instructions.Train(("ewr", "jfk"), 1, 7)]
    assert "rows of it were written since" in job.standing()["lga"][1]
    for site in ("ewr", "jfk"):
        asked = update(job, site)
    assert "cut can't be read again" in asked[0].absent["lga"]
    [scan] = job.handle(events.Published(8), now_s=NOW_S)
    assert scan == instructions.ScanCut(SITES, 2, 8)


DROPPED = JobFacts(rounds=(FIRST, replace(OPEN, cut=replace(CUT, dropped=3))))


def test_where_a_site_is_needed_that_can_not_have_the_cut_again_all_that_have_not_trained_take_another_one():
    job, asked = resumed(
        LEFT, events.SitePrepared("ewr", Held(1, 7)), events.SitePrepared("jfk"), events.SitePrepared("lga", None, 2)
    )
    assert asked == [instructions.ScanCut(("jfk", "lga"), 1, 7)]
    report(job, "jfk", OTHERS)
    assert report(job, "lga", OTHERS) == [instructions.ScanCut(("jfk", "lga"), 1, 7, number=2)]
    assert "jfk, lga: round 1's cut can't be read again: rows of it were written since, so another" in job.reason
    report(job, "jfk", OTHERS)
    decided, train = report(job, "lga", OTHERS)
    assert (decided.sites, train) == (("jfk", "lga"), instructions.Train(SITES, 1, 7))
    assert "another" not in job.reason
    for site in SITES:
        asked = update(job, site)
    assert [one.site for one in asked[0].updates] == list(SITES)


def test_where_all_that_scan_leave_the_others_go_on_with_what_they_hold():
    job, _ = resumed(LEFT, *LGA_HOLDS_NOTHING)
    job.handle(events.SiteLeft("lga", "it hung up"), now_s=NOW_S)
    assert job.phase is Phase.TRAINING
    done = replace(OPEN, round=2, cut=replace(CUT, dropped=1), commit=CommitFacts(committed_s=0, version=9))
    own = {site: LocalizedFacts(site=site, committed_s=0, version=1, samples=1, metrics={}) for site in ("ewr", "jfk")}
    job, _ = resumed(JobFacts(rounds=(FIRST, done), localized=own), events.SitePrepared("lga"))
    job.handle(events.Tick(), now_s=NOW_S + 91)
    job.handle(events.SiteLeft("lga", "it hung up"), now_s=NOW_S + 92)
    job.handle(events.Tick(), now_s=NOW_S + 200)
    assert job.phase is Phase.ENDED
    assert job.reason.startswith("2 rounds, localized at ewr, jfk")


def test_who_was_restarted_in_the_last_round_takes_its_cut_before_it_localizes():
    job, _ = resumed(
        JobFacts(rounds=(FIRST, replace(OPEN, round=1, commit=CommitFacts(committed_s=0, version=8)))),
        *(events.SitePrepared(site) for site in SITES),
    )
    for site in SITES:
        report(job, site, ZEROS, number=2)
    job.handle(events.SiteLeft("lga", "it hung up"), now_s=NOW_S)
    job.handle(events.SiteJoined("lga"), now_s=NOW_S)
    job.handle(events.SitePrepared("lga"), now_s=NOW_S)
    for site in ("ewr", "jfk"):
        job.handle(events.UpdateArrived(site, 2, 100, {}, Path(site)), now_s=NOW_S)
    assert job.handle(events.Published(9), now_s=NOW_S) == [instructions.ScanCut(("lga",), 2, 9)]
    decided, localize = report(job, "lga", ZEROS, number=2)
    assert (decided.sites, localize) == (("lga",), instructions.Localize(SITES, 9))


def test_another_cut_is_not_compared_with_the_one_before_though_that_was_about_to_be_read_again():
    job, _ = resumed(
        LEFT,
        events.SitePrepared("ewr", Held(1, 7)),
        events.SitePrepared("jfk"),
        events.SitePrepared("lga"),
        rules=replace(RULES, min_sites=3),
    )
    assert job.phase is Phase.SCANNING
    job.handle(events.SiteLeft("lga", "it hung up"), now_s=NOW_S)
    job.handle(events.SiteJoined("lga"), now_s=NOW_S)
    job.handle(events.SitePrepared("lga"), now_s=NOW_S)
    assert job.phase is Phase.GATHERING
    for site in SITES:
        asked = job.handle(events.SitePrepared(site), now_s=NOW_S)
    assert asked == [instructions.ScanCut(SITES, 1, 7, number=2)]
    for site in SITES:
        asked = report(job, site, OTHERS)
    assert asked[1:] == [instructions.Train(SITES, 1, 7)]


def test_only_the_members_of_an_open_round_are_waited_for():
    facts = JobFacts(rounds=(FIRST, replace(OPEN, sites=("ewr", "jfk"))))
    _, asked = resumed(facts, events.SitePrepared("ewr", Held(1, 7)), events.SitePrepared("jfk", Held(1, 7)))
    assert asked == [instructions.Train(("ewr", "jfk"), 1, 7)]


def test_who_was_no_member_of_an_open_round_joins_the_next_one():
    facts = JobFacts(rounds=(FIRST, replace(OPEN, sites=("ewr", "jfk"))))
    stranger = events.SitePrepared("lga")
    _, asked = resumed(facts, stranger, events.SitePrepared("ewr", Held(1, 7)), events.SitePrepared("jfk", Held(1, 7)))
    assert asked == [instructions.Train(("ewr", "jfk"), 1, 7)]


BOTH = (events.SitePrepared("ewr", Held(1, 7)), events.SitePrepared("jfk", Held(1, 7)))


def test_what_a_site_was_asked_before_may_take_as_long_as_it_could_have():
    job, _ = resumed(LEFT, *BOTH)
    job.handle(events.SiteJoined("lga"), now_s=NOW_S + 59)
    assert job.handle(events.Tick(), now_s=NOW_S + 89) == []
    assert job.handle(events.Tick(), now_s=NOW_S + 90) == [instructions.Train(("ewr", "jfk"), 1, 7)]


def test_a_site_that_does_not_come_is_not_waited_for_as_if_it_worked():
    job, _ = resumed(LEFT, *BOTH)
    assert job.handle(events.Tick(), now_s=NOW_S + 59) == []
    assert job.handle(events.Tick(), now_s=NOW_S + 60) == [instructions.Train(("ewr", "jfk"), 1, 7)]


def test_a_site_that_does_not_come_is_waited_for_longer_where_the_round_needs_it():
    job, _ = resumed(LEFT, BOTH[0])
    assert job.handle(events.Tick(), now_s=NOW_S + 89) == []
    for event in (events.SiteJoined("jfk"), BOTH[1]):
        asked = job.handle(event, now_s=NOW_S + 89)
    assert asked == [instructions.Train(("ewr", "jfk"), 1, 7)]


def test_a_job_whose_sites_are_all_localized_only_ends():
    done = replace(OPEN, round=2, commit=CommitFacts(committed_s=0, version=9))
    localized = {
        site: LocalizedFacts(site=site, committed_s=0, version=1, samples=1, metrics={}) for site in ("ewr", "jfk")
    }
    job, asked = resumed(JobFacts(rounds=(FIRST, done), localized=localized))
    job.handle(events.Tick(), now_s=NOW_S + 91)
    [end] = job.handle(events.Tick(), now_s=NOW_S + 92)
    assert asked == []
    assert end.finished


def test_a_site_that_was_away_for_a_moment_brings_its_update_into_the_round():
    job, _ = resumed(LEFT, *(events.SitePrepared(site, Held(1, 7)) for site in SITES))
    job.handle(events.SiteLeft("lga", "its stream broke"), now_s=NOW_S)
    job.handle(events.SiteJoined("lga"), now_s=NOW_S)
    assert job.handle(events.SitePrepared("lga", Held(1, 7)), now_s=NOW_S) == [instructions.Train(("lga",), 1, 7)]
    for site in SITES:
        asked = job.handle(events.UpdateArrived(site, 1, 100, {}, Path(site)), now_s=NOW_S)
    assert [update.site for update in asked[0].updates] == list(SITES)
