"""How an agent finds the leader, stays with it, and leaves it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

import pytest

from geotrain.lease import Lease
from site_agent.life import (
    WELCOME_DEADLINE_S,
    Broken,
    Dial,
    GiveUp,
    HangUp,
    LeaseRead,
    LeaseUnread,
    Life,
    Phase,
    ReadLease,
    Refused,
    Tick,
    Welcomed,
)

FIRST = Lease(owner="a", epoch=1, lease_s=6, address="a:1", addresses={"jfk": "a.jfk:1"})
SECOND = Lease(owner="b", epoch=2, lease_s=6, address="b:1")
PAUSE_S = 2.0


def pauses() -> Iterator[float]:
    return repeat(PAUSE_S)


def life(address: str = "", site: str = "ewr") -> Life:
    return Life(site, address, now_s=0.0, delays_s=pauses)


def joined() -> Life:
    agent = life()
    assert agent.handle(Tick(), now_s=0) == [ReadLease()]
    assert agent.handle(LeaseRead(FIRST), now_s=0) == [Dial("a:1")]
    agent.handle(Welcomed(), now_s=0)
    assert agent.phase is Phase.JOINED
    return agent


def read_at(agent: Life, now_s: float, lease: Lease | None) -> list[object]:
    """What comes of the lease, once the agent has asked for it."""
    assert agent.handle(Tick(), now_s=now_s) == [ReadLease()]
    return agent.handle(LeaseRead(lease), now_s=now_s)


@pytest.mark.parametrize(("site", "address"), [("ewr", "a:1"), ("jfk", "a.jfk:1")])
def test_the_leader_is_dialled_where_its_lease_says_for_this_site(site, address):
    assert read_at(life(site=site), 0, FIRST) == [Dial(address)]


@pytest.mark.parametrize("lease", [None, replace(FIRST, owner="")])
def test_where_nobody_leads_the_lease_is_read_again_and_nobody_is_dialled(lease):
    agent = life()
    for step in range(20):
        assert read_at(agent, step * 0.25, lease) == []
    assert agent.reason == "no coordinator leads"
    assert read_at(agent, 5.0, FIRST) == [Dial("a:1")]


def test_a_lease_that_can_not_be_read_is_said_and_read_again():
    agent = life()
    agent.handle(Tick(), now_s=0)
    assert agent.handle(LeaseUnread("no answer"), now_s=0) == []
    assert agent.reason == "no answer"
    assert read_at(agent, 1, FIRST) == [Dial("a:1")]


def test_only_one_read_is_under_way():
    agent = life()
    assert agent.handle(Tick(), now_s=0) == [ReadLease()]
    assert agent.handle(Tick(), now_s=10) == []


def test_the_same_leader_is_dialled_again_after_a_pause_and_a_new_one_at_once():
    agent = joined()
    agent.handle(Broken("it hung up"), now_s=10)
    assert read_at(agent, 10, FIRST) == []
    assert read_at(agent, 11, FIRST) == []
    assert read_at(agent, 12, FIRST) == [Dial("a:1")]
    agent.handle(Broken("refused"), now_s=12)
    assert read_at(agent, 12.5, SECOND) == [Dial("b:1")]


def test_pauses_start_anew_with_a_new_leader_which_may_not_be_through_with_taking_over():
    agent = Life("ewr", "", now_s=0.0, delays_s=lambda: iter((1.0, 100.0, 100.0)))
    read_at(agent, 0, FIRST)
    for now_s in (0, 1):
        agent.handle(Broken("refused"), now_s=now_s)
        read_at(agent, now_s + 1, FIRST)
    assert read_at(agent, 3, SECOND) == [Dial("b:1")]
    agent.handle(Broken("no coordinator leads yet"), now_s=3)
    assert read_at(agent, 3.5, SECOND) == []
    assert read_at(agent, 4, SECOND) == [Dial("b:1")]


def test_a_leader_that_was_replaced_is_left_though_its_stream_still_holds():
    agent = joined()
    assert read_at(agent, 1, FIRST) == []
    assert read_at(agent, 2, SECOND) == [HangUp("epoch 2 leads now, at b:1")]
    assert read_at(agent, 3, SECOND) == [], "said once"
    agent.handle(Broken("hung up"), now_s=3)
    assert read_at(agent, 3, SECOND) == [Dial("b:1")]


def test_a_leader_that_leads_again_under_a_later_epoch_is_not_left():
    agent = joined()
    assert read_at(agent, 1, replace(FIRST, epoch=3)) == []
    assert agent.phase is Phase.JOINED


def test_a_lease_of_an_earlier_epoch_that_a_rack_still_has_moves_nobody():
    agent = joined()
    read_at(agent, 1, SECOND)
    agent.handle(Broken("hung up"), now_s=1)
    read_at(agent, 1, SECOND)
    agent.handle(Welcomed(), now_s=1)
    assert read_at(agent, 2, FIRST) == []
    assert agent.phase is Phase.JOINED


def test_a_leader_that_gave_its_lease_back_is_not_left_before_another_leads():
    agent = joined()
    assert read_at(agent, 1, replace(FIRST, owner="")) == []
    assert agent.phase is Phase.JOINED


def test_a_dialled_address_that_says_nothing_is_hung_up_on():
    agent = life("c:1")
    assert agent.handle(Tick(), now_s=0) == [Dial("c:1")]
    asked = [one for step in range(60) for one in agent.handle(Tick(), now_s=step / 10)]
    assert asked == [HangUp(f"no welcome within {WELCOME_DEADLINE_S:g} s")]


def test_a_configured_address_is_dialled_after_every_pause_and_no_lease_is_read():
    agent = life("c:1")
    assert agent.handle(Tick(), now_s=0) == [Dial("c:1")]
    agent.handle(Broken("refused"), now_s=0)
    assert agent.handle(Tick(), now_s=1.9) == []
    assert agent.handle(Tick(), now_s=2) == [Dial("c:1")]
    agent.handle(Welcomed(), now_s=2)
    assert [agent.handle(Tick(), now_s=float(second)) for second in range(3, 30)] == [[]] * 27


def test_an_agent_that_is_not_wanted_gives_up():
    agent = life("c:1")
    agent.handle(Tick(), now_s=0)
    assert agent.handle(Refused("site mars is not one of ours", is_double=False), now_s=0) == [
        GiveUp("site mars is not one of ours")
    ]


def test_a_second_agent_of_a_site_gives_up_but_one_that_returns_tries_again():
    double = Refused("another agent is connected", is_double=True)
    second = life()
    read_at(second, 0, FIRST)
    assert isinstance(second.handle(double, now_s=0)[0], GiveUp)
    returning = joined()
    returning.handle(Broken("it broke"), now_s=1)
    assert read_at(returning, 3, FIRST) == [Dial("a:1")]
    assert returning.handle(double, now_s=3) == []
    assert read_at(returning, 5, FIRST) == [Dial("a:1")]


def test_pauses_grow_while_nobody_welcomes_and_start_anew_once_one_did():
    drawn: list[list[float]] = []

    def growing() -> Iterator[float]:
        drawn.append([])
        for pause_s in (1.0, 2.0, 4.0):
            drawn[-1].append(pause_s)
            yield pause_s

    agent = Life("ewr", "c:1", now_s=0.0, delays_s=growing)
    agent.handle(Tick(), now_s=0)
    agent.handle(Broken("no"), now_s=0)
    agent.handle(Tick(), now_s=1)
    agent.handle(Broken("no"), now_s=1)
    agent.handle(Tick(), now_s=3)
    agent.handle(Welcomed(), now_s=3)
    agent.handle(Broken("no"), now_s=9)
    assert drawn == [[1.0, 2.0], [1.0]]
