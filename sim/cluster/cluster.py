"""The state of the simulated cluster: its nodes, who holds which partition, and what all nodes share."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from geotrain.wire.codes import ResultCode
from geotrain.wire.partitions import NUM_PARTITIONS, partition_of
from sim.cluster.config import ClusterConfig
from sim.cluster.execution.indexes import Definition
from sim.cluster.execution.transactions import MONITORS, Transactions
from sim.cluster.journal import Journal
from sim.cluster.metadata import Metadata, TruncateLuts, truncated_before_ms
from sim.cluster.node import Node, State
from sim.cluster.records import Record, SetName, check_set_name, is_expired, set_name_of
from sim.cluster.security import Security
from sim.cluster.sites.clocks import stops_writes
from sim.cluster.sites.read_modes import Source, read_mode, source
from sim.cluster.sites.rebalance import Memory, plan_available, plan_strong, remember
from sim.cluster.sites.roster import Membership, reclustered
from sim.cluster.sites.subclusters import Counts, Partition, RecordSet, SubCluster, counts_of, place
from sim.cluster.sites.topology import sub_clusters
from sim.cluster.values.refused import Refused
from sim.control import Events
from sim.wan.model import Network

MAX_SETS = 4095  # as in a real namespace

log = logging.getLogger(__name__)


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
        self.modules: dict[str, str] = {}
        """What users have registered of their functions, by file name, in base64."""
        self.truncate_luts: TruncateLuts = {}
        self._drops: deque[Iterator[None]] = deque()
        """What is dropping records, step by step."""
        self.control_address = ""
        """Where faults are ordered."""
        self.events = Events()
        """The faults so far."""
        self.journal: Journal | None = None
        """Where changes of records are written down before they are made, or nowhere."""
        roster = {node.node_id: node.rack for node in self.nodes}
        membership = Membership(1, roster, config.active_rack)
        self._begin(membership, membership, regime=0)

    @property
    def is_enterprise(self) -> bool:
        """Whether the cluster answers as the Enterprise Edition does."""
        return self.config.edition == "enterprise"

    def _begin(self, membership: Membership, pending: Membership, regime: int) -> None:
        """Have all nodes start, each with all data."""
        quiesced = frozenset(node.node_id for node in self.nodes if self.config.nodes[node.name].quiesced)
        for node in self.nodes:
            node.pending, node.is_alone = pending._replace(quiesced=quiesced), True
            node.memory = Memory(membership._replace(quiesced=quiesced), regime)
            node.memory.versions = [1] * NUM_PARTITIONS
            node.memory.newest = [1] * NUM_PARTITIONS
        self.rebalance()

    @property
    def metadata(self) -> Metadata:
        """What survives a restart of the process beside the records."""
        memories = [node.memory for node in self.nodes]
        return Metadata(
            regime=max(memory.regime for memory in memories),
            membership=max((memory.membership for memory in memories), key=lambda found: found.version),
            pending=max((node.pending for node in self.nodes), key=lambda found: found.version),
            indexes=self.indexes,
            truncate_luts=self.truncate_luts,
        )

    def write_down(self, metadata: Metadata) -> None:
        """Make sure that this survives a restart of the process. Raises Refused."""
        if self.journal is not None:
            self.journal.put_metadata(metadata)

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
        for _ in self.drop_all():
            pass
        for name in self.sets:
            place(members, plan, name, truncated_before_ms(self.truncate_luts, name), strong=strong)
        view = SubCluster(members, plan)
        self.check_clocks(view)
        pending = max((node.pending for node in members), key=lambda found: found.version)
        for node in members:
            node.pending = pending
            remember(node.memory, node.node_id, plan)
            node.view, node.is_alone = view, False
            node.generation += 1
            node.owned = [[] for _ in range(num_copies)]
        for pid, owners in enumerate(view.owners):
            for copy, node in enumerate(owners):
                node.owned[copy].append(pid)
        for node in members:
            node.held = frozenset().union(*node.owned)
        try:
            self.write_down(self.metadata)
        except Refused:
            log.warning("regime %d can't be written down, and may come again after a restart", plan.regime)

    def recluster(self, members: tuple[Node, ...]) -> None:
        """Let a sub-cluster's pending roster, and all quiescing, take effect."""
        quiescing = {node.node_id: node.is_quiescing for node in members}
        after = reclustered(members[0].view.membership, members[0].pending, quiescing)
        for node in members:
            node.memory.membership = after
        self.form(members)

    def check_clocks(self, view: SubCluster) -> None:
        """Stop writes where the clocks are too far apart for strong consistency, or take them again."""
        view.stops_writes = stops_writes(view.clock_skew_ms, is_strong=self.config.strong_consistency)

    @property
    def sites(self) -> set[str]:
        """Where nodes and clients stand."""
        return {*(node.site for node in self.nodes), *self.config.client_sites}

    def record_set(self, node: Node, name: bytes) -> RecordSet:
        """The set `name` as the node's sub-cluster has it. Its first record makes it. Raises Refused for a bad name."""
        known = self.sets.get(name)
        if known is not None:
            return node.view.record_set(known)
        check_set_name(name)
        return RecordSet(set_name_of(self.config.namespace, name), node.view)

    def source(self, node: Node, info3: int, pid: int) -> Source:
        """Whose copy answers a read that comes to `node`. info3: the request's third flag byte."""
        return source(
            read_mode(info3),
            is_strong=self.config.strong_consistency,
            is_served=pid not in node.view.unavailable,
            has_copy=node.memory.versions[pid] > 0,
        )

    def find(self, node: Node, set_name: bytes, digest: bytes, *, from_own: bool) -> Record | None:
        """A record in the copy that the node itself holds, or in the acting master's."""
        if set_name not in self.sets:
            return None
        if from_own:
            return node.copy(set_name, partition_of(digest)).get(digest)
        return self.record_set(node, set_name).get(digest)

    def set_with(self, node: Node, digest: bytes) -> bytes:
        """The set that a record is in whose request names none: a digest says it all. None has it: no set."""
        is_unavailable = partition_of(digest) in node.view.unavailable
        for name in (b"", *self.sets):
            if name == MONITORS:
                continue
            if self.find(node, name, digest, from_own=is_unavailable) or self.transactions.holder((name, digest)):
                return name
        return b""

    def count(self, node: Node, name: bytes, pids: Iterable[int] | None = None) -> Counts:
        """How much a node holds of a set that there is, or of some of the set's partitions that it serves."""
        owner = self.record_set(node, name)
        counts = [owner.counts(owner.filled & (node.held if pids is None else frozenset(pids)))]
        if pids is None:
            counts += [
                counts_of(node.copy(name, pid)) for pid in node.view.unavailable & node.sets.get(name, {}).keys()
            ]
        return Counts(*map(sum, zip(Counts(0, 0, 0), *counts, strict=True)))

    def put(self, owner: RecordSet, digest: bytes, record: Record | None) -> None:
        """Make this the next version of a record on every node that holds it; None leaves nothing.

        All that changes a record passes here, but for what is dropped where nothing is written down. Raises Refused.
        """
        self._know(owner.name)
        if self.journal is not None:
            self.journal.put(owner.name, digest, record)
        owner.put(digest, record)

    def hold(self, owner: RecordSet, digest: bytes, record: Record | None, transaction: int, deadline: int) -> None:
        """Keep what a transaction writes to a record until the transaction ends. Raises Refused."""
        self._know(owner.name)
        if self.journal is not None:
            self.journal.put(owner.name, digest, record, transaction, deadline)
        self.transactions.write(transaction, deadline, (owner.name.name, digest), record)

    def _know(self, name: SetName) -> None:
        """Count a set that gets its first record. Raises Refused where there are too many."""
        if name.name not in self.sets:
            if len(self.sets) >= MAX_SETS:
                raise Refused(ResultCode.FORBIDDEN)
            self.sets[name.name] = name

    def release(self, owner: RecordSet, digest: bytes, transaction: int) -> None:
        """Forget what a transaction has written to a record."""
        if self.journal is not None:
            self.journal.put(owner.name, digest, None, transaction)
        self.transactions.release(transaction, (owner.name.name, digest))

    def keep_in(self, journal: Journal) -> None:
        """Take in what the journal holds, and write down every change from now on."""
        for record, transaction, deadline in journal.entries():
            self._know(set_name_of(self.config.namespace, record.set_name))
            if transaction:
                self.transactions.write(transaction, deadline, (record.set_name, record.digest), record)
                continue
            pid = partition_of(record.digest)
            for node in self.nodes:
                node.sets.setdefault(record.set_name, {}).setdefault(pid, Partition())[record.digest] = record
        self.journal = journal
        kept = journal.metadata or self.metadata
        self.indexes, self.truncate_luts = kept.indexes, kept.truncate_luts
        strangers = [node.name for node in self.nodes if node.node_id not in kept.membership.roster]
        if strangers and self.config.strong_consistency:
            log.warning("not on the roster that data_dir has kept, and so without data: %s", ", ".join(strangers))
        self._begin(kept.membership, kept.pending, kept.regime)

    def set_indexes(self, indexes: dict[str, Definition]) -> None:
        """Have these secondary indexes and no others. Raises Refused where the disk is full."""
        self.write_down(self.metadata._replace(indexes=indexes))
        self.indexes = indexes

    def truncate(self, node: Node, set_name: bytes | None, before_ms: int) -> None:
        """Have the records of a set (None: of all sets) dropped that were last written before a moment.

        It is decided at once and done by `drop_all`. Raises Refused where the disk is full.
        """
        luts = self.truncate_luts | {set_name: max(before_ms, self.truncate_luts.get(set_name, 0))}
        self.write_down(self.metadata._replace(truncate_luts=luts))
        self.truncate_luts = luts
        self._drops.append(self._drop(node, set_name, lambda record: record.last_update_ms < before_ms, is_kept=False))

    def remove_expired(self, now_ms: int) -> None:
        """Have the records dropped whose time is over, by `drop_all`."""
        for view in {node.view: None for node in self.nodes if node.state is State.UP}:
            expired = partial(is_expired, now_ms=now_ms)
            self._drops.append(self._drop(view.members[0], None, expired, is_kept=self.journal is not None))

    @property
    def num_drops(self) -> int:
        """How many truncations and the like are under way."""
        return len(self._drops)

    def drop_all(self) -> Iterator[None]:
        """Bring truncations and the like to their end, in steps; whoever else does so meanwhile shares in the work."""
        while self._drops:
            try:
                next(self._drops[0])
            except StopIteration:
                self._drops.popleft()
            yield

    def _drop(
        self, node: Node, set_name: bytes | None, is_gone: Callable[[Record], bool], *, is_kept: bool
    ) -> Iterator[None]:
        """Drop records from a sub-cluster, a partition a step; all copies are alike.

        is_kept: whether the journal would bring them back, and so has to hear of it.
        """
        for name in [name for name in self.sets if set_name in (None, name)]:
            for pid in list(self.record_set(node, name).filled):
                owner = self.record_set(node, name)
                records = owner.records(pid)
                gone = [digest for digest, record in records.items() if is_gone(record)]
                if is_kept:
                    try:
                        for digest in gone:
                            self.put(owner, digest, None)
                    except Refused:
                        log.warning("expired records can't be removed from a full disk, and stay for now")
                        return
                elif len(gone) == len(records):
                    owner.clear(pid)
                else:
                    for digest in gone:
                        owner.put(digest, None)
                yield
