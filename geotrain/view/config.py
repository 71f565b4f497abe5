"""How a program reaches the view. Knows nothing about what is read from it."""

import math
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class ViewTlsConfig:
    """TLS to the nodes of the cluster: `ca` for it, `cert` and `key` besides where they ask for a certificate too.

    ca: file with the certificates (PEM) of the authority that the nodes' are to be signed by; none for plaintext
    cert: file with the own certificate, and those between it and the authority that the nodes trust
    key: file with the own certificate's private key, not encrypted
    name: what the certificate of each of `view.hosts` is for; none where that is the host, as it stands there
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        _check_name("view.tls.name", self.name)
        if bool(self.cert) != bool(self.key):
            raise ValueError(
                "view.tls.cert and view.tls.key belong together,"
                f" view.tls.{'key' if self.cert else 'cert'} is not given"
            )
        if not self.ca and (given := [name for name in ("cert", "name") if getattr(self, name)]):
            raise ValueError(f"view.tls.{given[0]} is given without view.tls.ca, which is what turns TLS on")


@dataclass(slots=True, kw_only=True)
class ViewConfig:
    """The Aerospike namespace that all sites share, as this site reads it.

    hosts: seed nodes as "host:port"; one that answers is enough, it names the others
    namespace: the namespace of the view
    rack: the rack of this site; reads and scans go there while its nodes answer. 0: none, they go wherever a copy is
    require_strong_consistency: where false, an eventually consistent namespace is taken too, and called eventual
    tls: TLS to its nodes
    user: as whom to log in at its nodes, with the cluster's own (internal) passwords; none where it asks for no login
    password_file: file with that user's password, and nothing else
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
    tls: ViewTlsConfig = field(default_factory=ViewTlsConfig)
    user: str = ""
    password_file: str = ""
    reads: str = "local"
    connect_timeout_s: float = 5.0
    deadline_s: float = 10.0
    scan_deadline_s: float = 120.0
    ride_through_s: float = 20.0

    def __post_init__(self) -> None:
        if not self.hosts:
            raise ValueError("view.hosts is empty: name at least one node as host:port")
        self.seeds()
        if bool(self.user) != bool(self.password_file):
            missing = "password_file" if self.user else "user"
            raise ValueError(f"view.user and view.password_file belong together, view.{missing} is not given")
        if self.reads not in ("local", "linearizable"):
            raise ValueError(f"view.reads must be local or linearizable, got {self.reads!r}")
        for name in ("connect_timeout_s", "deadline_s", "scan_deadline_s", "ride_through_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"view.{name} must be over 0 seconds and finite, got {getattr(self, name)}")

    def seeds(self) -> list[tuple[str, int, str]]:
        """Returns `hosts` as (host, port, what its certificate is for)."""
        return [(host, port, self.tls.name or host) for host, port in map(_seed, self.hosts)]


def _seed(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # IPv6 is written [::1]:3000
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"view.hosts must hold host:port, got {text!r}")
    _check_name("view.hosts", host)
    return host, int(port)


def _check_name(field_name: str, name: str) -> None:
    try:
        name.encode("idna")
    except UnicodeError:
        raise ValueError(f"{field_name}: {name!r} can't be the name of a host") from None
