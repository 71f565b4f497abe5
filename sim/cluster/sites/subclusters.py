"""A sub-cluster at work: its nodes, who owns what, and the copies that a command on one of them reads and writes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Set
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from geotrain.wire.partitions import partition_of
from sim.cluster.execution.indexes import Definition, Entries
from sim.cluster.records import InOrder, Record, SetName, in_order
from sim.cluster.sites.clocks import skew_ms
from sim.cluster.sites.rebalance import Plan
from sim.cluster.sites.roster import Membership

if TYPE_CHECKING:
    from sim.cluster.node import Node


class Partition(dict[bytes, Record]):
    """A node's copy of the records of one set in one partition, by digest."""

    __slots__ = ("_in_order",)

    def __init__(self, records: Mapping[bytes, Record] = MappingProxyType({})) -> None:
        super().__init__(records)
        self._in_order: InOrder | None = None

    def in_order(self) -> InOrder:
        """The records as scans send them; found again only when some have changed."""
        if self._in_order is None:
            self._in_order = in_order(self.values())
        return self._in_order

    def changed(self) -> None:
        """Whoever changes a record says so."""
        self._in_order = None


EMPTY = Partition()
"""What a node has of a partition in which it has never had a record."""


class Counts(NamedTuple):
    """How much there is of a set."""

    num_records: int
    num_tombstones: int
    num_bytes: int


class RecordSet:
    """A set over the nodes of a sub-cluster. A partition without records takes no memory."""

    def __init__(self, name: SetName, view: SubCluster) -> None:
        self.name = name
        self._owners = view.owners
        self._copies: dict[int, tuple[Partition, ...]] = {}
        """The copies of the partitions that hold or have held something, the acting master's first."""
        self._num_tombstones: Counter[int] = Counter()
        self._num_bytes: Counter[int] = Counter()
        self._all: Counts | None = None
        """How much there is in all partitions, until something changes."""
        self._entries: dict[Definition, Entries] = {}
        for pid in {pid for node in view.members for pid in node.sets.get(name.name, ())}:
            if copies := self._copies_to_write(pid):
                _, self._num_tombstones[pid], self._num_bytes[pid] = counts_of(copies[0])

    @property
    def filled(self) -> Set[int]:
        """Partitions that hold or have held something: few of them, where a set is small."""
        return self._copies.keys()

    def records(self, pid: int) -> Mapping[bytes, Record]:
        """The acting master's copy of a partition; empty where nobody serves it."""
        copies = self._copies.get(pid)
        return copies[0] if copies else EMPTY

    def get(self, digest: bytes) -> Record | None:
        """A record as the acting master has it."""
        return self.records(partition_of(digest)).get(digest)

    def put(self, digest: bytes, record: Record | None) -> None:
        """Make this the next version of a record in every copy; None leaves nothing."""
        pid = partition_of(digest)
        self._all = None
        before = None
        copies = self._copies_to_write(pid)
        for copy in copies:
            if record is None:
                before = copy.pop(digest, None)
            else:
                before = copy.get(digest)
                copy[digest] = record
            copy.changed()
        for entries in self._entries.values():
            if before is not None:
                entries.remove(pid, before)
            if record is not None and copies:
                entries.add(pid, record)
        if before is not None:
            self._num_tombstones[pid] -= before.is_tombstone
            self._num_bytes[pid] -= len(before.row)
        if record is not None and copies:
            self._num_tombstones[pid] += record.is_tombstone
            self._num_bytes[pid] += len(record.row)

    def clear(self, pid: int) -> None:
        """Leave nothing of a partition."""
        for entries in self._entries.values():
            for record in self.records(pid).values():
                entries.remove(pid, record)
        for copy in self._copies.get(pid, ()):
            copy.clear()
            copy.changed()
        self._num_tombstones[pid] = self._num_bytes[pid] = 0
        self._all = None

    def counts(self, pids: Collection[int]) -> Counts:
        """How much some of the filled partitions hold, counted as they change: no records are walked through."""
        if len(pids) < len(self._copies):
            return self._count(pids)
        if self._all is None:  # which every planner of a join asks for
            self._all = self._count(pids)
        return self._all

    def _count(self, pids: Collection[int]) -> Counts:
        num_records = sum(len(self._copies[pid][0]) for pid in pids)
        num_tombstones = sum(map(self._num_tombstones.__getitem__, pids))
        num_bytes = sum(map(self._num_bytes.__getitem__, pids))
        return Counts(num_records - num_tombstones, num_tombstones, num_bytes)

    def entries(self, index: Definition) -> Entries:
        """How many entries an index has: counted when first asked for, and then as records change."""
        found = self._entries.get(index)
        if found is None:
            found = self._entries[index] = Entries(index)
            for pid in self.filled:
                for record in self.records(pid).values():
                    found.add(pid, record)
        return found

    def forget_entries(self, index: Definition) -> None:
        """Count no more for an index that is gone."""
        self._entries.pop(index, None)

    def _copies_to_write(self, pid: int) -> tuple[Partition, ...]:
        """The copies of a partition, made where there are none yet; none where nobody serves it."""
        copies = self._copies.get(pid)
        if copies is None:
            copies = tuple(
                node.sets.setdefault(self.name.name, {}).setdefault(pid, Partition()) for node in self._owners[pid]
            )
            if copies:
                self._copies[pid] = copies
        return copies


