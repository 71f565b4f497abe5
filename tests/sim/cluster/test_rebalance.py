from collections.abc import Collection
from itertools import pairwise

import pytest

from sim.cluster.sites.rebalance import Memory, Plan, next_regime, plan_available, plan_strong, remember
from sim.cluster.sites.roster import Membership

RACKS = {"a": 1, "b": 2, "c": 3}


class Nodes:
    """What some nodes remember while sub-clusters come and go."""

    def __init__(self, num_copies: int, racks: dict[str, int] = RACKS) -> None:
        self.num_copies = num_copies
        self.memories = {name: Memory(Membership(1, racks), versions=[1] * 4096, newest=[1] * 4096) for name in racks}

    def meet(self, names: Collection[str]) -> Plan:
        """Form a sub-cluster."""
        memories = {name: self.memories[name] for name in names}
        plan = plan_strong(memories, self.num_copies)
        for name, memory in memories.items():
            remember(memory, name, plan)
        return plan

    def lose(self, name: str) -> None:
        """Lose a node's copies."""
        self.memories[name].versions = [0] * 4096


def served(plan: Plan) -> set[int]:
    return set(range(4096)) - plan.unavailable


def test_every_sub_cluster_has_a_higher_regime_than_its_nodes_ever_had() -> None:
    nodes = Nodes(2)
    regimes = [nodes.meet(names).regime for names in ("abc", "ab", "c", "abc", "bc", "a", "abc")]
    assert regimes == [1, 2, 2, 3, 4, 4, 5]
    assert next_regime({"a": Memory(Membership(1, RACKS), 7), "b": Memory(Membership(1, RACKS), 3)}) == 8


def test_a_partition_that_is_served_is_owned_by_the_first_nodes_present_of_its_succession() -> None:
    nodes = Nodes(2)
    whole, without_a = nodes.meet("abc"), nodes.meet("bc")
    for before, after in zip(whole.owners, without_a.owners, strict=True):
        assert set(after) == {"b", "c"}
        assert before[0] == "a" or after[0] == before[0]


def test_owners_that_come_anew_take_the_newest_copy() -> None:
    nodes = Nodes(2)
    nodes.meet("abc")
    nodes.meet("ab")
    plan = nodes.meet("abc")
    for owners, sources in zip(plan.owners, plan.sources, strict=True):
        assert "c" not in sources
        assert len(owners) == 2


def test_a_stale_copy_is_not_served_though_the_rules_would_have_it() -> None:
    nodes = Nodes(2, {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5})
    whole = nodes.meet("abcde")
    pids = [pid for pid, owners in enumerate(whole.owners) if owners == ("a", "b")]
    nodes.meet("acd")  # a majority with the master: it takes writes, and b does not hear of them
    owners = nodes.meet("acd").owners
    pid = next(pid for pid in pids if "d" not in owners[pid])
    plan = nodes.meet("bde")
    assert pid in plan.unavailable
    assert pid not in plan.dead
    assert pid in served(nodes.meet("abde"))


def test_a_node_that_lost_its_memory_is_filled_by_the_others() -> None:
    nodes = Nodes(3)
    nodes.meet("abc")
    nodes.lose("a")
    assert not nodes.meet("ab").unavailable
    assert not nodes.meet("ac").unavailable


def test_what_all_holders_have_lost_is_dead_until_it_is_revived() -> None:
    nodes = Nodes(2)
    whole = nodes.meet("abc")
    lost = {pid for pid, owners in enumerate(whole.owners) if set(owners) == {"a", "b"}}
    nodes.lose("a")
    nodes.lose("b")
    assert nodes.meet("ab").dead == frozenset()
    plan = nodes.meet("abc")
    assert plan.dead == plan.unavailable == lost
    nodes.memories["c"].is_revived = True
    assert not nodes.meet("abc").unavailable
    assert not nodes.meet("ab").unavailable


def test_two_lost_sites_that_come_back_without_the_third_wait_for_its_copy() -> None:
    nodes = Nodes(3)
    nodes.meet("abc")
    nodes.lose("a")
    nodes.lose("b")
    plan = nodes.meet("ab")
    assert len(plan.unavailable) == 4096
    assert not plan.dead


def test_a_quiesced_node_counts_and_holds_nothing() -> None:
    nodes = Nodes(2)
    for memory in nodes.memories.values():
        memory.membership = Membership(1, RACKS, quiesced=frozenset("c"))
    assert all(set(owners) == {"a", "b"} for owners in nodes.meet("abc").owners)
    assert all(owners == ("a",) for owners in nodes.meet("ac").owners)
    assert len(nodes.meet("a").unavailable) == 4096


def test_the_active_rack_has_all_masters() -> None:
    nodes = Nodes(3)
    for memory in nodes.memories.values():
        memory.membership = Membership(1, RACKS, active_rack=2)
    assert {owners[0] for owners in nodes.meet("abc").owners} == {"b"}
    assert {owners[0] for owners in nodes.meet("ac").owners} == {"a", "c"}


def test_the_newer_roster_wins_where_sub_clusters_meet() -> None:
    nodes = Nodes(1)
    nodes.meet("abc")
    nodes.memories["a"].membership = Membership(2, {"a": 1, "b": 2})
    plan = nodes.meet("abc")
    assert plan.membership.roster == {"a": 1, "b": 2}
    assert {name for owners in plan.owners for name in owners} == {"a", "b"}


@pytest.mark.parametrize("names", ["abc", "ab", "c"])
def test_without_strong_consistency_every_sub_cluster_serves_everything(names: str) -> None:
    memories = {name: Memory(Membership(1, RACKS), versions=[1] * 4096) for name in names}
    plan = plan_available(memories, RACKS, 2)
    assert not plan.unavailable
    assert all(len(owners) == min(2, len(names)) for owners in plan.owners)


def test_regimes_never_fall_for_a_partition_that_is_served() -> None:
    nodes = Nodes(3)
    history = ["abc", "ab", "c", "ac", "b", "abc", "bc", "abc"]
    for pid in (0, 1, 4095):
        seen = [plan.regime for plan in map(nodes.meet, history) if pid not in plan.unavailable]
        assert all(earlier < later for earlier, later in pairwise(seen))
