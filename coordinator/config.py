"""The coordinator's configuration, and that of the jobs it runs."""

import math
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from geotrain.rpc.tls import TlsConfig
from geotrain.states.gate import Gate
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.targets import DEFAULT_TARGETS
from geotrain.view.config import ViewConfig

# Hosts that stand for all of a machine's addresses, and can't be dialled.
ANYWHERE = ("", "0.0.0.0", "::", "[::]")


@dataclass(slots=True, kw_only=True)
class CoordinatorConfig:
    """The coordinator daemon.

    listen: address on which agents and launches are answered, `host:port`.
    advertise: address at which others dial this coordinator, `host:port`; none: `listen`.
    advertise_to: by site, another address for its agent.
    lease_s: how long a silent leader keeps a standby from leading, in seconds; the same for all coordinators.
    http_listen: address of the snapshot over HTTP that the program `geotrain` reads, `host:port`; empty: none. Whoever
      reaches it may read it.
    tls: mutual TLS with agents and launches.
    view: how the view is reached and read.
    spool_dir: folder of this coordinator's own, for updates on their way into the mean; it is cleared of them when the
      coordinator begins to lead.
    heartbeat_s: how often an agent must say that it is there, in seconds; after four silent ones it is gone.
    max_update_bytes: largest update that is received, in bytes.
    max_running_jobs: jobs that run at the same time; further ones wait.
    max_queued_jobs: jobs that may wait; a further launch is refused.
    sites: names of the sites that may join; with none named, any.
    allowed_targets: importable names that a launch's task may use as `_target_`, as glob patterns.
    """

    listen: str = "127.0.0.1:50551"
    advertise: str = ""
    advertise_to: dict[str, str] = field(default_factory=dict)
    lease_s: float = 6.0
    http_listen: str = "127.0.0.1:50552"
    tls: TlsConfig = field(default_factory=TlsConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    spool_dir: str = "outputs/coordinator/spool"
    heartbeat_s: float = 2.0
    max_update_bytes: int = 4 << 30
    max_running_jobs: int = 4
    max_queued_jobs: int = 16
    sites: list[str] = field(default_factory=list)
    allowed_targets: list[str] = field(default_factory=lambda: list(DEFAULT_TARGETS))

    def __post_init__(self) -> None:
        if not 1 <= self.lease_s < math.inf:
            raise ValueError(f"lease_s must be at least 1, got {self.lease_s}")
        if not self.advertise and self.listen.rpartition(":")[0] in ANYWHERE:
            raise ValueError(
                f"advertise must say at which host:port others dial a coordinator that listens at {self.listen}"
            )
        if not 0 < self.heartbeat_s < math.inf:
            raise ValueError(f"heartbeat_s must be over 0, got {self.heartbeat_s}")
        if self.max_update_bytes < 1:
            raise ValueError(f"max_update_bytes must be at least 1, got {self.max_update_bytes}")
        if self.max_running_jobs < 1:
            raise ValueError(f"max_running_jobs must be at least 1, got {self.max_running_jobs}")
        if self.max_queued_jobs < 0:
            raise ValueError(f"max_queued_jobs must be at least 0, got {self.max_queued_jobs}")


@dataclass(slots=True, kw_only=True)
class StrategyConfig:
    """How the sites' updates become the next model.

    outer: a `torch.optim` optimizer as a `_target_` and its arguments; the weighted mean update is its gradient.
    max_update_norm: largest L2 norm of a site's update that is believed; a larger one is refused.
    max_staleness: an update that comes this many rounds after its own is still counted, in the round that is open
      then; 0 refuses every late one.
    staleness_discount: the exponent a by which a late update loses weight: samples * (1 + rounds late) ** -a.
    """

    outer: dict[str, Any] = field(default_factory=lambda: {"_target_": "torch.optim.SGD", "lr": 1.0})
    max_update_norm: float = 1e4
    max_staleness: int = 0
    staleness_discount: float = 0.5

    def __post_init__(self) -> None:
        if not str(self.outer.get("_target_", "")).startswith("torch.optim."):
            raise ValueError(f"strategy.outer._target_ must name a torch.optim optimizer, got {self.outer!r}")
        if not self.max_update_norm > 0:  # nor NaN
            raise ValueError(f"strategy.max_update_norm must be over 0, got {self.max_update_norm}")
        for name in ("max_staleness", "staleness_discount"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"strategy.{name} must be at least 0, got {getattr(self, name)}")


@dataclass(slots=True, kw_only=True)
class JobConfig:
    """One training launch. Its states are published as `<task.name>/<scope>@<version>`.

    sites: names of the sites that take part.
    min_sites: a phase goes on without the others when this many sites have reported and its deadline has passed.
    rounds: number of rounds.
    gather_deadline_s: how long to wait for the sites to connect, to have a place for the job (`site.max_jobs`) and to
      accept the task, in seconds.
    phase_deadline_s: how long sites may take to scan, train or localize, in seconds each.
    grace_s: once `min_sites` have reported in such a phase, how long to wait for the others; none: to the deadline.
    skew_margin_s: a cut ends this many seconds before now; at least the largest clock skew of the cluster.
    seed: seed of the first model and of the order of rows.
    task: what is learned from which columns.
    strategy: how updates become the next model.
    gate: what a round's state must measure to be the `production` of its model, or else be its `candidate`
      (`gate.metric=...`); without one it is production as soon as it is committed.
    """

    sites: list[str] = MISSING
    min_sites: int = 2
    rounds: int = 6
    gather_deadline_s: float = 120.0
    phase_deadline_s: float = 300.0
    grace_s: float | None = None
    skew_margin_s: float = 1.0
    seed: int = 0
    task: TaskConfig = MISSING
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        if not self.sites or len(set(self.sites)) != len(self.sites):
            raise ValueError(f"sites must name at least one site, each once, got {self.sites}")
        if not 1 <= self.min_sites <= len(self.sites):
            raise ValueError(
                f"min_sites must be from 1 to the number of sites ({len(self.sites)}), got {self.min_sites}"
            )
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")
        for name in ("gather_deadline_s", "phase_deadline_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be over 0, got {getattr(self, name)}")
        if self.grace_s is not None and not self.grace_s >= 0:
            raise ValueError(f"grace_s must be at least 0, got {self.grace_s}")
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed must be from 0 to 2**64 - 1, got {self.seed}")
        if not 0 <= self.skew_margin_s < math.inf:
            raise ValueError(f"skew_margin_s must be at least 0, got {self.skew_margin_s}")


@dataclass(slots=True, kw_only=True)
class LaunchConfig(JobConfig):
    """A job, and the coordinator that is to run it.

    coordinator: where coordinators are dialled, `host:port` or a list of them; a standby names the leader.
    tls: mutual TLS with them.
    request_id: names this launch; again under the same, it is the same job, and only followed; empty: a new one.
    """

    coordinator: Any = "127.0.0.1:50551"
    tls: TlsConfig = field(default_factory=TlsConfig)
    request_id: str = ""

    def __post_init__(self) -> None:
        JobConfig.__post_init__(self)
        if not self.addresses or not all(isinstance(address, str) and ":" in address for address in self.addresses):
            raise ValueError(f"coordinator must be host:port, or a list of them, got {self.coordinator!r}")

    @property
    def addresses(self) -> list[str]:
        """Where coordinators are dialled."""
        return self.coordinator.split(",") if isinstance(self.coordinator, str) else list(self.coordinator)


def register() -> None:
    """Make the schemas known to Hydra."""
    store = ConfigStore.instance()
    store.store(group="schema", name="coordinator", node=CoordinatorConfig)
    store.store(group="schema", name="launch", node=LaunchConfig)
    store.store(group="schema", name="strategy", node=StrategyConfig)
    store.store(group="schema", name="task", node=TaskConfig)
