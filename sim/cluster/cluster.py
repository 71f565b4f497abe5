"""The state of the simulated cluster: its nodes, who holds which partition, and each node's own copies of records."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from hashlib import blake2b
from typing import Protocol

from geotrain.wire.codes import ResultCode
from geotrain.wire.partitions import NUM_PARTITIONS, partition_of
from sim.cluster.config import ClusterConfig, NodeConfig
from sim.cluster.execution.indexes import Definition
from sim.cluster.execution.jobs import Jobs
from sim.cluster.execution.transactions import MONITORS, Transactions
from sim.cluster.journal import Journal
from sim.cluster.records import Record, SetName, check_set_name, is_expired, set_name_of
from sim.cluster.security import Security
from sim.cluster.sites.misbehaviour import Misbehaviours
from sim.cluster.sites.rebalance import Memory, plan_available, plan_strong, remember
from sim.cluster.sites.roster import Membership
from sim.cluster.sites.subclusters import (
    MAX_CLOCK_SKEW_MS,
    NOWHERE,
    Counts,
    Partition,
    RecordSet,
    SubCluster,
    counts_of,
    place,
)
from sim.cluster.sites.topology import sub_clusters
from sim.cluster.values.refused import Refused
from sim.wan.model import Network

MAX_SETS = 4095  # as in a real namespace


class State(StrEnum):
    """What has become of a node."""

    UP = "up"
    PAUSED = "paused"
    DOWN = "down"


class Breakable(Protocol):
    """A client's connection, as a fault sees it."""

    def abort(self) -> None:
        """Break the connection."""

    def go_on(self) -> None:
        """Answer what has waited while the node was paused."""


class Node:
    """One node: where it is, and what it holds."""

    def __init__(self, name: str, host: str, config: NodeConfig) -> None:
        self.name = name
        self.node_id = blake2b(name.encode(), digest_size=8).hexdigest().upper()
        self.rack = config.rack
        self.host = host
        self.port = config.port
        """The configured port, or the one that the node was given where that is 0."""
        self.site = config.site or name
        self.state = State.UP
        self.skew_ms = 0
        """How far the node's clock is ahead."""
        self.generation = 0
        """Of peers, partitions and racks alike: grows with every change of the sub-cluster."""
        self.memory = Memory(Membership(0, {}))
        self.view = NOWHERE
        """The sub-cluster that the node is in."""
        self.owned: list[list[int]] = []
        """The partitions of which this node holds copy 0 (as master), copy 1, ..., and that can be served."""
        self.held: frozenset[int] = frozenset()
        """All partitions of which this node holds a copy that can be served."""
        self.sets: dict[bytes, dict[int, Partition]] = {}
        self.counters: Counter[tuple[str, str, int]] = Counter()
        """Commands done, by (who sent them, what they do, result code)."""
        self.jobs = Jobs()
        """The queries that run on this node, and the last ones that have."""
        self.connections: set[Breakable] = set()
        self.addresses = {"": (host, config.port)}
        """Where clients of a site reach this node; under no name, clients that stand nowhere."""
        self.misbehaviours: Misbehaviours = deque()
        self.pending = self.memory.membership
        """What the roster will be after the next recluster."""
        self.is_quiescing = config.quiesced
        self.is_alone = True
        """Whether the node has been away, so that it has to join the others again."""

    def now_ms(self) -> int:
        """The node's clock, in milliseconds since 1970."""
        return time.time_ns() // 1_000_000 + self.skew_ms


