"""Room for updates on disk, and an update that comes in chunks. Knows no network."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import IO

import xxhash

from geotrain.errors import GeotrainError, UpdateRefused
from geotrain.updates.codec import TensorFile

READ_BYTES = 1 << 20
NUM_CHECKSUM_BYTES = 16
# Of a file that is not whole, that is, and that was given back.
PART, WHOLE, FREE = ".part", ".safetensors", ".free"
SPOOLED = re.compile(r".+-\d+-[0-9a-f]{16}\.(part|safetensors|free)")


def spool_name(site: str, number: int, xxh3: bytes) -> str:
    """The name of a site's update for a round in the spool, by which `clear` knows it."""
    return f"{site}-{number}-{xxh3.hex()[:16]}{WHOLE}"


def clear(folder: Path) -> None:
    """Remove what was spooled under a folder, by whomever, and nothing else that may lie there."""
    for path in folder.glob("*/*"):
        if SPOOLED.fullmatch(path.name):
            with suppress(OSError):  # what can't be removed is said when an update is to take its place
                path.unlink()
    for job in folder.glob("*/"):
        with suppress(OSError):  # it is no job's, or not empty
            job.rmdir()


class DiskFull(GeotrainError):
    """A spool folder that does not take an update. The update is not at fault."""


def reserve(file: IO[bytes], num_bytes: int, path: Path) -> None:
    """Take the room for a file before it is written. Raises DiskFull, so that no one works in vain."""
    try:
        os.posix_fallocate(file.fileno(), 0, max(num_bytes, 1))
    except OSError as error:
        raise disk_full(path, error) from None


def disk_full(path: Path, error: OSError) -> DiskFull:
    return DiskFull(
        f"{path.parent} does not take an update: {error.strerror or error}", "Free room there, or set spool_dir."
    )


def give_back(path: Path) -> None:
    """Let go of a finished spool file. Its room is the next update's: fresh pages of memory for a file cost several
    times what writing to it does."""
    with suppress(FileNotFoundError):
        path.replace(path.with_suffix(FREE))


class Spool:
    """Receives one update into a file that gets its name only when every byte has been checked.

    A broken connection leaves it as it is: `received` says from which byte to go on.
    path: where the finished update will be; part: until then. num_bytes, xxh3: what the header promised.
    max_bytes: largest that is taken.
    """

    def __init__(self, path: Path, *, num_bytes: int, xxh3: bytes, max_bytes: int) -> None:
        """Raises UpdateRefused for a promise that can't be taken, DiskFull where there is no room for it."""
        if num_bytes > max_bytes:
            raise UpdateRefused(
                f"the update has {num_bytes} bytes, the coordinator's max_update_bytes is {max_bytes}",
                "Raise max_update_bytes at the coordinator if models of this size are meant.",
            )
        self.path = path
        self.num_bytes = num_bytes
        self.xxh3 = xxh3
        self.received = 0
        self._hash = xxhash.xxh3_128()
        self.part = path.with_suffix(PART)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open_room()
        except OSError as error:
            raise disk_full(path, error) from None
        try:
            self._file.truncate(num_bytes)
            reserve(self._file, num_bytes, path)
        except DiskFull:
            self.discard()
            raise

    def _open_room(self) -> IO[bytes]:
        """The part: a file that was given back, or a new one."""
        for free in self.part.parent.glob(f"*{FREE}"):
            with suppress(FileNotFoundError):  # another update's by now
                free.replace(self.part)
                break
        return open(os.open(self.part, os.O_CREAT | os.O_WRONLY), "wb", buffering=0)

    def add(self, offset: int, data: bytes | memoryview) -> None:
        """Take the next bytes. Raises UpdateRefused where they are not, DiskFull where they can't be written."""
        if offset != self.received:
            raise UpdateRefused(f"the chunk starts at byte {offset}, expected {self.received}")
        if offset + len(data) > self.num_bytes:
            raise UpdateRefused(f"the chunk ends after byte {self.num_bytes}, where the header says the update ends")
        left, at = memoryview(data), offset
        try:
            while left:
                written = os.pwrite(self._file.fileno(), left, at)
                left, at = left[written:], at + written
        except OSError as error:
            raise disk_full(self.path, error) from None
        self._hash.update(data)
        self.received += len(data)

    @property
    def is_whole(self) -> bool:
        """Whether every byte is here, and is what the header promised."""
        return self.received == self.num_bytes and self._hash.digest() == self.xxh3

    def finish(self) -> None:
        """Give the update its name, and its checksum behind its bytes.

        Not synced to the disk: whoever restarts asks the sites for it again.
        """
        try:
            os.pwrite(self._file.fileno(), self._hash.digest(), self.num_bytes)
            self._file.close()
            self.part.replace(self.path)
        except OSError as error:
            raise disk_full(self.path, error) from None

    def discard(self) -> None:
        """Forget what has come so far."""
        self._file.close()
        self.part.unlink(missing_ok=True)


class SpooledFile(TensorFile):
    """A finished spool file, open for reading. What is read in the order of its bytes is hashed on the way."""

    def __init__(self, path: Path) -> None:
        self._hash = xxhash.xxh3_128()
        self._num_hashed = 0
        super().__init__(path)

    def check_intact(self) -> None:
        """Raise UpdateRefused unless the file is still as it came. Reads what was not read in order before."""
        end = self.num_bytes - NUM_CHECKSUM_BYTES
        rest = memoryview(bytearray(min(READ_BYTES, max(end - self._num_hashed, 0))))
        while self._num_hashed < end:
            self._read_into(self._num_hashed, rest[: end - self._num_hashed])
        digest, found = self._hash.digest(), bytearray(NUM_CHECKSUM_BYTES)
        if self._num_hashed == end:
            self._read_into(end, memoryview(found))
        if found != digest:
            raise UpdateRefused(f"{self.path} was damaged on its disk")

    def _read_into(self, offset: int, into: memoryview) -> None:
        super()._read_into(offset, into)
        if offset == self._num_hashed:
            self._hash.update(into)
            self._num_hashed += len(into)


def checksum(file: IO[bytes], num_bytes: int) -> bytes | None:
    """The checksum of the next bytes of a file; none where there are not so many."""
    found, left = xxhash.xxh3_128(), num_bytes
    while left and (data := file.read(min(left, READ_BYTES))):
        found.update(data)
        left -= len(data)
    return None if left else found.digest()
