"""Replies that take more than one step: the parts in which they are made and sent."""

from typing import NamedTuple

from geotrain.wire.codes import INFO3_LAST, ResultCode
from geotrain.wire.messages import reply_frame

CHUNK_BYTES = 128 * 1024


class Chunk(NamedTuple):
    """A part of a stream of replies: whole frames, and how long to wait before the next part."""

    frames: bytes
    pause_s: float = 0.0


def last_chunk(code: ResultCode) -> Chunk:
    """The end of a stream."""
    return Chunk(reply_frame(code, info3=INFO3_LAST))
