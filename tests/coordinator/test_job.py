"""The life of a job, without a server, a clock or a mock."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import events, instructions
from coordinator.events import Event
from coordinator.instructions import Instruction
from coordinator.job import Job
from coordinator.quorum import Decision, Outcome, decide
from coordinator.rules import Phase, Rules
from geotrain.view.cut import Rows

SITES = ("ewr", "jfk", "lga")
RULES = Rules(sites=SITES, min_sites=2, rounds=2, gather_deadline_s=60, phase_deadline_s=30)
NEEDED = replace(RULES, min_sites=3)
ZEROS = np.zeros(4096, np.uint64)


def digest(number: int) -> np.ndarray:
    return np.frombuffer(number.to_bytes(20, "little"), np.uint8)


def rows(generations: Mapping[int, int]) -> Rows:
    return Rows(np.array([digest(key) for key in generations]), np.array(list(generations.values()), np.uint32))


class Driver:
    """A job and its clock."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.now_s = 1000.0
        self.job = Job(rules, now_s=self.now_s)

    def __call__(self, *happened: Event) -> list[Instruction]:
        return [instruction for event in happened for instruction in self.job.handle(event, now_s=self.now_s)]

    def gather(self, sites: tuple[str, ...] = SITES) -> list[Instruction]:
        return self(*(events.SiteJoined(site) for site in sites), *(events.SitePrepared(site) for site in sites))

    def agree(self, sites: tuple[str, ...] = SITES) -> list[Instruction]:
        number = self.job.round
        return self(*(events.CutReported(site, number, {"legs": 10}, {"legs": ZEROS}) for site in sites))

    def update(self, site: str) -> list[Instruction]:
        return self(events.UpdateArrived(site, self.job.round, 100, {"loss": 0.5}, Path(site)))

    def start_model(self) -> list[Instruction]:
        self.gather()
        self.agree()
        self(*(events.StatisticsReported(site, "{}") for site in SITES))
        return self(events.Published(1))


@pytest.fixture
def drive() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    # Whatever a test did: silence until after every deadline ends the job, with a reason.
    driver.now_s += 3 * (RULES.gather_deadline_s + RULES.phase_deadline_s)
    for _ in range(4):
        driver(events.Tick())
        driver.now_s += RULES.gather_deadline_s + RULES.phase_deadline_s
    assert driver.job.phase in (Phase.ENDED, Phase.PUBLISHING)
    assert driver.job.reason


def test_an_undisturbed_job_goes_through_every_phase_in_order(drive):
    assert drive(*(events.SiteJoined(site) for site in SITES)) == [instructions.Prepare(site) for site in SITES]
    assert drive(*(events.SitePrepared(site) for site in SITES)) == [instructions.ScanCut(SITES, 1, 0)]
    decided, ask = drive.agree()
    assert (decided.rows, decided.equal, ask) == (10, True, instructions.AskStatistics(SITES, 1))
    assert drive(*(events.StatisticsReported(site, site) for site in SITES)) == [
        instructions.PublishInitial({site: site for site in SITES})
    ]
    assert drive(events.Published(1)) == [instructions.Train(SITES, 1, 1)]
    drive.update("lga")
    drive.update("ewr")
    [publish] = drive.update("jfk")
    assert [update.site for update in publish.updates] == ["ewr", "jfk", "lga"]
    assert drive(events.Published(2)) == [instructions.ScanCut(SITES, 2, 2)]
    _, train = drive.agree()
    assert train == instructions.Train(SITES, 2, 2)
    for site in SITES:
        drive.update(site)
    assert drive(events.Published(3)) == [instructions.Localize(SITES, 3)]
    for site in SITES:
        localized = events.UpdateArrived(site, 0, 100, {"localized": 0.7}, Path(site))
        assert drive(localized) == [instructions.PublishLocalized(localized, 3)]
    [end] = drive(*(events.LocalizedPublished(site) for site in SITES))
    assert end.finished


def test_a_job_waits_for_every_site_until_the_gather_deadline_then_goes_on_with_enough(drive):
    assert drive.gather(("ewr", "jfk"))[2:] == []
    drive.now_s += RULES.gather_deadline_s
    [scan] = drive(events.Tick())
    assert scan.sites == ("ewr", "jfk")


