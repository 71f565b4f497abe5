"""Frames: the 8-byte envelope around every message, and cutting a byte stream into them. Knows nothing of contents."""

import struct
import zlib
from io import BytesIO
from typing import NamedTuple

from geotrain.wire.codes import ProtocolError

INFO = 1
ADMIN = 2
MESSAGE = 3
COMPRESSED = 4

HEADER_BYTES = 8
MAX_BODY_BYTES = 128 * 1024 * 1024
VERSION = 2

_TYPE_SHIFT = 48
_SIZE_MASK = (1 << _TYPE_SHIFT) - 1
_HEADER = struct.Struct(">Q")
_pack_header = _HEADER.pack
_PREFIX = {kind: VERSION << 56 | kind << _TYPE_SHIFT for kind in (INFO, ADMIN, MESSAGE, COMPRESSED)}


class Frame(NamedTuple):
    """A frame's type (INFO, ADMIN, MESSAGE or COMPRESSED) and what it carries."""

    kind: int
    body: bytes


def encode_frame(kind: int, body: bytes) -> bytes:
    """A whole frame around `body`."""
    return _pack_header(_PREFIX[kind] | len(body)) + body


def frame_header(kind: int, num_bytes: int) -> bytes:
    """The 8 bytes that go before a body of `num_bytes`."""
    return _pack_header(_PREFIX[kind] | num_bytes)


class FrameReader:
    """Cuts a byte stream into frames, keeping at most the beginning of one unfinished frame."""

    def __init__(self) -> None:
        self._pending = BytesIO()
        self._needed = HEADER_BYTES

    @property
    def num_pending_bytes(self) -> int:
        """How much has come of a frame that is not whole."""
        return self._pending.tell()

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes as they arrive and return the frames that they complete. Raises ProtocolError."""
        if self._pending.tell():
            self._pending.write(data)
            if self._pending.tell() < self._needed:
                return []
            data = self._pending.getvalue()
        frames = []
        at, size = 0, len(data)
        self._needed = HEADER_BYTES
        while size - at >= HEADER_BYTES:
            kind, num_bytes = parse_header(data, at)
            end = at + HEADER_BYTES + num_bytes
            if end > size:
                self._needed = end - at
                break
            frames.append(Frame(kind, data[at + HEADER_BYTES : end]))
            at = end
        self._pending = BytesIO()
        self._pending.write(memoryview(data)[at:])
        return frames


def parse_header(data: bytes, at: int = 0) -> tuple[int, int]:
    """The type of the frame that starts at `at`, and the size of its body. Raises ProtocolError."""
    (header,) = _HEADER.unpack_from(data, at)
    kind, num_bytes = header >> _TYPE_SHIFT & 0xFF, header & _SIZE_MASK
    if header >> 56 != VERSION or kind not in _PREFIX or num_bytes > MAX_BODY_BYTES:
        raise ProtocolError(f"not a frame header: {data[at : at + HEADER_BYTES].hex()}")
    return kind, num_bytes


def compress(frame: bytes) -> bytes:
    """A COMPRESSED frame that carries `frame`, its header included."""
    return encode_frame(COMPRESSED, len(frame).to_bytes(8, "big") + zlib.compress(frame))


def decompress(body: bytes) -> Frame:
    """The frame inside the body of a COMPRESSED one. Raises ProtocolError."""
    num_bytes = int.from_bytes(body[:8], "big")
    if not HEADER_BYTES <= num_bytes <= MAX_BODY_BYTES + HEADER_BYTES:
        raise ProtocolError(f"a compressed frame announces {num_bytes} bytes")
    try:
        content = zlib.decompressobj().decompress(body[8:], num_bytes)
    except zlib.error as error:
        raise ProtocolError(f"a compressed frame does not inflate: {error}") from None
    kind, size = parse_header(content.ljust(HEADER_BYTES, b"\0"))
    if len(content) != num_bytes or size != num_bytes - HEADER_BYTES:
        raise ProtocolError(f"a compressed frame announces {num_bytes} bytes and carries {len(content)}")
    return Frame(kind, content[HEADER_BYTES:])