class Cluster:
    """All nodes of the simulated cluster and the one namespace that they serve."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.namespace = config.namespace.encode()
        self.nodes = [Node(name, config.host, node) for name, node in config.nodes.items()]
        self.network = Network(config.links.values(), config.seed)
        self.sets: dict[bytes, SetName] = {}
        self.transactions = Transactions()
        self.security = Security(config.users)
        self.indexes: dict[str, Definition] = {}
        """The secondary indexes, by their names."""
        self.started_s = time.monotonic()
        self.control_address = ""
        """Where faults are ordered."""
        self.journal: Journal | None = None
        """Where changes of records are written down before they are made, or nowhere."""
        roster = {node.node_id: node.rack for node in self.nodes}
        quiesced = frozenset(node.node_id for node in self.nodes if config.nodes[node.name].quiesced)
        for node in self.nodes:
            node.pending = Membership(1, roster, config.active_rack, quiesced)
            node.memory = Memory(node.pending)
            node.memory.versions = [1] * NUM_PARTITIONS
            node.memory.newest = [1] * NUM_PARTITIONS
        self.rebalance()

    @property
    def is_enterprise(self) -> bool:
        """Whether the cluster answers as the Enterprise Edition does."""
        return self.config.edition == "enterprise"

    def rebalance(self) -> None:
        """Form the sub-clusters anew after nodes or links have changed; those that stay as they are go on."""
        up = {node.node_id: node for node in self.nodes if node.state is State.UP}
        for group in sub_clusters(up, lambda a, b: self.network.is_up(up[a].site, up[b].site)):
            members = tuple(up[name] for name in group)
            if any(node.is_alone or node.view.members != members for node in members):
                self.form(members)

    def form(self, members: tuple[Node, ...]) -> None:
        """Make a sub-cluster of these nodes."""
        memories = {node.node_id: node.memory for node in members}
        num_copies, strong = self.config.replication_factor, self.config.strong_consistency
        if strong:
            plan = plan_strong(memories, num_copies)
        else:
            plan = plan_available(memories, {node.node_id: node.rack for node in members}, num_copies)
        for name in self.sets:
            place(members, plan, name, strong=strong)
        view = SubCluster(members, plan)
        self.check_clocks(view)
        pending = max((node.pending for node in members), key=lambda found: found.version)
        for node in members:
            node.pending = pending
            remember(node.memory, node.node_id, plan)
            node.view, node.is_alone = view, False
            node.generation += 1
            node.owned = [
                [pid for pid, owners in enumerate(view.owners) if copy < len(owners) and owners[copy] is node]
                for copy in range(num_copies)
            ]
            node.held = frozenset(pid for column in node.owned for pid in column)

    def recluster(self, members: tuple[Node, ...]) -> None:
        """Let a sub-cluster's pending roster, and all quiescing, take effect."""
        before = members[0].view.membership
        away = before.quiesced - {node.node_id for node in members}
        quiesced = away | {node.node_id for node in members if node.is_quiescing}
        pending = members[0].pending
        for node in members:
            node.memory.membership = Membership(before.version + 1, pending.roster, pending.active_rack, quiesced)
        self.form(members)

    def check_clocks(self, view: SubCluster) -> None:
        """Stop writes where the clocks are too far apart for strong consistency, or take them again."""
        view.stops_writes = self.config.strong_consistency and view.clock_skew_ms > MAX_CLOCK_SKEW_MS

    @property
    def sites(self) -> set[str]:
        """Where nodes and clients stand."""
        return {*(node.site for node in self.nodes), *self.config.client_sites}

    def record_set(self, node: Node, name: bytes) -> RecordSet:
        """The set `name` as the node's sub-cluster has it, made on its first use. Raises Refused for a bad name."""
        known = self.sets.get(name)
        if known is None:
            check_set_name(name)
            if len(self.sets) >= MAX_SETS:
                raise Refused(ResultCode.FORBIDDEN)
            known = self.sets[name] = set_name_of(self.config.namespace, name)
            for each in self.nodes:
                each.sets[name] = {pid: {} for pid in range(NUM_PARTITIONS)}
        return node.view.record_set(known)

    def find(self, node: Node, set_name: bytes, digest: bytes, *, relaxed: bool = True) -> Record | None:
        """A record as `node` reads it.

        relaxed: from the node's own copy where it holds one; otherwise, and else, from the acting master's.
        """
        if set_name not in self.sets:
            return None
        pid = partition_of(digest)
        if relaxed and (pid in node.held or pid in node.view.unavailable):
            return node.sets[set_name][pid].get(digest)
        return self.record_set(node, set_name).copies[pid][0].get(digest)

    def set_with(self, node: Node, digest: bytes) -> bytes:
        """The set that a record is in whose request names none: a digest says it all. None has it: no set."""
        pid = partition_of(digest)
        for name in (b"", *self.sets):
            if name in self.sets and name != MONITORS:
                copy = next(iter(self.record_set(node, name).copies[pid]), node.sets[name][pid])
                if digest in copy or self.transactions.holder((name, digest)):
                    return name
        return b""

    def count(self, node: Node, name: bytes, pids: Iterable[int] | None = None) -> Counts:
        """How much a node holds of a set that there is, or of some of the set's partitions that it serves."""
        owner = self.record_set(node, name)
        counts = [owner.counts(pid) for pid in owner.filled & (node.held if pids is None else frozenset(pids))]
        if pids is None:
            counts += [counts_of(node.sets[name][pid]) for pid in node.view.unavailable]
        return Counts(*map(sum, zip(Counts(0, 0, 0), *counts, strict=True)))

    def put(self, owner: RecordSet, digest: bytes, record: Record | None) -> None:
        """Make this the next version of a record on every node that holds it; None leaves nothing.

        All that changes a record passes here, but for what is dropped where nothing is written down.
        """
        if self.journal is not None:
            self.journal.put(owner.name, digest, record)
        owner.put(digest, record)

    def hold(self, owner: RecordSet, digest: bytes, record: Record | None, transaction: int, deadline: int) -> None:
        """Keep what a transaction writes to a record until the transaction ends."""
        if self.journal is not None:
            self.journal.put(owner.name, digest, record, transaction, deadline)
        self.transactions.write(transaction, deadline, (owner.name.name, digest), record)

    def release(self, owner: RecordSet, digest: bytes, transaction: int) -> None:
        """Forget what a transaction has written to a record."""
        if self.journal is not None:
            self.journal.put(owner.name, digest, None, transaction)
        self.transactions.release(transaction, (owner.name.name, digest))

    def keep_in(self, journal: Journal) -> None:
        """Take in what the journal holds, and write down every change from now on."""
        for record, transaction, deadline in journal.entries():
            if transaction:
                self.transactions.write(transaction, deadline, (record.set_name, record.digest), record)
            else:
                self.put(self.record_set(self.nodes[0], record.set_name), record.digest, record)
        self.journal = journal

    def truncate(self, node: Node, set_name: bytes | None, before_ms: int) -> None:
        """Drop the records of a set (None: of all sets) that were last written before a moment."""

        def older(copy: Partition) -> list[bytes]:
            return [digest for digest, record in copy.items() if record.last_update_ms < before_ms]

        self._drop(node, set_name, older)

    def remove_expired(self, now_ms: int) -> None:
        """Drop the records whose time is over."""

        def expired(copy: Partition) -> list[bytes]:
            return [digest for digest, record in copy.items() if record.void_time and is_expired(record, now_ms)]

        for view in {node.view for node in self.nodes if node.state is State.UP}:
            self._drop(view.members[0], None, expired)

    def _drop(self, node: Node, set_name: bytes | None, dropped: Callable[[Partition], list[bytes]]) -> None:
        """Drop what `dropped` names of a copy; all copies are alike. Raises Refused where the disk is full."""
        for name in self.sets:
            if set_name not in (None, name):
                continue
            owner = self.record_set(node, name)
            for pid, copies in enumerate(owner.copies):
                gone = dropped(copies[0]) if copies else []
                if self.journal is None and gone and len(gone) == len(copies[0]):
                    owner.clear(pid)
                    continue
                for digest in gone:
                    self.put(owner, digest, None)
