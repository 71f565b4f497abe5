"""How a program reaches the view. Knows nothing about what is read from it."""

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class ViewConfig:
    """The Aerospike namespace that all sites share, as this site reads it.

    hosts: seed nodes as "host:port"; one that answers is enough, it names the others
    namespace: the namespace of the view
    rack: the rack of this site; reads and scans go there while its nodes answer. 0: none, they go wherever a copy is
    require_strong_consistency: where false, an eventually consistent namespace is taken too, and called eventual
    reads: key reads are `local` (relaxed, from this site's rack) or `linearizable` (from the master, wherever it is)
    connect_timeout_s: limit for connecting and verifying, in seconds
    deadline_s: limit for one read or one attempt to write, in seconds
    scan_deadline_s: how long a node waits for the reader of a scan to take more rows, and how long it may search for
        the next row that a condition holds for, in seconds
    ride_through_s: how long writes, and scans that get no further, are tried again while the cluster recovers from a
        lost node, in seconds
    """

    hosts: list[str] = field(default_factory=lambda: ["127.0.0.1:3000"])
    namespace: str = "geotrain"
    rack: int = 0
    require_strong_consistency: bool = True
    reads: str = "local"
    connect_timeout_s: float = 5.0
    deadline_s: float = 10.0
    scan_deadline_s: float = 120.0
    ride_through_s: float = 20.0

    def __post_init__(self) -> None:
        if not self.hosts:
            raise ValueError("view.hosts is empty: name at least one node as host:port")
        self.seeds()
        if self.reads not in ("local", "linearizable"):
            raise ValueError(f"view.reads must be local or linearizable, got {self.reads!r}")
        for name in ("connect_timeout_s", "deadline_s", "scan_deadline_s", "ride_through_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"view.{name} must be more than 0 seconds, got {getattr(self, name)}")

    def seeds(self) -> list[tuple[str, int]]:
        """Returns `hosts` as (host, port)."""
        return [_seed(host) for host in self.hosts]


def _seed(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # IPv6 is written [::1]:3000
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"view.hosts must hold host:port, got {text!r}")
    return host, int(port)
