import pytest

from coordinator.quorum import Outcome
from coordinator.rollcall import RollCall


@pytest.fixture
def roll() -> RollCall:
    return RollCall(["ewr", "jfk"], done=["lga"])


def judged(roll: RollCall, *, now_s: float, min_sites: int = 2) -> Outcome:
    return roll.judge(min_sites=min_sites, waited_s=now_s, deadline_s=60, grace_s=5, now_s=now_s).outcome


def test_who_has_done_it_before_counts_as_one_who_has_answered(roll):
    roll.report("ewr", "an update")
    assert roll.answered == {"ewr", "lga"}
    assert roll.hopeful == {"ewr", "jfk", "lga"}


def test_the_first_answer_counts_and_only_of_those_that_were_asked(roll):
    roll.report("ewr", "first")
    roll.report("ewr", "second")
    roll.report("sfo", "nobody asked")
    assert roll.reports == {"ewr": "first"}


def test_grace_runs_from_when_enough_have_answered_and_anew_where_one_of_them_is_lost(roll):
    assert judged(roll, now_s=10) is Outcome.WAIT
    roll.report("ewr", "an update")
    assert judged(roll, now_s=20) is Outcome.WAIT
    roll.reports.pop("ewr")
    assert judged(roll, now_s=24) is Outcome.WAIT
    roll.report("ewr", "an update")
    assert judged(roll, now_s=26) is Outcome.WAIT
    assert judged(roll, now_s=32) is Outcome.CLOSE


def test_who_is_back_is_waited_for_and_is_in_the_phase_only_once_it_has_answered(roll):
    roll.lose("jfk", given_up=True, may_return=True)
    roll.rejoin("jfk")
    assert roll.expected == {"ewr", "jfk"}
    assert not roll.settle("jfk")
    assert roll.returning == set()
    roll.rejoin("ewr")
    assert roll.settle("ewr"), "it never was away"


def test_who_failed_after_it_was_back_is_not_waited_for(roll):
    roll.away.add("jfk")
    roll.rejoin("jfk")
    roll.lose("jfk", given_up=True)
    assert (roll.expected, roll.away, roll.returning) == ({"ewr"}, set(), set())


def test_who_was_not_waited_for_any_more_may_not_come_back(roll):
    roll.lose("jfk", given_up=True)
    roll.lose("jfk", given_up=True, may_return=True)
    assert roll.away == set()


def test_a_new_phase_begins_without_answers_and_keeps_who_is_away(roll):
    roll.report("ewr", "an update")
    roll.away.add("jfk")
    roll.begin(["ewr"], done=())
    assert (roll.answered, roll.expected, roll.away) == (set(), {"ewr"}, {"jfk"})
