"""A sub-cluster at work: its nodes, who owns what, and the copies that a command on one of them reads and writes."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from geotrain.wire.partitions import partition_of
from sim.cluster.records import Record, SetName
from sim.cluster.sites.rebalance import Plan
from sim.cluster.sites.roster import Membership

if TYPE_CHECKING:
    from sim.cluster.cluster import Node

Partition = dict[bytes, Record]
"""A node's copy of the records of one set in one partition, by digest."""

MAX_CLOCK_SKEW_MS = 20_000
"""Beyond it, strongly consistent namespaces take no writes."""


class Counts(NamedTuple):
    """How much there is of a set."""

    num_records: int
    num_tombstones: int
    num_bytes: int


class RecordSet:
    """A set over the nodes of a sub-cluster."""

    def __init__(self, name: SetName, copies: list[tuple[Partition, ...]]) -> None:
        self.name = name
        self.copies = copies
        """By partition the copies on the nodes that hold it, the acting master's first; none where unavailable."""
        counts = [counts_of(held[0] if held else {}) for held in copies]
        self._num_tombstones = [each.num_tombstones for each in counts]
        self._num_bytes = [each.num_bytes for each in counts]
        self.filled = {pid for pid, held in enumerate(copies) if held and held[0]}
        """Partitions that hold or have held something: few of them, where a set is small."""

    def put(self, digest: bytes, record: Record | None) -> None:
        """Make this the next version of a record in every copy; None leaves nothing."""
        pid = partition_of(digest)
        before = None
        for copy in self.copies[pid]:
            if record is None:
                before = copy.pop(digest, None)
            else:
                before = copy.get(digest)
                copy[digest] = record
        if before is not None:
            self._num_tombstones[pid] -= before.is_tombstone
            self._num_bytes[pid] -= len(before.row)
        if record is not None and self.copies[pid]:
            self.filled.add(pid)
            self._num_tombstones[pid] += record.is_tombstone
            self._num_bytes[pid] += len(record.row)

    def clear(self, pid: int) -> None:
        """Leave nothing of a partition."""
        for copy in self.copies[pid]:
            copy.clear()
        self._num_tombstones[pid] = self._num_bytes[pid] = 0
        self.filled.discard(pid)

    def counts(self, pid: int) -> Counts:
        """How much a partition holds, counted as it changes: nothing is walked through."""
        num_tombstones = self._num_tombstones[pid]
        num_all = len(self.copies[pid][0]) if self.copies[pid] else 0
        return Counts(num_all - num_tombstones, num_tombstones, self._num_bytes[pid])


class SubCluster:
    """The nodes that hear each other, from one rebalance to the next."""

    def __init__(self, members: Iterable[Node], plan: Plan) -> None:
        self.members = tuple(members)
        self.regime = plan.regime
        self.membership = plan.membership
        by_id = {node.node_id: node for node in self.members}
        self.owners = [tuple(by_id[name] for name in names) for names in plan.owners]
        """By partition the nodes that hold it, the acting master first; nobody where it can't be served."""
        self.unavailable = plan.unavailable
        """Partitions that can't be served, the dead ones among them."""
        self.dead = plan.dead
        self.stops_writes = False
        """Whether the clocks of the nodes are too far apart for strongly consistent writes."""
        self._sets: dict[bytes, RecordSet] = {}

    def record_set(self, name: SetName) -> RecordSet:
        """A set as it is on these nodes."""
        found = self._sets.get(name.name)
        if found is None:
            copies = [tuple(node.sets[name.name][pid] for node in owners) for pid, owners in enumerate(self.owners)]
            found = self._sets[name.name] = RecordSet(name, copies)
        return found

    @property
    def principal(self) -> str:
        """The id of the node that leads the others."""
        return max(node.node_id for node in self.members)

    @property
    def cluster_key(self) -> str:
        """A token that all nodes of this composition agree on."""
        members = ",".join([str(self.regime), *sorted(node.node_id for node in self.members)])
        return blake2b(members.encode(), digest_size=6).hexdigest().upper()

    @property
    def clock_skew_ms(self) -> int:
        """How far the clocks of the nodes are apart."""
        skews = [node.skew_ms for node in self.members]
        return max(skews) - min(skews) if skews else 0


NOWHERE = SubCluster((), Plan(0, Membership(0, {}), [], [], [], frozenset(), frozenset()))
"""Where a node is that has not joined a sub-cluster yet."""


def place(members: Iterable[Node], plan: Plan, set_name: bytes, *, strong: bool) -> None:
    """Give the owners of every partition all of its newest records, and take them from everybody else.

    Under strong consistency the copy of the highest version has them all. Otherwise the copies are merged record by
    record: the higher generation wins, then the later write, as `conflict-resolution-policy generation` has it.
    """
    by_id = {node.node_id: node for node in members}
    for pid, (owners, sources) in enumerate(zip(plan.owners, plan.sources, strict=True)):
        if not owners:
            continue
        copies = [by_id[name].sets[set_name][pid] for name in sources]
        if strong:
            version = by_id[sources[0]].memory.versions[pid]
            stale = [name for name in owners if by_id[name].memory.versions[pid] != version]
            newest = copies[0]
        else:
            stale, newest = list(owners), merged(copies)
        for name in stale:
            by_id[name].sets[set_name][pid] = dict(newest)
        for name in by_id.keys() - set(owners):
            by_id[name].sets[set_name][pid] = {}


def counts_of(copy: Partition) -> Counts:
    """How much a copy of a partition holds. Tombstones take no bytes."""
    sizes = [len(record.row) for record in copy.values()]
    num_tombstones = sizes.count(0)
    return Counts(len(sizes) - num_tombstones, num_tombstones, sum(sizes))


def merged(copies: Iterable[Partition]) -> Partition:
    """The newest version of each record."""
    newest: Partition = {}
    for copy in copies:
        for digest, record in copy.items():
            present = newest.get(digest)
            if present is None or _age(present) < _age(record):
                newest[digest] = record
    return newest


def _age(record: Record) -> tuple[int, int]:
    return record.generation, record.last_update_ms
