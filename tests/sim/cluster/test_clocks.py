import pytest

from sim.cluster.sites.clocks import skew_ms, stops_writes


@pytest.mark.parametrize(
    ("ahead_ms", "expected"), [([], 0), ([7], 0), ([0, 0], 0), ([-10_000, 3, 10_001], 20_001), ([30_000, 30_000], 0)]
)
def test_the_skew_is_between_the_clocks_farthest_apart(ahead_ms: list[int], expected: int) -> None:
    assert skew_ms(ahead_ms) == expected


def test_writes_stop_beyond_twenty_seconds_and_only_under_strong_consistency() -> None:
    assert not stops_writes(20_000, is_strong=True)
    assert stops_writes(20_001, is_strong=True)
    assert not stops_writes(20_001, is_strong=False)
