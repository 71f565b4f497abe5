"""Sites that fail, leave and come back in a round that needs them: it waits, is gathered again, or ends."""

import pytest

from coordinator import events, instructions
from coordinator.events import Held
from coordinator.facts import CommitFacts, JobFacts, RoundFacts
from coordinator.job import MAX_GATHERINGS, MAX_RETRIES, Job
from coordinator.rules import Phase
from tests.coordinator.test_job import NEEDED, RULES, SITES, Driver

OPEN = RoundFacts(round=1, sites=SITES)


@pytest.mark.parametrize("prepared", [Held(1, 1), None], ids=["with its update", "with its cut"])
def test_a_site_that_the_quorum_needs_may_come_back_until_the_deadline(prepared):
    drive = Driver(NEEDED)
    drive.start_model()
    drive.update("ewr")
    drive.update("jfk")
    assert drive(events.SiteLeft("lga", "its stream broke")) == []
    assert "waiting for lga to come back" in drive.job.reason
    drive.now_s += RULES.phase_deadline_s - 1
    assert drive(events.Tick()) == []
    drive(events.SiteJoined("lga"))
    assert drive(events.SitePrepared("lga", prepared, 0 if prepared else 1)) == [instructions.Train(("lga",), 1, 1)]
    [publish] = drive.update("lga")
    assert len(publish.updates) == 3


def test_a_site_that_the_quorum_needs_and_that_does_not_come_back_ends_the_job_at_the_deadline():
    drive = Driver(NEEDED)
    drive.start_model()
    drive(events.SiteLeft("lga", "its stream broke"))
    drive.now_s += RULES.phase_deadline_s
    [end] = drive(events.Tick())
    assert end.status == "failed"
    assert "lga did not come back within 30 s" in end.reason
    assert "its stream broke" in end.reason


def test_a_site_that_fails_is_not_waited_for_where_there_are_enough_others():
    drive = Driver()
    drive.start_model()
    drive.update("ewr")
    assert drive(events.SiteFailed("lga", "no memory", 1)) == []
    [publish] = drive.update("jfk")
    assert publish.absent == {"lga": "no memory"}


def test_a_needed_site_that_fails_is_asked_again_and_nothing_is_lost():
    drive = Driver(NEEDED)
    drive.start_model()
    drive.update("ewr")
    assert drive(events.SiteFailed("lga", "no memory", 1)) == [instructions.Prepare(site) for site in SITES]
    drive(events.SitePrepared("ewr", Held(1, 1), 1), events.SitePrepared("jfk", None, 1))
    assert drive(events.SitePrepared("lga", None, 1)) == [instructions.Train(SITES, 1, 1)]


def test_a_needed_site_that_fails_over_and_over_ends_the_job_with_its_reason():
    drive = Driver(NEEDED)
    drive.start_model()
    for _ in range(MAX_RETRIES):
        drive(events.SiteFailed("lga", "no memory", 1))
        drive(*(events.SitePrepared(site, None, 1) for site in SITES))
        assert drive.job.phase is Phase.TRAINING
    [end] = drive(events.SiteFailed("lga", "no memory", 1))
    assert end.status == "failed"
    assert "too few sites left" in end.reason
    assert "no memory" in end.reason


def test_a_site_that_fails_over_and_over_does_not_end_the_job_while_one_that_is_away_may_come_back():
    drive = Driver()
    drive.gather()
    drive(events.SiteLeft("lga", "it hung up"))
    for _ in range(MAX_RETRIES):
        drive(events.SiteFailed("jfk", "no memory", 1))
        drive(events.SitePrepared("ewr"), events.SitePrepared("jfk"))
    assert drive(events.SiteFailed("jfk", "no memory", 1)) == []
    assert "waiting for lga to come back" in drive.job.reason
    drive(events.SiteJoined("lga"))
    assert drive(events.SitePrepared("lga")) == [instructions.Prepare(site) for site in SITES]
    drive(*(events.SitePrepared(site) for site in SITES))
    drive(events.SiteFailed("jfk", "no memory", 1))
    decided, _ = drive.agree(("ewr", "lga"))
    assert decided.sites == ("ewr", "lga")


def test_a_needed_site_that_would_do_the_same_again_is_not_asked_again():
    drive = Driver(NEEDED)
    drive.start_model()
    [end] = drive(events.SiteFailed("lga", "update refused", 1, is_final=True))
    assert "too few sites left" in end.reason
    assert "update refused" in end.reason


def test_a_site_that_is_away_is_not_waited_for_when_another_that_is_needed_has_failed():
    drive = Driver()
    drive.gather()
    drive(events.SiteLeft("lga", "it hung up"))
    assert instructions.Prepare("jfk") in drive(events.SiteFailed("jfk", "no node answers", 1))
    drive(events.SitePrepared("ewr"))
    assert drive(events.SitePrepared("jfk")) == [instructions.ScanCut(("ewr", "jfk"), 1, 0)]


