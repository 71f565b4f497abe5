"""Tensors on this machine's disk, named by their content and mapped into memory: what a reader need not fetch again.

Knows no view. Processes may share a folder: files are written aside and renamed, and none is ever changed.
"""

import logging
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import torch

from geotrain.dtypes import DTYPES
from geotrain.errors import ConfigError
from geotrain.states.manifest import Bytes, DamagedManifest, Manifest, TensorEntry, head_key, part_name

logger = logging.getLogger(__name__)

# A file that is being written; what a killed process left of one is removed after so long.
ASIDE = ".part"
ABANDONED_S = 3600.0


class StateCache:
    """A folder of tensors, and of the last good state of each scope.

    A file holds a tensor's bytes, then the length of each of its parts. It is verified when it is opened; a damaged one
    is removed, and said so. max_bytes: beyond it the tensors that were not used for longest go, but none of a state
    that is being kept; what is mapped stays readable all the same.
    """

    def __init__(self, folder: Path | str, max_bytes: int = 16 * 2**30) -> None:
        self._max_bytes = max_bytes
        self._tensors = Path(folder) / "tensors"
        self._states = Path(folder) / "states"
        try:
            self._tensors.mkdir(parents=True, exist_ok=True)
            self._states.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the cache folder {folder} can't be made: {error.strerror}", "name a folder that can be written to"
            ) from error

    def tensor(self, entry: TensorEntry) -> torch.Tensor | None:
        """Returns the tensor of an entry; None where it is not here, or is damaged. Writing to it changes no file."""
        path = self._path(entry)
        try:
            data, lengths = _open(path, entry)
            for name, part in zip(entry.parts, _slices(data, lengths), strict=True):
                if part_name(part) != name:
                    raise ValueError("its bytes are not those that were written")
            os.utime(path)
            return _as_tensor(data, entry)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _remove_damaged(path, error)
            return None

    def write(self, entry: TensorEntry, parts: Iterable[Bytes]) -> torch.Tensor:
        """Keeps the tensor of an entry, and returns it. parts: in the entry's order, verified. Raises OSError."""
        path = self._path(entry)
        with _replacing(path) as file:
            lengths = [file.write(part) for part in parts]
            file.write(struct.pack(f"<{len(lengths)}I", *lengths))
        return _as_tensor(_open(path, entry)[0], entry)

    def parts(self, entries: Iterable[TensorEntry]) -> dict[str, memoryview]:
        """Returns the parts of those of the tensors that are here, by name, but for damaged ones."""
        found: dict[str, memoryview] = {}
        for entry in entries:
            with suppress(OSError, ValueError):
                for name, part in zip(entry.parts, _slices(*_open(self._path(entry), entry)), strict=True):
                    if part_name(part) == name:
                        found[name] = part
        return found

    def keep(self, manifest: Manifest, scope: str, alias: str) -> None:
        """Notes the state as the last good one of who asks for this scope and alias, and makes room. Raises OSError."""
        with _replacing(self._state_path(manifest.model, scope, alias)) as file:
            file.write(manifest.to_bytes())
        self._make_room({self._path(entry) for entry in manifest.tensors.values()})

    def confirm(self, model: str, scope: str, alias: str) -> None:
        """Notes that the last good state is the newest at this moment."""
        with suppress(OSError):
            os.utime(self._state_path(model, scope, alias))

    def last_good(self, model: str, scope: str, alias: str) -> tuple[Manifest, float] | None:
        """Returns the last good state, and when it was last known to be the newest, in seconds since the Unix epoch."""
        path = self._state_path(model, scope, alias)
        try:
            return Manifest.from_bytes(path.read_bytes()), path.stat().st_mtime
        except FileNotFoundError:
            return None
        except (OSError, DamagedManifest) as error:
            _remove_damaged(path, error)
            return None

    def _path(self, entry: TensorEntry) -> Path:
        return self._tensors / sha256("".join(entry.parts).encode()).hexdigest()

    def _state_path(self, model: str, scope: str, alias: str) -> Path:
        return self._states / quote(f"{head_key(model, scope)}@{alias}", safe="@")

    def _make_room(self, kept: Collection[Path]) -> None:
        files = sorted(_files(self._tensors), key=lambda file: file[1].st_mtime)
        excess = sum(stat.st_size for _, stat in files) - self._max_bytes
        for path, stat in files:
            if path.suffix == ASIDE:
                is_needless = time.time() - stat.st_mtime > ABANDONED_S
            else:
                is_needless = excess > 0 and path not in kept
            if is_needless:
                path.unlink(missing_ok=True)
                excess -= stat.st_size
        if excess > 0:
            logger.warning("the cache %s is %d bytes over its limit: one state needs them", self._tensors, excess)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file, which takes its place at the path when it is complete."""
    descriptor, aside = tempfile.mkstemp(dir=path.parent, suffix=ASIDE)
    try:
        with open(descriptor, "wb") as file:
            yield file
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def _open(path: Path, entry: TensorEntry) -> tuple[mmap.mmap | bytes, Sequence[int]]:
    """The file in memory, private to who maps it, and the lengths of the parts. Raises OSError, ValueError."""
    num_bytes = entry.num_bytes
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if entry.parts else b""
    if len(data) != num_bytes + 4 * len(entry.parts):
        raise ValueError("it has another size than what was written")
    lengths = struct.unpack_from(f"<{len(entry.parts)}I", data, num_bytes)
    if sum(lengths) != num_bytes:
        raise ValueError("its parts have other lengths than what was written")
    return data, lengths


def _slices(data: mmap.mmap | bytes, lengths: Sequence[int]) -> list[memoryview]:
    ends = list(accumulate(lengths))
    return [memoryview(data)[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _as_tensor(data: mmap.mmap | bytes, entry: TensorEntry) -> torch.Tensor:
    num_bytes = entry.num_bytes
    if not num_bytes:
        return torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    return torch.frombuffer(data, dtype=DTYPES[entry.dtype], count=prod(entry.shape)).reshape(entry.shape)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a folder that are still there when it is their turn."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            yield path, path.stat()


def _remove_damaged(path: Path, why: Exception) -> None:
    logger.warning("the cache file %s is damaged (%s): it is removed, and fetched again", path, why)
    with suppress(OSError):
        path.unlink()
