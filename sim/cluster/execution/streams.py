"""Replies that take more than one step: the parts in which they are made and sent."""

from typing import NamedTuple

from geotrain.wire.codes import INFO3_LAST, ResultCode
from geotrain.wire.frames import compress
from geotrain.wire.messages import reply_frame

CHUNK_BYTES = 128 * 1024
COMPRESSED_BYTES = 128  # smaller frames travel as they are


class Chunk(NamedTuple):
    """A part of a stream of replies: whole frames, and how long to wait before the next part."""

    frames: bytes
    pause_s: float = 0.0


def last_chunk(code: ResultCode) -> Chunk:
    """The end of a stream."""
    return Chunk(reply_frame(code, info3=INFO3_LAST))


def compressed(frame: bytes) -> bytes:
    """One frame, compressed where that makes it smaller."""
    return min(frame, compress(frame), key=len) if len(frame) > COMPRESSED_BYTES else frame


def compressed_chunk(chunk: Chunk) -> Chunk:
    """A chunk that consists of one frame, compressed."""
    return chunk._replace(frames=compressed(chunk.frames))