def test_a_job_that_too_few_sites_can_run_fails_with_their_reasons(drive):
    drive(*(events.SiteJoined(site) for site in SITES))
    [end] = drive(
        events.SiteFailed("ewr", "flights.parquet: column dest is missing"),
        events.SiteFailed("jfk", "no folder"),
    )
    assert not end.finished
    assert "column dest is missing" in end.reason
    assert "no folder" in end.reason


BUSY = "it waits for a place: this site works on 2 of 2 jobs (site.max_jobs)"


def test_a_site_without_a_place_is_waited_for_with_its_reason_until_the_gather_deadline_and_joins_later(drive):
    drive.gather(("ewr", "jfk"))
    drive(events.SiteJoined("lga"), events.SiteWaits("lga", BUSY))
    assert drive.job.reason == f"waiting for lga: 2 of 3 sites reported, 2 needed (lga: {BUSY})"
    assert drive.job.standing()["lga"] == ("asked", BUSY)
    drive.now_s += RULES.gather_deadline_s
    [scan] = drive(events.Tick())
    assert scan.sites == ("ewr", "jfk")
    assert drive.job.standing()["lga"] == ("out", BUSY)
    drive.agree(("ewr", "jfk"))
    drive(*(events.StatisticsReported(site, "{}") for site in ("ewr", "jfk")), events.Published(1))
    drive.update("ewr")
    drive(events.SitePrepared("lga"))
    [publish] = drive.update("jfk")
    assert [update.site for update in publish.updates] == ["ewr", "jfk"]
    [scan] = drive(events.Published(2))
    assert scan.sites == SITES


def test_a_job_that_needs_a_site_without_a_place_ends_with_that_reason_at_the_gather_deadline():
    drive = Driver(NEEDED)
    drive.gather(("ewr", "jfk"))
    drive(events.SiteJoined("lga"), events.SiteWaits("lga", BUSY))
    drive.now_s += RULES.gather_deadline_s
    [end] = drive(events.Tick())
    assert (end.status, BUSY in end.reason) == ("failed", True)


def test_a_site_that_leaves_in_mid_round_does_not_stall_it(drive):
    drive.start_model()
    drive.update("ewr")
    drive.update("jfk")
    [publish] = drive(events.SiteLeft("lga", "it hung up"))
    assert [update.site for update in publish.updates] == ["ewr", "jfk"]
    assert drive(events.Published(2)) == [instructions.ScanCut(("ewr", "jfk"), 2, 2)]


def test_a_site_that_comes_back_joins_the_next_round(drive):
    drive.start_model()
    drive(events.SiteLeft("lga", "it hung up"))
    assert drive(events.SiteJoined("lga")) == [instructions.Prepare("lga")]
    drive(events.SitePrepared("lga"))
    drive.update("ewr")
    drive.update("jfk")
    [scan] = drive(events.Published(2))
    assert scan.sites == SITES


def test_a_slow_site_is_waited_for_until_the_deadline_and_no_longer(drive):
    drive.start_model()
    drive.update("ewr")
    drive.update("jfk")
    drive.now_s += RULES.phase_deadline_s - 0.1
    assert drive(events.Tick()) == []
    drive.now_s += 0.1
    [publish] = drive(events.Tick())
    assert [update.site for update in publish.updates] == ["ewr", "jfk"]
    assert "without lga" in publish.reason


def test_an_update_of_another_round_or_of_a_stranger_is_not_counted(drive):
    drive.start_model()
    for site, number in (("ewr", 7), ("mars", 1), ("ewr", 0)):
        asked = drive(events.UpdateArrived(site, number, 100, {}, Path(site)))
        assert all(isinstance(one, instructions.DropUpdate) for one in asked)
    drive.update("ewr")
    drive.update("jfk")
    [publish] = drive.update("lga")
    assert [(update.site, update.round) for update in publish.updates] == [(site, 1) for site in SITES]


def test_an_update_that_arrives_twice_is_counted_once(drive):
    drive.start_model()
    for site in ("ewr", "ewr", "jfk", "jfk"):
        drive.update(site)
    [publish] = drive.update("lga")
    assert [update.site for update in publish.updates] == list(SITES)


def test_a_refused_update_leaves_the_round_to_the_others(drive):
    drive.start_model()
    drive.update("ewr")
    drive.update("jfk")
    [publish] = drive(events.SiteFailed("lga", "update refused: tensor w has values that are not finite"))
    assert [update.site for update in publish.updates] == ["ewr", "jfk"]


