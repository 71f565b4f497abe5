"""Links to the nodes of the cluster: in clear or over TLS, logged in where a user is given, and what a node answers.

Every call has a deadline. Knows no records, and of the cluster no more than the address that it is given.
"""

import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from geotrain import certificates
from geotrain.errors import ConfigError
from geotrain.view.config import ViewConfig, ViewTlsConfig
from geotrain.view.refusals import reason
from geotrain.wire import admin
from geotrain.wire.admin import AdminField, Command
from geotrain.wire.codes import ProtocolError, ResultCode
from geotrain.wire.frames import ADMIN, INFO, Frame, FrameReader, encode_frame
from geotrain.wire.info import decode_reply, encode_request

Address = tuple[str, int, str]  # host, port, and what its certificate is for

READ_BYTES = 1 << 16
# A machine that is there takes a connection in a round trip, however busy its programs are; it is asked again at 1 s.
CONNECT_DEADLINE_S = 3.0
HUNG_UP = (
    "it hung up before it had answered",
    "look at its log; if it speaks TLS, set view.tls.ca; if it asks for a certificate, view.tls.cert",
)
ASKS_WHO = f"ERROR:{ResultCode.NOT_AUTHENTICATED:d}"

_tokens: dict[tuple[str, Address], bytes] = {}
"""By user and node: what proves that this process has logged in there, until the node takes it no more."""


_addresses: dict[tuple[str, int], list[str]] = {}
"""By host and port: what it was when it was connected to. Resolvers can be slower than the nodes, or away."""


class LinkRefused(ConnectionError):
    """A node that does not take this program, or that this program does not take. remedy: what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


class Links:
    """Opens connections to nodes, as the configuration says. Raises ConfigError for files that don't serve.

    peers: what a node is asked for the addresses at which the others are reached as it is.
    """

    def __init__(self, config: ViewConfig) -> None:
        self._user = config.user
        self._password_file = config.password_file
        self._tls = _context(config.tls) if config.tls.ca else None
        self.peers = "peers-tls-std" if config.tls.ca else "peers-clear-std"

    def open(self, address: Address, timeout_s: float) -> socket.socket:
        """Returns a connection that may be used at once; TLS and login are part of the time. Raises OSError."""
        host, port, name = address
        end_s = time.monotonic() + timeout_s
        connection = _connected(host, port, end_s)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with _explained(name or host):
                if self._tls:
                    connection = _secured(self._tls, connection, name or host, end_s)
                if self._user:
                    self._log_in(connection, address, end_s)
        except BaseException:
            connection.close()
            raise
        return connection

    def ask(self, address: Address, names: Sequence[str], timeout_s: float) -> dict[str, str]:
        """Returns a node's answers by name. Raises OSError, ProtocolError."""
        end_s = time.monotonic() + timeout_s
        with self.open(address, timeout_s) as connection, _explained(address[2]):
            answers = dict(decode_reply(_exchange(connection, INFO, encode_request(names), end_s).body))
        if any(answer.startswith(ASKS_WHO) for answer in answers.values()):
            raise LinkRefused(*reason(ResultCode.NOT_AUTHENTICATED))
        if missing := [name for name in names if name not in answers]:
            raise ProtocolError(f"it did not answer {', '.join(missing)}")
        return answers

    def _log_in(self, connection: socket.socket, address: Address, end_s: float) -> None:
        """Proves that one has logged in at this node, or does it. A session that has ended is followed by another."""
        user = {AdminField.USER: self._user.encode()}
        if token := _tokens.get((self._user, address)):
            code, _ = _command(connection, Command.AUTHENTICATE, user | {AdminField.SESSION_TOKEN: token}, end_s)
            if code == ResultCode.OK:
                return
        credential = admin.credential(read_password(self._password_file).encode())
        code, fields = _command(connection, Command.LOGIN, user | {AdminField.CREDENTIAL: credential}, end_s)
        if code == ResultCode.OK and AdminField.SESSION_TOKEN in fields:
            _tokens[self._user, address] = fields[AdminField.SESSION_TOKEN]
        elif code != ResultCode.SECURITY_NOT_ENABLED:
            why, remedy = reason(code, f"code {code}")
            raise LinkRefused(f"it does not let user {self._user} in: {why}", remedy)


