"""Every loss of nodes in the layouts that are run, against the outcome that the documentation gives."""

from collections.abc import Collection
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.sites.availability import Rule, Status, rule, status
from sim.cluster.sites.partitions import partition_map

TWO_SITES = {"a1": 1, "b1": 2}
TWO_SITES_OF_TWO = {"a1": 1, "a2": 1, "b1": 2, "b2": 2}
THREE_SITES = {"a1": 1, "b1": 2, "c1": 3}
THREE_SITES_OF_TWO = {"a1": 1, "a2": 1, "b1": 2, "b2": 2, "c1": 3, "c2": 3}
TIE_BREAKER = {"a1": 1, "b1": 2, "t1": 3}
TIE_BREAKER_OF_TWO = {"a1": 1, "a2": 1, "b1": 2, "b2": 2, "t1": 3}

ALL, HALF, NONE = "all", "those mastered there", "none"

LAYOUTS: dict[str, tuple[dict[str, int], int, frozenset[str], dict[str, str]]] = {
    "two sites": (TWO_SITES, 2, frozenset(), {"": ALL, "a1": HALF, "b1": HALF, "a1 b1": NONE}),
    "three sites": (
        THREE_SITES,
        3,
        frozenset(),
        {"": ALL, "a1": ALL, "b1": ALL, "c1": ALL, "a1 b1": NONE, "a1 c1": NONE, "b1 c1": NONE, "a1 b1 c1": NONE},
    ),
    "two sites and a tie-breaker": (
        TIE_BREAKER,
        2,
        frozenset({"t1"}),
        {"": ALL, "a1": ALL, "b1": ALL, "t1": ALL, "a1 b1": NONE, "a1 t1": NONE, "b1 t1": NONE, "a1 b1 t1": NONE},
    ),
}
"""Racks by node, replication factor, quiesced nodes; and by the nodes lost the partitions that can be served."""


def served(racks: dict[str, int], num_copies: int, quiesced: Collection[str], lost: Collection[str]) -> Collection[int]:
    present = racks.keys() - set(lost)
    copies = partition_map(racks, num_copies, quiesced)
    return [pid for pid in range(4096) if rule(copies[pid], racks, present) is not Rule.NONE]


LOSSES = [
    pytest.param(layout, lost.split(), outcome, id=f"{layout}: {lost or 'nothing'} lost")
    for layout, (_, _, _, outcomes) in LAYOUTS.items()
    for lost, outcome in outcomes.items()
]


@pytest.mark.parametrize(("layout", "lost", "outcome"), LOSSES)
def test_every_loss_of_sites_has_the_documented_outcome(layout: str, lost: list[str], outcome: str) -> None:
    racks, num_copies, quiesced, _ = LAYOUTS[layout]
    masters = [owners[0] for owners in partition_map(racks, num_copies, quiesced)]
    expected = {
        ALL: range(4096),
        NONE: [],
        HALF: [pid for pid, master in enumerate(masters) if master not in lost],
    }[outcome]
    assert served(racks, num_copies, quiesced, lost) == list(expected)


def test_the_table_names_every_loss() -> None:
    for racks, _, _, outcomes in LAYOUTS.values():
        losses = {" ".join(lost) for size in range(len(racks) + 1) for lost in combinations(racks, size)}
        assert outcomes.keys() == losses


@pytest.mark.parametrize(
    ("racks", "num_copies", "quiesced", "lost", "outcome"),
    [
        pytest.param(TWO_SITES_OF_TWO, 2, (), ("a1",), ALL, id="a majority and a copy"),
        pytest.param(TWO_SITES_OF_TWO, 2, (), ("a1", "a2"), HALF, id="a site of two: half, and the master"),
        pytest.param(THREE_SITES_OF_TWO, 3, (), ("a1", "a2"), ALL, id="a site of three"),
        pytest.param(THREE_SITES_OF_TWO, 3, (), ("a1", "b1"), ALL, id="a node of each of two sites"),
        pytest.param(TIE_BREAKER_OF_TWO, 2, ("t1",), ("a1", "a2"), ALL, id="a site, with the tie-breaker"),
        pytest.param(TIE_BREAKER_OF_TWO, 2, ("t1",), ("a1", "a2", "t1"), NONE, id="a site and the tie-breaker"),
    ],
)
def test_a_loss_in_a_larger_layout_has_the_documented_outcome(
    racks: dict[str, int], num_copies: int, quiesced: tuple[str, ...], lost: tuple[str, ...], outcome: str
) -> None:
    masters = [owners[0] for owners in partition_map(racks, num_copies, quiesced)]
    expected = {ALL: range(4096), NONE: [], HALF: [pid for pid, master in enumerate(masters) if master not in lost]}
    assert served(racks, num_copies, quiesced, lost) == list(expected[outcome])


@pytest.mark.parametrize("lost", [lost for size in range(7) for lost in combinations(THREE_SITES_OF_TWO, size)])
def test_every_loss_of_six_nodes_is_as_a_b_and_c_say_in_their_own_words(lost: tuple[str, ...]) -> None:
    present = THREE_SITES_OF_TWO.keys() - set(lost)
    copies = partition_map(THREE_SITES_OF_TWO, 3)
    for pid in range(0, 4096, 64):
        master, *replicas = copies[pid]
        has_all = master in present and all(replica in present for replica in replicas)
        has_majority = len(present) >= 4 and (master in present or any(replica in present for replica in replicas))
        has_half = len(present) == 3 and master in present
        is_served = rule(copies[pid], THREE_SITES_OF_TWO, present) is not Rule.NONE
        assert is_served == (has_all or has_majority or has_half)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ("abcd", Rule.ALL_COPIES),
        ("ab", Rule.ALL_COPIES),
        ("acd", Rule.MAJORITY),
        ("bcd", Rule.MAJORITY),
        ("ac", Rule.HALF_AND_MASTER),
        ("bc", Rule.NONE),
        ("cd", Rule.NONE),
        ("a", Rule.NONE),
        ("", Rule.NONE),
    ],
)
def test_the_rule_says_why(present: str, expected: Rule) -> None:
    assert rule("ab", "abcd", present) is expected


@given(
    roster=st.sets(st.sampled_from("abcdefg"), min_size=1),
    side=st.sets(st.sampled_from("abcdefg")),
    num_copies=st.integers(1, 4),
    data=st.data(),
)
def test_no_two_sides_of_a_split_serve_one_partition(
    roster: set[str], side: set[str], num_copies: int, data: st.DataObject
) -> None:
    copies = data.draw(st.permutations(sorted(roster)))[:num_copies]
    sides = (roster & side, roster - side)
    assert sum(rule(copies, roster, present) is not Rule.NONE for present in sides) <= 1


def test_without_the_newest_version_a_partition_waits_and_with_the_whole_roster_it_is_dead() -> None:
    assert status("ab", "abc", "abc", is_newest_there=True) is Status.AVAILABLE
    assert status("ab", "abc", "bc", is_newest_there=False) is Status.UNAVAILABLE
    assert status("ab", "abc", "abc", is_newest_there=False) is Status.DEAD
    assert status("ab", "abc", "c", is_newest_there=True) is Status.UNAVAILABLE
