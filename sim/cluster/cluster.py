"""The state of the simulated cluster: its nodes, who holds which partition, and each node's own copies of records."""

import time
from collections import Counter
from hashlib import blake2b

from geotrain.wire.partitions import NUM_PARTITIONS, partition_of
from sim.cluster.config import ClusterConfig, NodeConfig
from sim.cluster.partitions import partition_map
from sim.cluster.records import Record, SetName, set_name_of

Partition = dict[bytes, Record]
"""A node's copy of the records of one set in one partition, by digest."""


class Node:
    """One node: where it is, and what it holds."""

    def __init__(self, name: str, host: str, config: NodeConfig) -> None:
        self.name = name
        self.node_id = blake2b(name.encode(), digest_size=8).hexdigest().upper()
        self.rack = config.rack
        self.host = host
        self.port = config.port
        """The configured port, or the one that the node was given where that is 0."""
        self.owned: list[list[int]] = []
        """The partitions of which this node holds copy 0 (as master), copy 1, ..."""
        self.held: frozenset[int] = frozenset()
        """All partitions of which this node holds a copy."""
        self.sets: dict[bytes, dict[int, Partition]] = {}
        self.counters: Counter[tuple[str, str, int]] = Counter()
        """Commands done, by (who sent them, what they do, result code)."""
        self.num_connections = 0

    def num_records(self, name: bytes) -> int:
        """How many records of a set this node holds."""
        return sum(map(len, self.sets.get(name, {}).values()))

    def num_bytes(self, name: bytes) -> int:
        """How many bytes the records of a set take on this node."""
        return sum(len(record.row) for copy in self.sets.get(name, {}).values() for record in copy.values())


class RecordSet:
    """A set over all nodes."""

    def __init__(self, name: SetName, copies: list[tuple[Partition, ...]]) -> None:
        self.name = name
        self.copies = copies
        """For each partition the copies on the nodes that hold it, the master's first."""


class Cluster:
    """All nodes of the simulated cluster and the one namespace that they serve."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.namespace = config.namespace.encode()
        self.nodes = [Node(name, config.host, node) for name, node in config.nodes.items()]
        self.regime = int(config.strong_consistency)
        self.generation = 1
        """Of peers, partitions and racks alike: grows with every change of the cluster."""
        self.sets: dict[bytes, RecordSet] = {}
        self.started_s = time.monotonic()
        by_name = {node.name: node for node in self.nodes}
        racks = {node.name: node.rack for node in self.nodes}
        self._owners = [
            tuple(by_name[name] for name in names) for names in partition_map(racks, config.replication_factor)
        ]
        for node in self.nodes:
            node.owned = [
                [pid for pid, owners in enumerate(self._owners) if owners[copy] is node]
                for copy in range(config.replication_factor)
            ]
            node.held = frozenset(pid for column in node.owned for pid in column)

    @property
    def is_enterprise(self) -> bool:
        """Whether the cluster answers as the Enterprise Edition does."""
        return self.config.edition == "enterprise"

    @property
    def cluster_key(self) -> str:
        """A token that all nodes of this composition agree on."""
        members = ",".join(sorted(node.node_id for node in self.nodes))
        return blake2b(members.encode(), digest_size=6).hexdigest().upper()

    def record_set(self, name: bytes) -> RecordSet:
        """The set `name`, made on its first use."""
        found = self.sets.get(name)
        if found is None:
            for node in self.nodes:
                node.sets[name] = {pid: {} for pid in node.held}
            copies = [tuple(node.sets[name][pid] for node in self._owners[pid]) for pid in range(NUM_PARTITIONS)]
            found = self.sets[name] = RecordSet(set_name_of(self.config.namespace, name), copies)
        return found

    def find(self, node: Node, set_name: bytes, digest: bytes) -> Record | None:
        """A record as `node` reads it: from its own copy, or else from the master's."""
        found = self.sets.get(set_name)
        if found is None:
            return None
        pid = partition_of(digest)
        copy = node.sets[set_name].get(pid)
        return (found.copies[pid][0] if copy is None else copy).get(digest)

    def truncate(self, set_name: bytes | None, before_ms: int) -> None:
        """Drop the records of a set (None: of all sets) that were last written before a moment."""
        for name, found in self.sets.items():
            if set_name not in (None, name):
                continue
            for copies in found.copies:
                for copy in copies:
                    for digest in [d for d, record in copy.items() if record.last_update_ms < before_ms]:
                        del copy[digest]
