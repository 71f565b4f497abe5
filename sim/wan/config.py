"""What the simulated wide area is made of."""

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore

from sim.wan.model import LinkConfig

MAX_PORT = 65535


@dataclass(slots=True, kw_only=True)
class RouteConfig:
    """A way for TCP connections from one site to a service on another.

    listen: the address, host:port, at which clients find the service; port 0 takes any free one.
    site: where these clients stand.
    target: the address, host:port, of the service.
    target_site: where the service stands.
    """

    listen: str = "127.0.0.1:0"
    site: str = ""
    target: str = ""
    target_site: str = ""

    def __post_init__(self) -> None:
        for name in ("listen", "target"):
            host, _, port = getattr(self, name).rpartition(":")
            if not host or not port.isdecimal() or int(port) > MAX_PORT:
                raise ValueError(f"{name} must be host:port, got {getattr(self, name)!r}")
        for name in ("site", "target_site"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name a site")


@dataclass(slots=True, kw_only=True)
class WanConfig:
    """The simulated wide area: a TCP proxy that behaves like it.

    routes: the ways that there are, by name.
    links: what lies between the sites, by any name.
    seed: of the jitter.
    control_port: where faults are ordered while the proxy runs; 0 takes any free port.
    """

    routes: dict[str, RouteConfig] = field(default_factory=dict)
    links: dict[str, LinkConfig] = field(default_factory=dict)
    seed: int = 0
    control_port: int = 0

    def __post_init__(self) -> None:
        if not self.routes:
            raise ValueError("routes must name at least one way")
        if not 0 <= self.control_port <= MAX_PORT:
            raise ValueError(f"control_port must be between 0 and {MAX_PORT}, got {self.control_port}")


def register() -> None:
    """Make the schemas known to Hydra."""
    ConfigStore.instance().store(group="schema", name="wan", node=WanConfig)
