from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.wan.model import Link, LinkConfig, LinkQuality, Network


def link(seed: int = 0, **config: float) -> Link:
    return Link(LinkQuality(**config), Random(seed))  # type: ignore[arg-type]


def test_bytes_take_the_delay_of_the_link() -> None:
    assert link(delay_ms=40).arrival_s(100.0, 1000) == pytest.approx(100.040)


def test_bytes_wait_for_those_before_them_where_the_bandwidth_is_limited() -> None:
    slow = link(delay_ms=10, bytes_per_s=1000)
    assert [slow.arrival_s(0.0, 500) for _ in range(3)] == pytest.approx([0.51, 1.01, 1.51])
    assert slow.arrival_s(60.0, 500) == pytest.approx(60.51)


@given(seed=st.integers(0, 100), now_s=st.floats(0, 1e6), num_bytes=st.integers(0, 1 << 20))
def test_jitter_only_adds_to_the_delay(seed: int, now_s: float, num_bytes: int) -> None:
    assert link(seed, delay_ms=5, jitter_ms=3).arrival_s(now_s, num_bytes) >= now_s + 0.005


def test_the_same_seed_gives_the_same_jitter_and_directions_differ() -> None:
    config = [LinkConfig(sites=["a", "b"], jitter_ms=10)]
    first, second = Network(config, 7), Network(config, 7)
    delays = [first.link("a", "b").delay_s() for _ in range(5)]
    assert [second.link("a", "b").delay_s() for _ in range(5)] == delays
    assert [second.link("b", "a").delay_s() for _ in range(5)] != delays
    assert [Network(config, 8).link("a", "b").delay_s() for _ in range(5)] != delays


def test_a_link_that_is_given_one_way_counts_for_both_and_a_site_is_near_itself() -> None:
    network = Network([LinkConfig(sites=["a", "b"], delay_ms=30), LinkConfig(sites=["c", "a"], delay_ms=1)], 0)
    assert network.round_trip_s("a", "b") == network.round_trip_s("b", "a") == pytest.approx(0.060)
    assert network.round_trip_s("a", "c") == pytest.approx(0.002)
    assert network.round_trip_s("a", "a") == network.round_trip_s("b", "c") == 0


def test_a_message_takes_its_size_over_the_bandwidth_behind_what_was_sent_before_and_the_same_way() -> None:
    network = Network([LinkConfig(sites=["a", "b"], delay_ms=30, bytes_per_s=1000)], 0)
    assert network.arrival_s("a", "b", 9.0, 500) == pytest.approx(9.53)
    assert network.arrival_s("a", "b", 9.2, 500) == pytest.approx(10.03)
    assert network.arrival_s("b", "a", 9.2) == pytest.approx(9.23)
    assert network.arrival_s("a", "a", 9.2, 500) == 9.2


def test_what_is_sent_later_leaves_the_link_to_what_is_sent_before_but_takes_its_time_on_it() -> None:
    slow = link(bytes_per_s=1000)
    assert slow.arrival_s(9.0, 500, 0.0) == 9.5
    assert slow.arrival_s(1.0, 500) == 1.5
    assert slow.arrival_s(1.0, 8500) == 10.0
    assert slow.arrival_s(2.0, 500, 1.0) == 10.5


def test_answers_to_answers_between_two_sites_do_not_put_each_other_off() -> None:
    network = Network([LinkConfig(sites=["a", "b"], delay_ms=10, bytes_per_s=1_000_000)], 0)
    for _ in range(100):
        for here, there in (("a", "b"), ("b", "a")):
            asked_s = network.arrival_s(here, there, 0.0, 10, 0.0)
            answered_s = network.arrival_s(there, here, asked_s, 10, 0.0)
    assert answered_s == pytest.approx(0.020, abs=400 * 10 / 1_000_000)


def test_what_has_no_size_takes_no_bandwidth_from_what_is_sent_before_it() -> None:
    slow = link(bytes_per_s=1000)
    assert slow.arrival_s(9.0, 0) == 9.0
    assert slow.arrival_s(0.0, 500) == 0.5


def test_each_direction_can_have_its_own_link() -> None:
    network = Network([LinkConfig(sites=["a", "b"], delay_ms=30), LinkConfig(sites=["b", "a"], delay_ms=10)], 0)
    assert network.link("a", "b").delay_s() == pytest.approx(0.030)
    assert network.link("b", "a").delay_s() == pytest.approx(0.010)


def test_sites_reach_each_other_only_where_both_directions_are_up() -> None:
    network = Network([], 0)
    network.link("a", "b").cut()
    assert not network.is_up("a", "b")
    assert not network.is_up("b", "a")
    assert network.is_up("a", "c")


def test_what_waits_for_a_link_is_told_once_when_it_heals() -> None:
    told: list[str] = []
    cut = link()
    cut.cut()
    cut.when_healed(lambda: told.append("up"))
    assert told == []
    cut.heal()
    cut.heal()
    assert told == ["up"]


def test_a_link_that_was_slow_is_as_it_was_configured_once_it_heals() -> None:
    link = Network([LinkConfig(sites=["a", "b"], delay_ms=30, bytes_per_s=1000)], 0).link("a", "b")
    link.quality = LinkQuality(delay_ms=500, bytes_per_s=1)
    assert link.arrival_s(1.0, 60) == 61.5
    link.heal()
    assert link.arrival_s(2.0, 60) == pytest.approx(2.090)


@pytest.mark.parametrize("name", ["delay_ms", "jitter_ms", "bytes_per_s"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_field_that_is_no_amount_is_refused_by_its_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        link(**{name: value})


@pytest.mark.parametrize("sites", [[], ["a"], ["a", "a"], ["a", ""], ["a", "b", "c"]])
def test_a_link_that_is_not_between_two_sites_is_refused(sites: list[str]) -> None:
    with pytest.raises(ValueError, match="sites must name two sites"):
        LinkConfig(sites=sites)
