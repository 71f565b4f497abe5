from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.nemesis import schedule

SITES = ("ewr", "jfk", "lga")
NUM_STEPS = 60
ENDS = {"kill": "start", "pause": "resume", "cut": "heal", "misbehave": "behave", "slow": "slow", "skew": "skew"}

seeds = st.integers(0, 2**32)


@given(seeds)
def test_the_same_seed_gives_the_same_faults(seed: int) -> None:
    assert schedule(seed, SITES, NUM_STEPS) == schedule(seed, SITES, NUM_STEPS)


@given(seeds)
def test_every_fault_ends_after_it_began_and_before_the_last_step(seed: int) -> None:
    orders = schedule(seed, SITES, NUM_STEPS)
    assert orders
    assert max(orders) < NUM_STEPS - 1
    said = [order for step in sorted(orders) for order in orders[step]]
    for at, order in enumerate(said):
        verb, _, about = order.partition(":")
        is_end = verb not in ENDS or about.endswith("ms=0") or (verb == "slow" and ";" not in about)
        if not is_end:
            where = ";".join(about.split(";")[: 2 if about.startswith("from=") else 1])
            assert any(later.startswith(f"{ENDS[verb]}:{where}") for later in said[at + 1 :]), order
