"""Mutual TLS of the gRPC links: who is who by the name in its certificate. Knows no message and no call.

A certificate names its holder as a DNS name (subjectAltName): `coordinator.geotrain`, `operator.geotrain` (who launches
and controls jobs), `ewr.sites.geotrain`. These are roles, not hosts: where a coordinator is dialled may change.
"""

import ssl
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import grpc

from geotrain.certificates import SEE, read, show, trust
from geotrain.errors import ConfigError

COORDINATOR = "coordinator.geotrain"
OPERATOR = "operator.geotrain"

# More turns than any handshake takes.
MAX_TURNS = 10


def site_name(site: str) -> str:
    """Returns what the certificate of a site's agent names."""
    return f"{site}.sites.geotrain"


@dataclass(slots=True, kw_only=True)
class TlsConfig:
    """Mutual TLS between coordinators, agents and who launches jobs: all three files, or none of them for plaintext.

    ca: file with the certificates (PEM) of the authority that the other end's is to be signed by.
    cert: file with the own certificate, and those between it and the other end's authority.
    key: file with the own certificate's private key, not encrypted.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        missing = [f"tls.{field.name}" for field in fields(self) if not getattr(self, field.name)]
        if 0 < len(missing) < len(fields(self)):
            raise ValueError(f"tls.ca, tls.cert and tls.key belong together, {' and '.join(missing)} is not given")

    @classmethod
    def in_folder(cls, folder: str) -> Self:
        """The files ca.pem, cert.pem and key.pem of a folder; without one, plaintext."""
        return cls(**{field.name: str(Path(folder, f"{field.name}.pem")) for field in fields(cls)}) if folder else cls()


@dataclass(frozen=True, slots=True)
class Identity:
    """What a program shows of itself, and by whom the other end's certificate is to be signed; all in PEM."""

    ca: bytes
    cert: bytes
    key: bytes

    def to_dial(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)

    def to_listen(self) -> grpc.ServerCredentials:
        return grpc.ssl_server_credentials([(self.key, self.cert)], self.ca, require_client_auth=True)


def load(config: TlsConfig, name: str) -> Identity | None:
    """Read the files of who goes by this name; None where the configuration has none.

    Raises ConfigError for files that can't be read, and for a certificate that the other end would not take.
    """
    if not config.ca:
        return None
    found = Identity(*(read(f"tls.{field.name}", getattr(config, field.name)) for field in fields(config)))
    names = _names_as_seen(config, is_server=name == COORDINATOR)
    if name not in names:
        raise ConfigError(f"tls.cert: {config.cert} is for {_listed(names)}, not for {name}", SEE)
    return found


def described(config: TlsConfig) -> str:
    """Returns a line to be said at the start."""
    if config.ca:
        return f"gRPC is mutual TLS, with {config.cert}"
    return "gRPC is plaintext: whoever reaches it can read it, and join; tls.ca, tls.cert and tls.key secure it"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a call. names: of its certificate; None over plaintext, where it may be anyone."""

    names: frozenset[str] | None

    @classmethod
    def of(cls, context: grpc.aio.ServicerContext) -> Self:
        about = context.auth_context()
        if about.get("transport_security_type") != [b"ssl"]:
            return cls(None)
        return cls(frozenset(name.decode() for name in about.get("x509_subject_alternative_name", ())))

    def refusal(self, name: str) -> str:
        """Returns why it is not who goes by this name; nothing where it is, or may be."""
        if self.names is None or name in self.names:
            return ""
        return f"the caller's certificate is for {_listed(self.names)}, not for {name}"


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "no DNS name"


def _names_as_seen(config: TlsConfig, *, is_server: bool) -> frozenset[str]:
    """The DNS names of the own certificate, judged as the other end will judge it: in a handshake with ourselves."""
    here, there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    there.check_hostname, there.verify_mode = False, ssl.CERT_NONE
    judge = there if is_server else here
    judge.verify_mode = ssl.CERT_REQUIRED
    trust(judge, "tls.ca", config.ca)
    for context in (here, there):
        show(context, "tls.cert", config.cert, "tls.key", config.key)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = here.wrap_bio(up, down, server_side=True)
    client = there.wrap_bio(down, up)
    try:
        for _ in range(MAX_TURNS):
            _go_on(client)
            _go_on(server)
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"tls.cert: {config.cert} does not hold before tls.ca: {error.verify_message}", SEE) from None
    except ssl.SSLError as error:
        raise ConfigError(f"tls.cert: {config.cert} can't be used: {error.reason}", SEE) from None
    seen = (client if is_server else server).getpeercert() or {}
    return frozenset(str(pair[1]) for pair in seen.get("subjectAltName", ()) if pair[0] == "DNS")


def _go_on(end: ssl.SSLObject) -> None:
    with suppress(ssl.SSLWantReadError):
        end.do_handshake()