def read_password(path: str) -> str:
    """Returns the password in `view.password_file`. Raises ConfigError."""
    try:
        password = certificates.read("view.password_file", path).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        password = ""
    if not password:
        raise ConfigError(f"view.password_file: {path} holds no password", "write it there, as one line of UTF-8")
    return password


def _context(config: ViewTlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certificates.trust(context, "view.tls.ca", config.ca)
    if config.cert:
        certificates.show(context, "view.tls.cert", config.cert, "view.tls.key", config.key)
    return context


def _connected(host: str, port: int, end_s: float) -> socket.socket:
    """A connection to the first of the host's addresses that takes one, of those that it had before. Raises OSError."""
    if known := _addresses.get((host, port)):
        try:
            return _first(known, port, end_s)
        except OSError:
            del _addresses[host, port]  # a name may have moved
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    connection = _first(addresses, port, end_s)
    _addresses[host, port] = addresses
    return connection


def _first(addresses: Sequence[str], port: int, end_s: float) -> socket.socket:
    failed: OSError = TimeoutError("timed out")
    for address in addresses:
        if time.monotonic() >= end_s:
            break
        try:
            return socket.create_connection((address, port), min(_left_s(end_s), CONNECT_DEADLINE_S))
        except OSError as error:
            failed = error
    raise failed


def _secured(tls: ssl.SSLContext, connection: socket.socket, name: str, end_s: float) -> socket.socket:
    connection.settimeout(_left_s(end_s))
    try:
        return tls.wrap_socket(connection, server_hostname=name)
    except TimeoutError:
        raise TimeoutError("its TLS handshake takes too long") from None
    except (ssl.SSLEOFError, ConnectionError):
        raise LinkRefused(
            "it breaks the TLS handshake off", "name the port of its TLS service in view.hosts, or leave view.tls empty"
        ) from None


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Has errors say what is wrong, and what to do. name: what the node's certificate should be for."""
    try:
        yield
    except LinkRefused:
        raise
    except (ConnectionError, ssl.SSLEOFError):
        raise LinkRefused(*HUNG_UP) from None
    except ssl.SSLCertVerificationError as error:
        if "mismatch" in error.verify_message:
            what, remedy = f"its certificate is not for {name}", "set view.tls.name to what it is for"
        else:
            what = f"its certificate does not hold before view.tls.ca: {error.verify_message}"
            remedy = "name in view.tls.ca the authority that has signed it"
        raise LinkRefused(what, remedy) from None
    except ssl.SSLError as error:
        raise LinkRefused(
            f"TLS with it fails: {error.reason or error}",
            "look whether it wants a certificate, and whether it takes view.tls.cert",
        ) from None


def _command(
    connection: socket.socket, command: int, fields: Mapping[int, bytes], end_s: float
) -> tuple[int, dict[int, bytes]]:
    """Result code and fields of the answer to an admin request. Raises OSError."""
    frame = _exchange(connection, ADMIN, admin.encode_request(command, fields), end_s)
    try:
        code, _, answer = admin.decode(frame.body)
    except ProtocolError as error:
        raise ConnectionError(f"it answers a login with what can't be read: {error}") from None
    return code, answer


def _exchange(connection: socket.socket, kind: int, body: bytes, end_s: float) -> Frame:
    """Sends a request. Returns its answer, a single frame. Raises OSError."""
    connection.settimeout(_left_s(end_s))
    connection.sendall(encode_frame(kind, body))
    reader = FrameReader()
    frames: list[Frame] = []
    while not frames:
        connection.settimeout(_left_s(end_s))
        data = connection.recv(READ_BYTES)
        if not data:
            raise LinkRefused(*HUNG_UP)
        try:
            frames = reader.feed(data)
        except ProtocolError as error:
            raise LinkRefused(
                f"it answers in another protocol: {error}", "set view.tls.ca if it speaks TLS; else correct view.hosts"
            ) from None
    return frames[0]


def _left_s(end_s: float) -> float:
    return max(0.001, end_s - time.monotonic())
