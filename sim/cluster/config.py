"""What a simulated cluster is made of."""

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore

from sim.wan.model import LinkConfig

MAX_PORT = 65535
MAX_TTL_S = 10 * 365 * 24 * 3600
MAX_NAMESPACE_BYTES = 31
MAX_RESERVED_MB = 2000  # as much as glibc can be told to keep
SEPARATORS = ":;,/="  # of the answers to info requests
EDITIONS = ("enterprise", "community")


@dataclass(slots=True, kw_only=True)
class NodeConfig:
    """One node of the simulated cluster.

    port: the TCP port to listen on; 0 takes any free one.
    rack: the number of the rack (the site) that the node stands on, from 1; 0 is no rack.
    site: where the node stands, as links name it; by default the node's own name.
    quiesced: whether the node only counts, and holds no data: a tie-breaker between two sites.
    """

    port: int = 0
    rack: int = 0
    site: str = ""
    quiesced: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= MAX_PORT:
            raise ValueError(f"port must be between 0 and {MAX_PORT}, got {self.port}")
        if self.rack < 0:
            raise ValueError(f"rack must not be negative, got {self.rack}")


@dataclass(slots=True, kw_only=True)
class ClusterConfig:
    """The simulated cluster: one namespace on some nodes, all in one process.

    host: the address that every node listens on and tells its peers.
    nodes: the nodes by name; a site may have several.
    namespace: the name of the namespace.
    replication_factor: how many nodes hold each record; equal to the number of racks, every site holds everything.
    strong_consistency: whether the namespace is strongly consistent (enterprise only), as clients and checks see it.
    edition: enterprise, or community, which refuses racks, rosters, durable deletes and linearizable reads.
    max_record_bytes: the largest record that is taken.
    reserved_mb: memory that is taken at the start, in MB, as a server does; 0 takes it as records come.
    data_dir: the folder in which records are kept across restarts; empty keeps them in memory only.
    active_rack: the rack on which all masters stand; 0 spreads them over all racks.
    client_sites: for each of these sites every node has a listener of its own, as far away as links say.
    client_addresses: by client site, the address, host:port, where its clients find the first node, and the others at
      the ports after it; listened on at all of this machine's addresses. Else they find them at `host`, on any ports.
      In the host, {node} is the name of the node.
    links: what lies between the sites, by any name.
    seed: of the jitter.
    control_port: where faults are ordered while the cluster runs; 0 takes any free port.
    life_port: where others stand for nodes (`python -m sim.node`), which live as long as they do; listened on at all of
      this machine's addresses; 0 is nowhere.
    nsup_period_s: how often expired records are removed; 0 is never, and then records may not be given a time to live.
    default_ttl_s: the time to live of records whose writer gives none; 0 is for ever.
    default_read_touch_ttl_pct: a read within this last part of a record's time to live begins it anew; 0 is never.
    allow_ttl_without_nsup: whether records may be given a time to live though expired ones are not removed.
    users: passwords by user (enterprise only); empty lets everyone in.
    tls_name: the name in the nodes' certificate (enterprise only); empty speaks in clear.
    tls_certificate: the file with that certificate, and with those up to one that clients trust.
    tls_key: the file with the certificate's private key.
    tls_ca: the file with the authority of the certificates that clients must show; empty asks them for none.
    """

    host: str = "127.0.0.1"
    nodes: dict[str, NodeConfig] = field(default_factory=dict)
    namespace: str = "geotrain"
    replication_factor: int = 3
    strong_consistency: bool = True
    edition: str = "enterprise"
    max_record_bytes: int = 1024 * 1024
    reserved_mb: int = 0
    data_dir: str = ""
    active_rack: int = 0
    client_sites: list[str] = field(default_factory=list)
    client_addresses: dict[str, str] = field(default_factory=dict)
    links: dict[str, LinkConfig] = field(default_factory=dict)
    seed: int = 0
    control_port: int = 0
    life_port: int = 0
    nsup_period_s: int = 0
    default_ttl_s: int = 0
    default_read_touch_ttl_pct: int = 0
    allow_ttl_without_nsup: bool = False
    users: dict[str, str] = field(default_factory=dict)
    tls_name: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_ca: str = ""

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ValueError("nodes must name at least one node")
        if not 0 < len(self.namespace.encode()) <= MAX_NAMESPACE_BYTES or set(self.namespace) & set(SEPARATORS):
            raise ValueError(f"namespace must be 1 to 31 bytes, none of them {SEPARATORS}, got {self.namespace!r}")
        sites = {*(node.site or name for name, node in self.nodes.items()), *self.client_sites}
        for name, link in self.links.items():
            if unknown := [site for site in link.sites if site not in sites]:
                raise ValueError(
                    f"links.{name}.sites: no such site: {unknown[0]!r}; there are {', '.join(sorted(sites))}"
                )
        if self.edition not in EDITIONS:
            raise ValueError(f"edition must be one of {', '.join(EDITIONS)}, got {self.edition!r}")
        if self.edition == "community" and self.strong_consistency:
            raise ValueError("strong_consistency is not offered by the community edition: set it to false")
        if not 1 <= self.replication_factor <= len(self.nodes):
            raise ValueError(
                f"replication_factor must be 1 to {len(self.nodes)} (nodes), got {self.replication_factor}"
            )
        if self.active_rack and self.active_rack not in {node.rack for node in self.nodes.values()}:
            raise ValueError(f"active_rack must be the rack of a node, got {self.active_rack}")
        if "" in self.client_sites or len(set(self.client_sites)) < len(self.client_sites):
            raise ValueError(f"client_sites must be different names, got {self.client_sites}")
        for site, address in self.client_addresses.items():
            host, _, port = address.rpartition(":")
            if site not in self.client_sites or not host or not port.isdecimal() or int(port) > MAX_PORT:
                raise ValueError(
                    f"client_addresses must give client_sites an address host:port, got {site}: {address!r}"
                )
        for name in ("control_port", "life_port"):
            if not 0 <= getattr(self, name) <= MAX_PORT:
                raise ValueError(f"{name} must be between 0 and {MAX_PORT}, got {getattr(self, name)}")
        if self.max_record_bytes < 1:
            raise ValueError(f"max_record_bytes must be positive, got {self.max_record_bytes}")
        if not 0 <= self.reserved_mb <= MAX_RESERVED_MB:
            raise ValueError(f"reserved_mb must be 0 to {MAX_RESERVED_MB}, got {self.reserved_mb}")
        if self.nsup_period_s < 0:
            raise ValueError(f"nsup_period_s must not be negative, got {self.nsup_period_s}")
        if not 0 <= self.default_ttl_s <= MAX_TTL_S:
            raise ValueError(f"default_ttl_s must be 0 to {MAX_TTL_S} (ten years), got {self.default_ttl_s}")
        if self.default_ttl_s and not self.nsup_period_s and not self.allow_ttl_without_nsup:
            raise ValueError("default_ttl_s needs nsup_period_s, or allow_ttl_without_nsup")
        if not 0 <= self.default_read_touch_ttl_pct <= 100:
            raise ValueError(f"default_read_touch_ttl_pct must be 0 to 100, got {self.default_read_touch_ttl_pct}")
        if self.edition == "community" and (self.users or self.tls_name):
            raise ValueError("users and tls_name are not offered by the community edition")
        if not bool(self.tls_name) == bool(self.tls_certificate) == bool(self.tls_key):
            raise ValueError("tls_name, tls_certificate and tls_key belong together: give all or none")
        if self.tls_ca and not self.tls_name:
            raise ValueError("tls_ca is given without tls_name, which is what turns TLS on")


def register() -> None:
    """Make the schemas known to Hydra."""
    store = ConfigStore.instance()
    store.store(group="schema", name="simulated_cluster", node=ClusterConfig)
    store.store(group="schema", name="simulated_node", node=NodeConfig)  # one more: +schema@nodes.sfo=simulated_node
