import itertools

import pytest

from sim.cluster.sites.read_modes import ReadMode, Source, read_mode, source

OWN, MASTER, CONFIRMED, NOWHERE = Source.OWN_COPY, Source.MASTER, Source.CONFIRMED_MASTER, Source.NOWHERE

SERVED = {
    ReadMode.SESSION: (MASTER, MASTER),
    ReadMode.LINEARIZE: (CONFIRMED, CONFIRMED),
    ReadMode.ALLOW_REPLICA: (OWN, MASTER),
    ReadMode.ALLOW_UNAVAILABLE: (OWN, MASTER),
}
UNAVAILABLE = {
    ReadMode.SESSION: (NOWHERE, NOWHERE),
    ReadMode.LINEARIZE: (NOWHERE, NOWHERE),
    ReadMode.ALLOW_REPLICA: (NOWHERE, NOWHERE),
    ReadMode.ALLOW_UNAVAILABLE: (OWN, NOWHERE),
}
"""By mode: what answers on a node that holds a copy, and on one that holds none."""


@pytest.mark.parametrize("mode", ReadMode)
@pytest.mark.parametrize("is_served", [True, False])
@pytest.mark.parametrize("has_copy", [True, False])
def test_every_mode_reads_what_is_documented(mode: ReadMode, is_served: bool, has_copy: bool) -> None:
    expected = (SERVED if is_served else UNAVAILABLE)[mode][0 if has_copy else 1]
    assert source(mode, is_strong=True, is_served=is_served, has_copy=has_copy) is expected


def test_without_strong_consistency_any_copy_does() -> None:
    for mode, has_copy in itertools.product(ReadMode, (True, False)):
        found = source(mode, is_strong=False, is_served=True, has_copy=has_copy)
        assert found is (OWN if has_copy else MASTER)


def test_two_bits_of_the_flags_say_the_mode_and_the_others_nothing() -> None:
    modes = {0x00: ReadMode.SESSION, 0x40: ReadMode.LINEARIZE, 0x80: ReadMode.ALLOW_REPLICA}
    modes[0xC0] = ReadMode.ALLOW_UNAVAILABLE
    assert {bits | other: read_mode(bits | other) for bits in modes for other in range(0x40)} == {
        bits | other: mode for bits, mode in modes.items() for other in range(0x40)
    }
