"""An update as checked chunks: split at the site, spooled to disk at the coordinator. Knows no network."""

import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from geotrain.errors import UpdateRefused


def split(data: bytes, max_bytes: int) -> Iterator[tuple[int, memoryview, int]]:
    """(offset, data, crc32) of each chunk, in order."""
    view = memoryview(data)
    for offset in range(0, len(view), max_bytes):
        chunk = view[offset : offset + max_bytes]
        yield offset, chunk, zlib.crc32(chunk)


class Spool:
    """Receives one update into a file that gets its name only when every byte has been checked.

    path: where the finished update will be. num_bytes, sha256: what the header promised.
    Every method raises UpdateRefused with what did not match; leaving the `with` block unfinished removes the file.
    """

    def __init__(self, path: Path, *, num_bytes: int, sha256: bytes, max_bytes: int) -> None:
        if num_bytes > max_bytes:
            raise UpdateRefused(
                f"the update has {num_bytes} bytes, the coordinator's max_update_bytes is {max_bytes}",
                "Raise max_update_bytes at the coordinator if models of this size are meant.",
            )
        self._path = path
        self._part = path.with_suffix(".part")
        self._num_bytes = num_bytes
        self._expected_sha256 = sha256
        self._sha256 = hashlib.sha256()
        self._received = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def add(self, offset: int, data: bytes, crc32: int) -> None:
        """Take the next chunk."""
        if offset != self._received:
            raise UpdateRefused(f"the chunk starts at byte {offset}, expected {self._received}")
        if offset + len(data) > self._num_bytes:
            raise UpdateRefused(f"the chunk ends after byte {self._num_bytes}, where the header says the update ends")
        if zlib.crc32(data) != crc32:
            raise UpdateRefused(f"the chunk at byte {offset} was damaged on its way (crc32)")
        self._file.write(data)
        self._sha256.update(data)
        self._received += len(data)

    def finish(self) -> Path:
        """The path of the complete update, durably written."""
        if self._received != self._num_bytes:
            raise UpdateRefused(f"the update ended after {self._received} of {self._num_bytes} bytes")
        if self._sha256.digest() != self._expected_sha256:
            raise UpdateRefused("the update was damaged on its way (sha256)")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)
        return self._path
