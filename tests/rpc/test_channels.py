"""How agents and followers dial again."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from geotrain.rpc.channels import LAST_RETRY_S, retry_delays_s


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=12, max_size=12))
def test_waits_between_tries_are_bounded_and_jittered(draws):
    drawn = iter(draws)
    delays = list(islice(retry_delays_s(lambda: next(drawn)), 12))
    assert all(0 <= delay_s <= LAST_RETRY_S for delay_s in delays)


def test_waits_grow_until_the_bound():
    longest = list(islice(retry_delays_s(lambda: 1.0), 12))
    assert longest == sorted(longest)
    assert longest[-1] == LAST_RETRY_S
