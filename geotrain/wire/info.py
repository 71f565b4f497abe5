"""The info protocol: names asked, values answered, all as text. Knows the grammar, not the names."""

import re
from collections.abc import Iterable, Mapping, Sequence

from geotrain.wire.codes import ProtocolError

_PEERS = re.compile(r"\d+,(\d*),\[(.*)\]")
_PEER = re.compile(r"\[([^,\[\]]+),([^,\[\]]*),\[((?:\[[^\[\]]*\]|[^\[\]])*)\]\],?")  # node, TLS name, addresses
_ADDRESS = re.compile(r"(?:\[([^\[\]]+)\]|([^,:\[\]]+))(?::(\d+))?,?")  # an IPv6 host stands in brackets


def encode_request(names: Iterable[str]) -> bytes:
    """The body of a request for these names, each with its parameters: `sets/test`, `racks:`, ..."""
    return "".join(f"{name}\n" for name in names).encode()


def decode_request(body: bytes) -> list[str]:
    """The names that a request asks for. Raises ProtocolError."""
    return [line for line in _text(body).split("\n") if line]


def encode_reply(answers: Iterable[tuple[str, str]]) -> bytes:
    """The body of a reply: each name as it was asked, and its value."""
    return "".join(f"{name}\t{value}\n" for name, value in answers).encode()


def decode_reply(body: bytes) -> list[tuple[str, str]]:
    """Name and value of each line of a reply, in order. Raises ProtocolError."""
    answers = []
    for line in _text(body).rstrip("\n").split("\n"):
        name, separator, value = line.partition("\t")
        if line and not separator:
            raise ProtocolError(f"a line of an info reply has no value: {line[:80]!r}")
        answers.append((name, value))
    return answers


def decode_parameters(text: str) -> dict[str, str]:
    """`namespace=test;set=demo` as a mapping. A part without `=` gets an empty value."""
    pairs = (part.partition("=") for part in text.split(";") if part)
    return {name: value for name, _, value in pairs}


def decode_entries(text: str) -> list[dict[str, str]]:
    """`ns=test:set=demo:objects=1;ns=test:...;` as a mapping for each entry."""
    return [decode_parameters(entry.replace(":", ";")) for entry in text.split(";") if entry]


def encode_parameters(values: Mapping[str, object], separator: str = ";") -> str:
    """A mapping as `name=value;name=value`; truth values as servers write them."""
    return separator.join(f"{name}={_word(value)}" for name, value in values.items())


def encode_peers(generation: int, default_port: int, peers: Sequence[tuple[str, str, int]], tls_name: str = "") -> str:
    """The answer to `peers-clear-std` or `peers-tls-std`: (node id, host, port) of every other node."""
    entries = (f"[{node},{tls_name},[{host}:{port}]]" for node, host, port in peers)
    return f"{generation},{default_port},[{','.join(entries)}]"


def decode_peers(text: str) -> dict[str, list[tuple[str, int, str]]]:
    """By node id, where every other node can be reached: (host, port, TLS name). Raises ProtocolError."""
    match = _PEERS.fullmatch(text)
    if match is None or _PEER.sub("", match[2]):
        raise ProtocolError(f"not a list of peers: {text[:80]!r}")
    peers = {}
    for node, tls_name, addresses in _PEER.findall(match[2]):
        found = _ADDRESS.findall(addresses)
        if not found or _ADDRESS.sub("", addresses) or not all(port or match[1] for *_, port in found):
            raise ProtocolError(f"not the addresses of a peer: {addresses[:80]!r}")
        peers[node] = [(ipv6 or host, int(port or match[1]), tls_name) for ipv6, host, port in found]
    return peers


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"info text is not UTF-8: {error}") from None
