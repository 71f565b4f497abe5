"""Updates that come after their round: counted with less weight, or refused before their bytes are sent."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import events, instructions
from coordinator.events import Held, UpdateArrived
from coordinator.facts import CommitFacts, JobFacts, RoundFacts
from coordinator.job import Job
from coordinator.late import Taken, staleness, weights
from coordinator.rules import Phase
from tests.coordinator.test_job import RULES, SITES, Driver

FOR_LATE = replace(RULES, rounds=4, max_staleness=1)


def arrived(site: str, number: int) -> UpdateArrived:
    return UpdateArrived(site, number, 100, {"loss": 0.5}, Path(f"{site}-{number}"))


def without_lga(driver: Driver) -> list[instructions.Instruction]:
    """The open round, committed at its deadline with the updates of the other two."""
    driver.update("ewr")
    driver.update("jfk")
    driver.now_s += RULES.phase_deadline_s
    return driver(events.Tick())


@pytest.fixture
def late() -> Driver:
    """A job in its second round; the first was committed without lga, which still trains for it."""
    driver = Driver(FOR_LATE)
    driver.start_model()
    [publish] = without_lga(driver)
    assert publish.oldest == 1
    driver(events.Published(2))
    driver.agree()
    assert (driver.job.round, driver.job.phase) == (2, Phase.TRAINING)
    return driver


def test_an_update_that_comes_a_round_late_is_counted_in_the_open_round_beside_those_on_time(late):
    assert late.job.refusal("lga", 1) == ""
    assert late(arrived("lga", 1)) == []
    [publish] = without_lga(late)
    assert [(update.site, update.round) for update in publish.updates] == [("ewr", 2), ("jfk", 2), ("lga", 1)]
    assert "lga" not in publish.absent
    assert weights(publish.updates, 2, 0.5) == {"ewr": 100, "jfk": 100, "lga": pytest.approx(100 / 2**0.5)}
    assert staleness(publish.updates, 2) == {"lga": 1}


def test_a_late_update_does_not_stand_for_a_site_that_is_waited_for(late):
    late(arrived("lga", 1))
    late.update("ewr")
    assert late.update("jfk") == []
    assert "waiting for lga" in late.job.reason


def test_a_newer_update_of_the_same_site_takes_the_place_of_its_late_one(late):
    late(arrived("lga", 1))
    late.update("ewr")
    late.update("jfk")
    drop, publish = late.update("lga")
    assert (drop.update.round, publish.updates[2].round) == (1, 2)
    assert "a newer update of lga" in drop.reason


def test_an_update_that_was_counted_late_is_not_counted_again(late):
    late(arrived("lga", 1))
    without_lga(late)
    late(events.Published(3))
    assert late.job.refusal("lga", 1) == "the update of lga for round 1 is counted already"
    [drop] = late(arrived("lga", 1))
    assert isinstance(drop, instructions.DropUpdate)


def test_an_update_that_comes_too_late_is_refused_with_the_reason(late):
    without_lga(late)
    late(events.Published(3))
    late.agree()
    assert late.job.round == 3
    assert late.job.refusal("lga", 1) == (
        "round 1 is committed, and the update comes 2 rounds late: strategy.max_staleness is 1"
    )


def test_with_no_staleness_allowed_every_late_update_is_refused():
    driver = Driver()
    driver.start_model()
    [publish] = without_lga(driver)
    assert publish.oldest == 2
    driver(events.Published(2))
    assert "strategy.max_staleness is 0" in driver.job.refusal("lga", 1)
    [drop] = driver(arrived("lga", 1))
    assert drop.update.site == "lga"


def test_after_the_last_round_no_update_is_taken():
    driver = Driver(replace(FOR_LATE, rounds=1))
    driver.start_model()
    [publish] = without_lga(driver)
    assert publish.oldest == 2
    driver(events.Published(2))
    assert "the last one" in driver.job.refusal("lga", 1)


def test_what_a_site_reports_of_a_closed_round_does_not_cost_it_the_next_one(late):
    late.update("ewr")
    late.update("jfk")
    late.now_s += RULES.phase_deadline_s
    late(events.Tick())
    late(events.Published(3))
    assert late(events.SiteFailed("lga", "the coordinator refused the update", 2)) == []
    late.agree(("ewr", "jfk"))
    [_, train] = late.agree(("lga",))
    assert train.sites == SITES


def committed(number: int, version: int, weights: dict[str, int], late: dict[str, int] | None = None) -> RoundFacts:
    commit = CommitFacts(committed_s=0, version=version, weights=weights, staleness=late or {})
    return RoundFacts(round=number, base_version=version - 1, sites=SITES, commit=commit)


HISTORY = (
    RoundFacts(round=0, commit=CommitFacts(committed_s=0, version=1)),
    committed(1, 2, {"ewr": 1, "jfk": 1}),
    committed(2, 3, {"ewr": 1, "jfk": 1, "lga": 1}, {"lga": 1}),
)


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        (Held(2, 2), [instructions.Train(("lga",), 2, 2)]),
        (Held(1, 1), []),
        (Held(0, 3), []),
        (Held(3, 3), []),
        (None, []),
    ],
    ids=["still taken", "counted late before", "localized", "of the round to come", "nothing"],
)
def test_after_a_restart_a_site_is_asked_for_the_late_update_it_holds_unless_it_was_counted(held, asked):
    job = Job(FOR_LATE, now_s=0, facts=JobFacts(rounds=HISTORY))
    for site in SITES:
        job.handle(events.SiteJoined(site), now_s=0)
    assert job.handle(events.SitePrepared("lga", held), now_s=0) == asked


@given(
    st.lists(st.tuples(st.sampled_from(SITES), st.integers(1, 6)), max_size=30), st.integers(0, 3), st.integers(1, 6)
)
def test_whatever_arrives_when_no_update_is_counted_twice(arrivals, max_staleness, rounds):
    rules = replace(FOR_LATE, rounds=rounds + 1, max_staleness=max_staleness)
    taken, counted = Taken(rules, JobFacts()), []
    per_round = len(arrivals) // rounds + 1
    for number in range(1, rounds + 1):
        updates = {}
        for site, trained in arrivals[(number - 1) * per_round : number * per_round]:
            if not taken.refusal(site, trained, number):
                updates[site] = arrived(site, trained)
        made_of, left_out = taken.close(updates, number)
        assert (list(made_of), left_out) == ([updates[site] for site in sorted(updates)], [])
        counted += [(update.site, update.round) for update in made_of]
        assert all(number - max_staleness <= update.round <= number for update in made_of)
    assert len(set(counted)) == len(counted)
