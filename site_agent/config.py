"""The site agent's configuration: what this region is, has and allows."""

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from geotrain.rpc.channels import SITE_NAME
from geotrain.rpc.tls import TlsConfig
from geotrain.tasks.targets import DEFAULT_TARGETS
from geotrain.view.config import ViewConfig


@dataclass(slots=True, kw_only=True)
class SiteTrainingConfig:
    """How the site trains.

    num_workers: Ray actors that train together; with more than one, by DistributedDataParallel.
    threads_per_worker: torch threads of each.
    use_gpu: give each worker a GPU where the site's Ray cluster has that many.
    """

    num_workers: int = 1
    threads_per_worker: int = 1
    use_gpu: bool = True

    def __post_init__(self) -> None:
        for name in ("num_workers", "threads_per_worker"):
            if getattr(self, name) < 1:
                raise ValueError(f"site.training.{name} must be at least 1, got {getattr(self, name)}")


@dataclass(slots=True, kw_only=True)
class RayConfig:
    """The site's Ray cluster.

    address: `local` starts one for the agent alone; `auto` or `HOST:PORT` joins the site's own.
    num_cpus: CPUs of a local one.
    object_store_bytes: shared memory of a local one, in bytes.
    """

    address: str = "local"
    num_cpus: int = 2
    object_store_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if self.num_cpus < 1:
            raise ValueError(f"site.ray.num_cpus must be at least 1, got {self.num_cpus}")
        if self.object_store_bytes < 80 << 20:
            raise ValueError(f"site.ray.object_store_bytes must be at least 80 MiB, got {self.object_store_bytes}")


@dataclass(slots=True, kw_only=True)
class SiteConfig:
    """One region.

    name: the site's name; lower-case letters, digits, `-` and `_`.
    rack: the rack of the Aerospike cluster that is this site's, a number over 0.
    data_dir: folder of the local datasets; its rows never leave the site.
    cache_dir: folder of the agent's own, for what it can make anew: local rows in the order of the view's partitions.
    spool_dir: folder of the agent's own, for the update that it keeps until its round is committed.
    training: how the site trains.
    ray: the site's Ray cluster.
    max_jobs: jobs that this site works on at the same time; further ones wait for a place.
    allowed_jobs: names of the tasks that it works on, as glob patterns.
    allowed_targets: importable names that a task may use as `_target_` here, as glob patterns.
    """

    name: str = MISSING
    rack: int = MISSING
    data_dir: str = MISSING
    cache_dir: str = "outputs/cache"
    spool_dir: str = "outputs/site_agent/spool"
    training: SiteTrainingConfig = field(default_factory=SiteTrainingConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    max_jobs: int = 4
    allowed_jobs: list[str] = field(default_factory=lambda: ["*"])
    allowed_targets: list[str] = field(default_factory=lambda: list(DEFAULT_TARGETS))

    def __post_init__(self) -> None:
        if not SITE_NAME.fullmatch(self.name):
            raise ValueError(f"site.name must be lower-case letters, digits, - and _, at most 32, got {self.name!r}")
        if self.max_jobs < 1:
            raise ValueError(f"site.max_jobs must be at least 1, got {self.max_jobs}")
        if self.rack < 1:
            raise ValueError(f"site.rack must be at least 1, got {self.rack}")


@dataclass(slots=True, kw_only=True)
class SiteAgentConfig:
    """The site agent daemon.

    site: the region that this agent stands for.
    coordinator: address of the coordinator, `host:port`; empty: the leader's, as its lease in the view says.
    tls: mutual TLS with the coordinator.
    view: how the view is reached and read.
    upload_deadline_s: how long the coordinator may say nothing while an update is sent to it, in seconds.
    """

    site: SiteConfig = MISSING
    coordinator: str = ""
    tls: TlsConfig = field(default_factory=TlsConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    upload_deadline_s: float = 120.0

    def __post_init__(self) -> None:
        if self.upload_deadline_s <= 0:
            raise ValueError(f"upload_deadline_s must be over 0, got {self.upload_deadline_s}")


def register() -> None:
    """Make the schemas known to Hydra."""
    store = ConfigStore.instance()
    store.store(group="schema", name="site_agent", node=SiteAgentConfig)
    store.store(group="schema", name="site", node=SiteConfig)
