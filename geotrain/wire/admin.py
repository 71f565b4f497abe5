"""The admin protocol: logging in, and proving on every connection that one has. Knows no users."""

import struct
from collections.abc import Mapping
from typing import Final

import bcrypt

from geotrain.wire.codes import ProtocolError
from geotrain.wire.messages import decode_fields, encode_field

HEADER_BYTES = 16
_HEADER = struct.Struct(">BBBB12x")
_SALT = b"$2a$10$7EqJtq98hPqEX7fNZaFWoO"
_MAX_HASHED_BYTES = 72  # bcrypt takes no notice of what comes behind


class Command:
    """What an admin request asks for."""

    AUTHENTICATE: Final = 0
    LOGIN: Final = 20


class AdminField:
    """The type of a field of an admin message."""

    USER: Final = 0
    PASSWORD: Final = 1
    CREDENTIAL: Final = 3
    CLEAR_PASSWORD: Final = 4
    SESSION_TOKEN: Final = 5
    SESSION_TTL: Final = 6


def credential(password: bytes) -> bytes:
    """What is sent in place of a password, so that no server sees it: its bcrypt hash, with the salt of all clients."""
    return bcrypt.hashpw(password[:_MAX_HASHED_BYTES], _SALT)


def encode_request(command: int, fields: Mapping[int, bytes]) -> bytes:
    """The body of an admin request."""
    return _encode(0, command, fields)


def encode_reply(result_code: int, fields: Mapping[int, bytes] | None = None) -> bytes:
    """The body of an admin reply."""
    return _encode(result_code, 0, fields or {})


def decode(body: bytes) -> tuple[int, int, dict[int, bytes]]:
    """Result code (of a reply), command (of a request) and fields by type. Raises ProtocolError."""
    try:
        _, result_code, command, num_fields = _HEADER.unpack_from(body)
        fields, _ = decode_fields(body, HEADER_BYTES, num_fields)
    except struct.error as error:
        raise ProtocolError(f"an admin message is cut short: {error}") from None
    return result_code, command, fields


def _encode(result_code: int, command: int, fields: Mapping[int, bytes]) -> bytes:
    parts = [encode_field(kind, data) for kind, data in fields.items()]
    return b"".join([_HEADER.pack(0, result_code, command, len(fields)), *parts])
