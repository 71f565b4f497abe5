"""What a simulated cluster is made of."""

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore

MAX_PORT = 65535
EDITIONS = ("enterprise", "community")


@dataclass(slots=True, kw_only=True)
class NodeConfig:
    """One node of the simulated cluster.

    port: the TCP port to listen on; 0 takes any free one.
    rack: the number of the rack (the site) that the node stands on, from 1; 0 is no rack.
    """

    port: int = 0
    rack: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= MAX_PORT:
            raise ValueError(f"port must be between 0 and {MAX_PORT}, got {self.port}")
        if self.rack < 0:
            raise ValueError(f"rack must not be negative, got {self.rack}")


@dataclass(slots=True, kw_only=True)
class ClusterConfig:
    """The simulated cluster: one namespace on some nodes, all in one process.

    host: the address that every node listens on and tells its peers.
    nodes: the nodes by name, one a site.
    namespace: the name of the namespace.
    replication_factor: how many nodes hold each record; equal to the number of racks, every site holds everything.
    strong_consistency: whether the namespace is strongly consistent (enterprise only), as clients and checks see it.
    edition: enterprise, or community, which refuses racks, rosters, durable deletes and linearizable reads.
    max_record_bytes: the largest record that is taken.
    """

    host: str = "127.0.0.1"
    nodes: dict[str, NodeConfig] = field(default_factory=dict)
    namespace: str = "geotrain"
    replication_factor: int = 3
    strong_consistency: bool = True
    edition: str = "enterprise"
    max_record_bytes: int = 1024 * 1024

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ValueError("nodes must name at least one node")
        if self.edition not in EDITIONS:
            raise ValueError(f"edition must be one of {', '.join(EDITIONS)}, got {self.edition!r}")
        if self.edition == "community" and self.strong_consistency:
            raise ValueError("strong_consistency is not offered by the community edition: set it to false")
        if not 1 <= self.replication_factor <= len(self.nodes):
            raise ValueError(
                f"replication_factor must be 1 to {len(self.nodes)} (nodes), got {self.replication_factor}"
            )
        if self.max_record_bytes < 1:
            raise ValueError(f"max_record_bytes must be positive, got {self.max_record_bytes}")


def register() -> None:
    """Make the schemas known to Hydra."""
    store = ConfigStore.instance()
    store.store(group="schema", name="simulated_cluster", node=ClusterConfig)
