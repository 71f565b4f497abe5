import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from site_agent.join.matching import NOWHERE, find

int64s = st.integers(-(2**63), 2**63 - 1)
# Few different ones, so that hits and repetitions come up often, among them such as differ in their highest bits only.
numbers = st.lists(int64s | st.sampled_from([0, -1, 1, 1 << 62, 1 << 61, 3 << 61]), max_size=40)


@given(numbers, numbers)
@settings(deadline=None)
def test_each_number_is_found_where_it_lies_or_nowhere(keys: list[int], wanted: list[int]) -> None:
    places, is_unique = find(np.array(keys, np.int64), np.array(wanted, np.int64))
    assert is_unique == (len(set(keys)) == len(keys))
    for number, place in zip(wanted, places.tolist(), strict=True):
        assert keys[place] == number if place != NOWHERE else number not in keys


def test_numbers_that_share_their_lowest_bits_are_found_too() -> None:
    keys = np.arange(10_000) << 40
    places, is_unique = find(keys, keys[::-1])
    assert is_unique
    assert places.tolist() == list(range(9_999, -1, -1))
