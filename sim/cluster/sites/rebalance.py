"""What a sub-cluster comes to when it forms: regime, owners, what it may serve, and whose copies count. Pure.

Migrations take no time here: the owners hold all data of the newest version as soon as the sub-cluster has formed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from geotrain.wire.partitions import NUM_PARTITIONS
from sim.cluster.sites.availability import Status, status
from sim.cluster.sites.partitions import partition_map
from sim.cluster.sites.roster import Membership


@dataclass(slots=True)
class Memory:
    """What a node brings into a sub-cluster.

    regime: of its last sub-cluster.
    versions: by partition the regime in which its own copy was last up to date; 0: it holds none.
    newest: by partition the newest version that it has heard of, whoever holds it.
    is_revived: whether an operator told it to take dead partitions for what they are.
    """

    membership: Membership
    regime: int = 0
    versions: list[int] = field(default_factory=lambda: [0] * NUM_PARTITIONS)
    newest: list[int] = field(default_factory=lambda: [0] * NUM_PARTITIONS)
    is_revived: bool = False


class Plan(NamedTuple):
    """What a sub-cluster comes to. Owners and sources are node ids, by partition."""

    regime: int
    membership: Membership
    owners: list[tuple[str, ...]]
    """Who holds the partition now, the acting master first; nobody where it can't be served."""
    sources: list[tuple[str, ...]]
    """Whose copies the owners' are made of."""
    newest: list[int]
    """By partition the newest version that the members know of, once the plan is carried out."""
    unavailable: frozenset[int]
    dead: frozenset[int]


def next_regime(memories: Mapping[str, Memory]) -> int:
    """Every sub-cluster has a higher regime than all that its nodes were in before."""
    return max(memory.regime for memory in memories.values()) + 1


def plan_strong(memories: Mapping[str, Memory], replication_factor: int) -> Plan:
    """The plan under strong consistency. memories: of the nodes that are present, by node id."""
    membership = max((memory.membership for memory in memories.values()), key=lambda found: found.version)
    roster = membership.roster
    names = list(memories)
    acting = {name: rack for name, rack in roster.items() if name in memories}
    revives = any(memory.is_revived for memory in memories.values())
    rules = replication_factor, membership.quiesced, membership.active_rack
    copies = partition_map(roster, *rules)
    candidates = partition_map(acting, *rules) if acting else [()] * NUM_PARTITIONS
    regime = next_regime(memories)
    owners: list[tuple[str, ...]] = []
    sources: list[tuple[str, ...]] = []
    known: list[int] = []
    unavailable, dead = set(), set()
    versions = zip(*(memory.versions for memory in memories.values()), strict=True)
    newest = map(max, zip(*(memory.newest for memory in memories.values()), strict=True))

    @cache  # most partitions are alike
    def status_of(wanted: tuple[str, ...], newest: int, held: int) -> Status:
        found = status(wanted, roster, memories, is_newest_there=0 < held == newest)
        return Status.AVAILABLE if found is Status.DEAD and revives else found

    for pid, (wanted, versions_here, newest_here) in enumerate(zip(copies, versions, newest, strict=True)):
        held = max(versions_here)
        found = status_of(wanted, newest_here, held)
        is_served = found is Status.AVAILABLE
        owners.append(candidates[pid] if is_served else ())
        sources.append((names[versions_here.index(held)],) if is_served else ())
        known.append(regime if is_served else newest_here)
        if not is_served:
            unavailable.add(pid)
        if found is Status.DEAD:
            dead.add(pid)
    return Plan(regime, membership, owners, sources, known, frozenset(unavailable), frozenset(dead))


def plan_available(memories: Mapping[str, Memory], racks: Mapping[str, int], replication_factor: int) -> Plan:
    """The plan without strong consistency: every sub-cluster serves everything, from all copies that it has."""
    membership = max((memory.membership for memory in memories.values()), key=lambda found: found.version)
    present = {name: racks[name] for name in memories}
    owners = partition_map(present, replication_factor, membership.quiesced, membership.active_rack)
    sources = [
        tuple(name for name, memory in memories.items() if memory.versions[pid]) for pid in range(NUM_PARTITIONS)
    ]
    regime = next_regime(memories)
    return Plan(regime, membership, owners, sources, [regime] * NUM_PARTITIONS, frozenset(), frozenset())


def remember(memory: Memory, name: str, plan: Plan) -> None:
    """Bring a member's memory up to date once the copies are in place."""
    memory.regime, memory.membership, memory.is_revived = plan.regime, plan.membership, False
    memory.newest = list(plan.newest)
    memory.versions = [
        (plan.regime if name in owners else 0) if owners else version
        for owners, version in zip(plan.owners, memory.versions, strict=True)
    ]
