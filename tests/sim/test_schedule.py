import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.schedule import Order, draw, parse

SITES = ("ewr", "jfk", "lga")
ENDS = {"kill": "start", "pause": "resume", "cut": "heal", "misbehave": "behave", "slow": "heal", "skew": "skew"}

seeds = st.integers(0, 2**32)
durations_s = st.floats(0.01, 300.0)


@given(seed=seeds, duration_s=durations_s)
def test_the_same_seed_gives_the_same_faults(seed: int, duration_s: float) -> None:
    assert draw(seed, SITES, duration_s) == draw(seed, SITES, duration_s)


def test_other_seeds_give_other_faults() -> None:
    assert len({tuple(draw(seed, SITES, 60.0)) for seed in range(100)}) == 100


@given(seed=seeds, duration_s=durations_s)
def test_every_fault_ends_after_it_began_and_within_the_duration(seed: int, duration_s: float) -> None:
    orders = draw(seed, SITES, duration_s)
    assert orders == sorted(orders, key=lambda order: order.at_s)
    assert 0 <= orders[0].at_s <= orders[-1].at_s == round(duration_s, 3)
    begun = [at for at, order in enumerate(orders) if is_begin(order.text)]
    assert begun, "there is a fault, however short the time"
    for at in begun:
        verb, _, about = orders[at].text.partition(":")
        where = ";".join(about.split(";")[: 2 if about.startswith("from=") else 1])
        assert any(later.text.startswith(f"{ENDS[verb]}:{where}") for later in orders[at + 1 :]), orders[at]


def is_begin(text: str) -> bool:
    return text.partition(":")[0] in ENDS and not text.endswith(";ms=0")


@given(seed=seeds)
def test_at_the_end_all_links_and_nodes_are_made_whole_whatever_happened(seed: int) -> None:
    orders = draw(seed, SITES, 60.0)
    last = [order.text for order in orders if order.at_s == 60.0]
    expected = {"heal"} | {f"{verb}:site={site}" for verb in ("start", "resume", "behave") for site in SITES}
    assert expected | {f"skew:site={site};ms=0" for site in SITES} <= set(last)
    assert not any(is_begin(text) for text in last)


@given(seed=seeds)
def test_one_site_at_most_loses_its_memory(seed: int) -> None:
    assert len({order.text for order in draw(seed, SITES, 300.0) if "memory=lost" in order.text}) <= 1


@given(seed=seeds)
def test_nodes_that_share_a_site_fail_alone_too_and_are_made_whole(seed: int) -> None:
    orders = [order.text for order in draw(seed, SITES, 300.0, ["ewr1", "ewr2"])]
    alone = [text for text in orders if "node=" in text]
    assert alone, "of 18 faults at least one is at a node"
    assert {text.partition("node=")[2].partition(";")[0] for text in alone} <= {"ewr1", "ewr2"}
    for at, text in enumerate(orders):
        verb, _, about = text.partition(":")
        if "node=" in text and is_begin(text):
            assert any(later.startswith(f"{ENDS[verb]}:{about.partition(';')[0]}") for later in orders[at + 1 :]), text
        assert "memory=lost" not in text or "site=" in text


@given(seed=seeds, duration_s=durations_s)
def test_a_schedule_as_it_is_printed_is_a_script(seed: int, duration_s: float) -> None:
    orders = draw(seed, SITES, duration_s)
    assert parse("\n".join(map(str, orders))) == orders


def test_a_script_may_have_comments_and_any_order_of_lines() -> None:
    script = "# first the site, then the rest\n\n 2.5 heal\n0 cut:site=jfk\n2.5 log \n"
    assert parse(script) == [Order(0.0, "cut:site=jfk"), Order(2.5, "heal"), Order(2.5, "log")]


@pytest.mark.parametrize("line", ["heal", "-1 heal", "nan heal", "inf heal", "1", "1 ", "one heal"])
def test_a_line_that_is_no_order_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 must be seconds from the start and an order"):
        parse(f"0 heal\n{line}")


@pytest.mark.parametrize(("sites", "duration_s"), [((), 1.0), (("a",), 1.0), (SITES, 0.0), (SITES, float("nan"))])
def test_nothing_can_be_drawn_of_too_little(sites: tuple[str, ...], duration_s: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        draw(0, sites, duration_s)
