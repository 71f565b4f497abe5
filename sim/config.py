"""The demo's configuration: a job, the cluster it runs on, and how much of the data."""

from dataclasses import dataclass, field, fields, replace

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from coordinator.config import JobConfig, LaunchConfig
from coordinator.config import register as register_coordinator
from geotrain.view.config import ViewConfig
from sim.flights import SITES

MAX_DAYS_A_MONTH = 31
# Agents come up while a simulated cluster, on the same cores, takes in the data.
CONNECT_TIMEOUT_S = 30.0


@dataclass(slots=True, kw_only=True)
class DemoClusterConfig:
    """The Aerospike cluster of the demo.

    simulated: start one, on free ports; otherwise the one at `hosts` is used and left running.
    hosts: nodes of a cluster that is there already, `host:port`; one that answers is enough.
    racks: the rack of each site.
    """

    simulated: bool = True
    hosts: list[str] = field(default_factory=list)
    racks: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.simulated == bool(self.hosts):
            raise ValueError("cluster.hosts must name a node as host:port with cluster=external, and only with it")


@dataclass(slots=True, kw_only=True)
class SimConfig(JobConfig):
    """The demo: whole regions on this machine, and the job that they run.

    cluster: the Aerospike cluster.
    view: how every part reaches and reads the view; its hosts and rack come from `cluster`.
    days_a_month: how many days of every month are used, of the sites' data and of what they share.
    min_auc: what the localized model of a site should reach, by site; the report says whether it did.
    min_gain: by how much it should be above `local_only`.
    capture_bytes: how much of what leaves a site is kept, to look for rows in it, in bytes.
    output_dir: folder for data, logs, captures and the report.
    """

    cluster: DemoClusterConfig = field(default_factory=DemoClusterConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    days_a_month: int = MAX_DAYS_A_MONTH
    min_auc: dict[str, float] = field(default_factory=dict)
    min_gain: float = 0.0
    capture_bytes: int = 256 << 20
    output_dir: str = MISSING

    def __post_init__(self) -> None:
        JobConfig.__post_init__(self)
        for site in self.sites:
            if site not in SITES:
                raise ValueError(f"sites: there is no data for {site!r}, only for {', '.join(SITES)}")
            if site not in self.cluster.racks:
                raise ValueError(f"cluster.racks: has no rack for site {site}")
        if not 1 <= self.days_a_month <= MAX_DAYS_A_MONTH:
            raise ValueError(f"days_a_month must be from 1 to {MAX_DAYS_A_MONTH}, got {self.days_a_month}")
        if self.capture_bytes < 1:
            raise ValueError(f"capture_bytes must be at least 1, got {self.capture_bytes}")

    def view_of(self, site: str, hosts: list[str]) -> ViewConfig:
        """How a site reaches the view."""
        timeout_s = max(self.view.connect_timeout_s, CONNECT_TIMEOUT_S if self.cluster.simulated else 0.0)
        return replace(self.view, hosts=hosts, rack=self.cluster.racks[site], connect_timeout_s=timeout_s)

    def launch(self, coordinator: str) -> LaunchConfig:
        """The job by itself, for the coordinator at this address."""
        job = {field.name: getattr(self, field.name) for field in fields(JobConfig)}
        return LaunchConfig(coordinator=coordinator, **job)


def register() -> None:
    """Make the schemas known to Hydra."""
    register_coordinator()
    store = ConfigStore.instance()
    store.store(group="schema", name="sim", node=SimConfig)
    store.store(group="schema", name="demo_cluster", node=DemoClusterConfig)
