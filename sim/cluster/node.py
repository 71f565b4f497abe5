"""One node of the simulated cluster: where it is, what has become of it, and its own copies of records."""

import time
from collections import Counter, deque
from enum import StrEnum
from hashlib import blake2b
from typing import Protocol

from geotrain.wire.partitions import NUM_PARTITIONS
from sim.cluster.config import NodeConfig
from sim.cluster.execution.jobs import Jobs
from sim.cluster.sites.misbehaviour import Misbehaviours
from sim.cluster.sites.rebalance import Memory
from sim.cluster.sites.roster import Membership
from sim.cluster.sites.subclusters import EMPTY, NOWHERE, Partition


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
        self.started_s = time.monotonic()
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
        """By set and partition what this node holds; nothing for most partitions of a small set."""
        self.counters: Counter[tuple[str, str, int]] = Counter()
        """Commands done, by (who sent them, what they do, result code)."""
        self.statistics: Counter[str] = Counter()
        """What else has happened, under the names of a real server's statistics."""
        self.jobs = Jobs()
        """The queries that run on this node, and the last ones that have."""
        self.connections: dict[Breakable, None] = {}
        """In the order in which they were made, so that the same faults always have the same effect."""
        self.num_unfinished_bytes = 0
        """Of requests that have come in part, on all connections."""
        self.addresses = {"": (host, config.port)}
        """Where clients of a site reach this node; under no name, clients that stand nowhere."""
        self.misbehaviours: Misbehaviours = deque()
        self.pending = self.memory.membership
        """What the roster will be after the next recluster."""
        self.is_quiescing = config.quiesced
        self.is_alone = True
        """Whether the node has been away, so that it has to join the others again."""

    def die(self, *, keeps_memory: bool) -> None:
        """End the node's process, its queries with it."""
        self.state, self.is_alone, self.jobs = State.DOWN, True, Jobs()
        self.counters, self.statistics = Counter(), Counter()
        if not keeps_memory:
            self.sets = {}
            self.memory.versions = [0] * NUM_PARTITIONS

    def copy(self, set_name: bytes, pid: int) -> Partition:
        """What the node holds of a set in one partition."""
        return self.sets.get(set_name, {}).get(pid, EMPTY)

    def now_ms(self) -> int:
        """The node's clock, in milliseconds since 1970."""
        return time.time_ns() // 1_000_000 + self.skew_ms