class SubCluster:
    """The nodes that hear each other, from one rebalance to the next."""

    def __init__(self, members: Iterable[Node], plan: Plan) -> None:
        self.members = tuple(members)
        self.formed_s = time.monotonic()
        self.regime = plan.regime
        self.membership = plan.membership
        by_id = {node.node_id: node for node in self.members}
        nodes_of = {names: tuple(by_id[name] for name in names) for names in set(plan.owners)}
        self.owners = [nodes_of[names] for names in plan.owners]
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
            found = self._sets[name.name] = RecordSet(name, self)
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
        return skew_ms(node.skew_ms for node in self.members)


NOWHERE = SubCluster((), Plan(0, Membership(0, {}), [], [], [], frozenset(), frozenset()))
"""Where a node is that has not joined a sub-cluster yet."""


def place(members: Iterable[Node], plan: Plan, set_name: bytes, truncated_before_ms: int, *, strong: bool) -> None:
    """Give the owners of every partition all of its newest records, and take them from everybody else.

    Under strong consistency the copy of the highest version has them all. Otherwise the copies are merged record by
    record: the higher generation wins, then the later write, as `conflict-resolution-policy generation` has it. What
    was truncated while a node was away is gone from its copy, too.
    """
    by_id = {node.node_id: node for node in members}
    for pid in {pid for node in by_id.values() for pid in node.sets.get(set_name, ())}:
        owners, sources = plan.owners[pid], plan.sources[pid]
        if not owners:
            continue
        copies = [by_id[name].copy(set_name, pid) for name in sources]
        newest: Mapping[bytes, Record]
        if strong:
            version = by_id[sources[0]].memory.versions[pid]
            stale = [name for name in owners if by_id[name].memory.versions[pid] != version]
            newest = copies[0]
        else:
            stale, newest = list(owners), merged(copies)
        if truncated_before_ms:
            kept = {digest: record for digest, record in newest.items() if record.last_update_ms >= truncated_before_ms}
            if len(kept) < len(newest):
                stale, newest = list(owners), kept
        for name in stale:
            by_id[name].sets.setdefault(set_name, {})[pid] = Partition(newest)
        for name in by_id.keys() - set(owners):
            by_id[name].sets.get(set_name, {}).pop(pid, None)


def counts_of(copy: Mapping[bytes, Record]) -> Counts:
    """How much a copy of a partition holds. Tombstones take no bytes."""
    sizes = [len(record.row) for record in copy.values()]
    num_tombstones = sizes.count(0)
    return Counts(len(sizes) - num_tombstones, num_tombstones, sum(sizes))


def merged(copies: Iterable[Mapping[bytes, Record]]) -> dict[bytes, Record]:
    """The newest version of each record."""
    newest: dict[bytes, Record] = {}
    for copy in copies:
        for digest, record in copy.items():
            present = newest.get(digest)
            if present is None or _age(present) < _age(record):
                newest[digest] = record
    return newest


def _age(record: Record) -> tuple[int, int]:
    return record.generation, record.last_update_ms
