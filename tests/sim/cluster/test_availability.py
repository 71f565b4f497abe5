"""Every loss of nodes in the layouts that are run, against the outcome that the documentation gives."""

from collections.abc import Collection
from itertools import combinations
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.sites.availability import Rule, Status, rule, status
from sim.cluster.sites.partitions import partition_map
from sim.cluster.sites.rebalance import Memory, plan_strong
from sim.cluster.sites.roster import Membership

ALL, HALF, NONE = "all", "those mastered there", "none"


class Layout(NamedTuple):
    """racks: by node. quiesced: nodes that only count. known: by the nodes lost, what is documented."""

    racks: dict[str, int]
    num_copies: int
    quiesced: tuple[str, ...]
    known: dict[str, str]


LAYOUTS = {
    "two sites": Layout({"a1": 1, "b1": 2}, 2, (), {"": ALL, "a1": HALF, "b1": HALF, "a1 b1": NONE}),
    "two sites of two nodes": Layout(
        {"a1": 1, "a2": 1, "b1": 2, "b2": 2},
        2,
        (),
        {"a1": ALL, "b2": ALL, "a1 a2": HALF, "b1 b2": HALF, "a1 a2 b1": NONE},
    ),
    "three sites": Layout(
        {"a1": 1, "b1": 2, "c1": 3},
        3,
        (),
        {"": ALL, "a1": ALL, "b1": ALL, "c1": ALL, "a1 b1": NONE, "a1 c1": NONE, "b1 c1": NONE, "a1 b1 c1": NONE},
    ),
    "three sites of two nodes": Layout(
        {"a1": 1, "a2": 1, "b1": 2, "b2": 2, "c1": 3, "c2": 3},
        3,
        (),
        {"a1 a2": ALL, "b1 b2": ALL, "c1 c2": ALL, "a1 b1": ALL, "a1 a2 b1 b2": NONE},
    ),
    "two sites and a tie-breaker": Layout(
        {"a1": 1, "b1": 2, "t1": 3},
        2,
        ("t1",),
        {"": ALL, "a1": ALL, "b1": ALL, "t1": ALL, "a1 b1": NONE, "a1 t1": NONE, "b1 t1": NONE, "a1 b1 t1": NONE},
    ),
    "two sites of two nodes and a tie-breaker": Layout(
        {"a1": 1, "a2": 1, "b1": 2, "b2": 2, "t1": 3},
        2,
        ("t1",),
        {"t1": ALL, "a1 a2": ALL, "b1 b2": ALL, "a1 b1": "where a copy is", "a1 a2 t1": NONE, "b1 b2 t1": NONE},
    ),
}


def served(layout: Layout, lost: Collection[str]) -> list[int]:
    """The partitions that are served by the sub-cluster of the nodes that are left."""
    membership = Membership(1, layout.racks, quiesced=frozenset(layout.quiesced))
    copies = partition_map(layout.racks, layout.num_copies, layout.quiesced)
    left = {
        node: Memory(membership, versions=[int(node in owners) for owners in copies], newest=[1] * len(copies))
        for node in layout.racks
        if node not in lost
    }
    return sorted(set(range(4096)) - plan_strong(left, layout.num_copies).unavailable) if left else []


def served_by_the_rules(layout: Layout, lost: Collection[str]) -> list[int]:
    """The same in the words of the documentation: the master and all replicas; or a majority; or a half."""
    present = [node for node in layout.racks if node not in lost]
    found = []
    for pid, (master, *replicas) in enumerate(partition_map(layout.racks, layout.num_copies, layout.quiesced)):
        has_all = master in present and all(replica in present for replica in replicas)
        has_copy = master in present or any(replica in present for replica in replicas)
        has_majority = len(present) > len(layout.racks) / 2 and has_copy
        has_half = len(present) == len(layout.racks) / 2 and master in present
        if has_all or has_majority or has_half:
            found.append(pid)
    return found


@pytest.mark.parametrize(
    ("layout", "lost"),
    [
        pytest.param(layout, lost, id=f"{name}: {' '.join(lost) or 'nothing'} lost")
        for name, layout in LAYOUTS.items()
        for size in range(len(layout.racks) + 1)
        for lost in combinations(layout.racks, size)
    ],
)
def test_every_loss_of_nodes_has_the_outcome_of_rules_a_b_and_c(layout: Layout, lost: tuple[str, ...]) -> None:
    assert served(layout, lost) == served_by_the_rules(layout, lost)


@pytest.mark.parametrize(
    ("layout", "lost", "outcome"),
    [
        pytest.param(layout, lost.split(), outcome, id=f"{name}: {lost or 'nothing'} lost")
        for name, layout in LAYOUTS.items()
        for lost, outcome in layout.known.items()
    ],
)
def test_a_well_known_loss_has_the_outcome_that_is_documented(layout: Layout, lost: list[str], outcome: str) -> None:
    copies = partition_map(layout.racks, layout.num_copies, layout.quiesced)
    expected = {
        ALL: range(4096),
        NONE: [],
        HALF: [pid for pid, owners in enumerate(copies) if owners[0] not in lost],
        "where a copy is": [pid for pid, owners in enumerate(copies) if not set(owners) <= set(lost)],
    }[outcome]
    assert served(layout, lost) == list(expected)


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
