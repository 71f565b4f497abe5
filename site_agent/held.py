"""The one update that waits for its round's commit, in a file of the agent's own. Knows no training and no call."""

import hashlib
import logging
import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from geotrain.rpc import coordinator_pb2 as pb

logger = logging.getLogger(__name__)

# Length and CRC-32 of the header that follows; its own length and SHA-256 guard the data behind it.
PREFIX = struct.Struct("<II")


@dataclass(slots=True)
class Update:
    """Tensors to be uploaded, as one safetensors file, and what is said of them."""

    header: pb.UpdateHeader
    data: bytes


class HeldUpdate:
    """Keeps an update across restarts, until it is dropped or another takes its place."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, update: Update) -> None:
        """Write the update. Where the disk does not take it, it is sent all the same, and only not kept."""
        header = update.header.SerializeToString(deterministic=True)
        part = self._path.with_suffix(".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(PREFIX.pack(len(header), zlib.crc32(header)) + header)
                file.write(update.data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            logger.error("the update of round %d can't be kept: %s", update.header.round, error)
            with suppress(OSError):
                part.unlink()

    def of(self, job: str) -> Update | None:
        """The job's update; None where there is none. A damaged one is dropped, and said so: it is trained again."""
        if not self._path.exists():
            return None
        update = _decode(self._path.read_bytes())
        if update is None:
            logger.error("%s is damaged: the update in it is lost, and will be trained again", self._path)
            self.drop()
        return update if update and update.header.job == job else None

    def drop(self) -> None:
        self._path.unlink(missing_ok=True)


def _decode(data: bytes) -> Update | None:
    if len(data) < PREFIX.size:
        return None
    length, crc32 = PREFIX.unpack_from(data)
    encoded, body = data[PREFIX.size : PREFIX.size + length], data[PREFIX.size + length :]
    if zlib.crc32(encoded) != crc32:
        return None
    try:
        header = pb.UpdateHeader.FromString(encoded)
    except DecodeError:  # of another version
        return None
    whole = len(body) == header.num_bytes and hashlib.sha256(body).digest() == header.sha256
    return Update(header, body) if whole else None
