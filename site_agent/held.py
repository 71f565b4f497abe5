"""Updates that wait for their rounds' commits: a file a job, written as tensors come. Knows no training and no call.

A file is the update's safetensors bytes, then its header, then the header's length and CRC-32. XXH3 knows damage, not
malice, and takes a tenth of the time of a copy; links are kept by TLS, and states are named by BLAKE3.
"""

import logging
import os
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
import xxhash
from google.protobuf.message import DecodeError

from geotrain.errors import GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.updates.chunks import checksum, disk_full, reserve
from geotrain.updates.codec import Layout, write_tensors

logger = logging.getLogger(__name__)

TRAILER = struct.Struct("<II")
MAX_HEADER_BYTES = 1 << 20
JOB = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Update:
    """An update in a file: what is said of it, and where its first `header.num_bytes` bytes are."""

    header: pb.UpdateHeader
    path: Path


class HeldUpdates:
    """Keeps a site's updates, one a job, until each is dropped or another of its job takes its place."""

    def __init__(self, folder: Path, site: str) -> None:
        self._folder = folder
        self._site = site
        # By job, the hash of what this process wrote or read whole.
        self._whole: dict[str, bytes] = {}

    def reserve(self, job: str, layout: Layout) -> None:
        """Take the room for an update before it is trained. Raises DiskFull."""
        part = self._path(job).with_suffix(".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with _open(part) as file:
                reserve(file, layout.num_bytes + MAX_HEADER_BYTES, part)
        except OSError as error:
            raise disk_full(part, error) from None

    def write(self, header: pb.UpdateHeader, layout: Layout, tensor_of: Callable[[str], torch.Tensor]) -> Update:
        """Keep an update. header: all but its size and hash. tensor_of: asked for each tensor when its turn has come.

        Not synced to the disk: a killed process loses nothing, and what a power cut spoils is known by its checksums.
        Raises DiskFull.
        """
        path = self._path(header.job)
        part, digest = path.with_suffix(".part"), xxhash.xxh3_128()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with _open(part) as file:

                def write(data: bytes | memoryview) -> None:
                    digest.update(data)
                    file.write(data)

                write_tensors(write, layout, tensor_of)
                said = pb.UpdateHeader(num_bytes=layout.num_bytes, xxh3=digest.digest())
                said.MergeFrom(header)
                encoded = said.SerializeToString(deterministic=True)
                file.write(encoded + TRAILER.pack(len(encoded), zlib.crc32(encoded)))
                file.truncate()
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise disk_full(path, error) from None
        self._whole[header.job] = said.xxh3
        return Update(said, path)

    def of(self, job: str) -> Update | None:
        """The job's update; None where there is none. A damaged one is dropped, and said so: it is trained again."""
        path = self._path(job)
        if not path.exists():
            return None
        header = _read_header(path)
        if header and header.job == job and self._whole.get(job) != header.xxh3 and is_whole(Update(header, path)):
            self._whole[job] = header.xxh3
        if header is None or self._whole.get(job) != header.xxh3:
            logger.error("%s is damaged: the update in it is lost, and will be trained again", path)
            self.drop(job)
            return None
        return Update(header, path)

    def release(self, job: str) -> None:
        """Let go of an update that is counted. Its room is kept for the job's next: fresh pages of memory for a file
        cost several times what writing to it does."""
        self._whole.pop(job, None)
        path = self._path(job)
        path.replace(path.with_suffix(".part"))

    def drop(self, job: str) -> None:
        """Let go of an update and of its room."""
        self._whole.pop(job, None)
        for path in (self._path(job), self._path(job).with_suffix(".part")):
            path.unlink(missing_ok=True)

    def jobs(self) -> list[str]:
        """The jobs of which an update is here, or the room for one."""
        paths = [path for suffix in (".update", ".part") for path in self._folder.glob(f"{self._site}@*{suffix}")]
        return sorted({path.stem.partition("@")[2] for path in paths})

    def _path(self, job: str) -> Path:
        if not JOB.fullmatch(job):
            raise GeotrainError(f"{job!r} is not a name for a job", "Launch it with a coordinator of this version.")
        return self._folder / f"{self._site}@{job}.update"


def _open(part: Path) -> IO[bytes]:
    """Open for writing, over what is there."""
    return open(os.open(part, os.O_CREAT | os.O_WRONLY), "wb", buffering=0)


def is_whole(update: Update) -> bool:
    """Whether the file still holds what its header says."""
    with update.path.open("rb", buffering=0) as file:
        return checksum(file, update.header.num_bytes) == update.header.xxh3


def _read_header(path: Path) -> pb.UpdateHeader | None:
    """The header behind the update; None where it is damaged."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < TRAILER.size:
            return None
        length, crc32 = TRAILER.unpack(os.pread(file.fileno(), TRAILER.size, size - TRAILER.size))
        start = size - TRAILER.size - length
        if start < 0 or length > MAX_HEADER_BYTES:
            return None
        encoded = os.pread(file.fileno(), length, start)
    if zlib.crc32(encoded) != crc32:
        return None
    try:
        header = pb.UpdateHeader.FromString(encoded)
    except DecodeError:  # of another version
        return None
    return header if header.num_bytes == start else None