def test_what_became_of_an_earlier_round_does_not_cost_a_site_this_one(drive):
    drive.start_model()
    drive.update("ewr")
    drive.update("jfk")
    drive(events.SiteFailed("lga", "update refused", 1))
    [scan] = drive(events.Published(2))
    assert scan.sites == SITES
    drive(events.SiteFailed("lga", "the coordinator refused the update", 1))
    drive.agree(("ewr", "jfk"))
    [_, train] = drive.agree(("lga",))
    assert train.sites == SITES


def test_an_update_that_arrived_whole_counts_although_its_site_has_left(drive):
    drive.start_model()
    drive.update("lga")
    drive(events.SiteLeft("lga", "it hung up"))
    drive.update("ewr")
    [publish] = drive.update("jfk")
    assert [update.site for update in publish.updates] == list(SITES)


def test_sites_that_read_different_rows_all_keep_the_intersection(drive):
    drive.gather()
    differing = ZEROS.copy()
    differing[3] = 9
    for site, fingerprint in zip(SITES, (ZEROS, ZEROS, differing), strict=True):
        asked = drive(events.CutReported(site, 1, {"legs": 10}, {"legs": fingerprint}))
    assert asked == [instructions.ListCutRows(SITES, 1, {"legs": [3]})]
    drive(events.CutRowsListed("ewr", 1, {"legs": rows({3: 1, 4099: 1})}))
    drive(events.CutRowsListed("jfk", 1, {"legs": rows({3: 1, 4099: 1})}))
    decided, _ = drive(events.CutRowsListed("lga", 1, {"legs": rows({3: 2, 4099: 1})}))
    assert decided.drop["legs"].tolist() == [digest(3).tolist()]
    assert (decided.rows, decided.equal) == (9, False)


@given(
    waited_s=st.floats(30, 1e6),
    reported=st.frozensets(st.sampled_from(SITES)),
    expected=st.frozensets(st.sampled_from(SITES)),
)
def test_no_phase_waits_after_its_deadline(waited_s, reported, expected):
    decision = decide(reported=set(reported), expected=set(expected), waited_s=waited_s, min_sites=2, deadline_s=30)
    assert decision.outcome is not Outcome.WAIT


def test_a_decision_says_who_is_missing():
    assert decide(reported={"ewr"}, expected=set(SITES), waited_s=1, min_sites=2, deadline_s=30) == Decision(
        outcome=Outcome.WAIT, reason="waiting for jfk, lga: 1 of 3 sites reported, 2 needed"
    )


def test_after_the_grace_the_round_closes_without_who_is_not_done():
    drive = Driver(replace(RULES, grace_s=5))
    drive.start_model()
    drive.now_s += 20
    drive.update("ewr")
    assert drive(events.Tick()) == []
    drive.update("jfk")
    drive.now_s += 4.9
    assert drive(events.Tick()) == []
    drive.now_s += 0.1
    [publish] = drive(events.Tick())
    assert [update.site for update in publish.updates] == ["ewr", "jfk"]
    assert "5 s grace passed without lga" in publish.reason


def test_grace_does_not_cut_short_the_gathering_of_the_sites():
    drive = Driver(replace(RULES, grace_s=5))
    drive.gather(("ewr", "jfk"))
    drive.now_s += 50
    assert drive(events.Tick()) == []


@pytest.mark.parametrize("num_updates", [0, 1])
def test_a_paused_job_asks_for_nothing_more_and_goes_on_from_the_ledger(num_updates):
    drive = Driver()
    drive.start_model()
    for site in SITES[:num_updates]:
        drive.update(site)
    assert drive(events.PauseAsked("kim: the line is needed")) == [instructions.Suspend("kim: the line is needed")]
    assert drive.job.phase is Phase.PAUSED
    drive.now_s += 1000
    assert drive(events.Tick(), events.CancelAsked("too late")) == []
    assert drive.update("jfk") == []


def test_a_cancelled_job_ends_with_the_reason():
    drive = Driver()
    drive.gather(("ewr",))
    [end] = drive(events.CancelAsked("kim: a mistake"))
    assert (end.status, end.finished, end.reason) == ("cancelled", False, "kim: a mistake")
    assert drive(events.SiteJoined("jfk")) == []