@pytest.mark.parametrize("phase", [Phase.SCANNING, Phase.SUMMARIZING, Phase.TRAINING])
def test_a_needed_site_that_comes_back_without_its_cut_has_the_round_gathered_again_and_nothing_is_lost(phase):
    drive = Driver(NEEDED)
    drive.gather()
    if phase is not Phase.SCANNING:
        drive.agree()
    if phase is Phase.TRAINING:
        drive(*(events.StatisticsReported(site, "{}") for site in SITES))
        drive(events.Published(1))
        drive.update("ewr")
    assert drive.job.phase is phase
    drive.now_s += 5
    assert drive(events.SiteLeft("lga", "it hung up"), events.SiteJoined("lga")) == [instructions.Prepare("lga")]
    assert drive(events.SitePrepared("lga")) == [instructions.Prepare(site) for site in SITES]
    assert drive.job.phase is Phase.GATHERING
    held = Held(1, 1) if phase is Phase.TRAINING else None
    cut_round = 1 if phase is Phase.TRAINING else 0
    drive(events.SitePrepared("ewr", held, cut_round), events.SitePrepared("jfk", None, cut_round))
    [scan] = drive(events.SitePrepared("lga"))
    asked = ("lga",) if phase is Phase.TRAINING else SITES
    number = 2 if phase is Phase.SUMMARIZING else 1  # a cut was decided, and all take another one
    assert scan == instructions.ScanCut(asked, 1, drive.job.base_version, number)
    if phase is Phase.TRAINING:
        decided, train = drive.agree(("lga",))
        assert (decided.sites, train) == (("lga",), instructions.Train(SITES, 1, 1))


def test_a_round_is_not_gathered_again_for_ever():
    drive = Driver(NEEDED)
    drive.gather()
    for _ in range(MAX_GATHERINGS):
        drive(events.SiteLeft("lga", "it hung up"), events.SiteJoined("lga"))
        drive(events.SitePrepared("lga"))
        drive(*(events.SitePrepared(site) for site in SITES))
        assert drive.job.phase is Phase.SCANNING
    drive(events.SiteLeft("lga", "it hung up"), events.SiteJoined("lga"))
    [end] = drive(events.SitePrepared("lga"))
    assert end.status == "failed"
    assert "was gathered 3 times again" in end.reason


def test_a_site_that_hung_up_is_not_needed_for_a_round_that_has_enough():
    drive = Driver()
    drive.start_model()
    drive.update("ewr")
    drive(events.SiteLeft("lga", "it hung up"), events.SiteJoined("lga"), events.SitePrepared("lga"))
    [publish] = drive.update("jfk")
    assert "it hung up" in publish.absent["lga"]


def test_what_a_site_could_not_do_before_the_round_was_gathered_again_does_not_cost_it_the_round():
    facts = JobFacts(rounds=(RoundFacts(round=0, commit=CommitFacts(committed_s=0, version=1)), OPEN))
    drive = Driver(NEEDED)
    drive.job = Job(NEEDED, now_s=drive.now_s, facts=facts)
    drive(*(events.SiteJoined(site) for site in SITES))
    drive(events.SiteFailed("lga", "the coordinator refused the update: it waits for the view", 1))
    asked = drive(*(events.SitePrepared(site, Held(1, 1)) for site in SITES))
    assert asked == [instructions.Train(SITES, 1, 1)]


def test_a_site_that_could_not_run_the_job_and_can_by_now_counts_again():
    drive = Driver()
    drive(*(events.SiteJoined(site) for site in SITES))
    drive(events.SiteFailed("lga", "there is no file"), events.SitePrepared("ewr"))
    drive(events.SiteLeft("lga", "it hung up"), events.SiteJoined("lga"), events.SitePrepared("lga"))
    [scan] = drive(events.SiteFailed("jfk", "there is no file"))
    assert scan.sites == ("ewr", "lga")


@pytest.mark.parametrize("has_its_cut", [True, False])
def test_a_site_that_was_away_for_a_moment_and_trains_on_is_waited_for_until_it_says_what_it_has(has_its_cut):
    drive = Driver()
    drive.start_model()
    drive.update("ewr")
    assert drive(events.SiteLeft("lga", "its stream broke"), events.SiteJoined("lga")) == [instructions.Prepare("lga")]
    assert drive.update("jfk") == []
    assert "waiting for lga" in drive.job.reason
    asked = drive(events.SitePrepared("lga", None, 1 if has_its_cut else 0))
    if has_its_cut:
        assert asked == [instructions.Train(("lga",), 1, 1)]
        [publish] = drive.update("lga")
        assert len(publish.updates) == 3
    else:
        [publish] = asked
        assert "its stream broke" in publish.absent["lga"]


def test_a_site_that_is_back_and_says_nothing_more_is_waited_for_until_the_deadline_only():
    drive = Driver()
    drive.start_model()
    drive.update("ewr")
    drive(events.SiteLeft("lga", "its stream broke"), events.SiteJoined("lga"))
    drive.update("jfk")
    drive.now_s += RULES.phase_deadline_s
    [publish] = drive(events.Tick())
    assert [update.site for update in publish.updates] == ["ewr", "jfk"]
