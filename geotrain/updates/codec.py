"""Tensors as one safetensors file, written and read piece by piece: a model need not fit in memory twice.

Read by `pread`, not mapped: the pages of a map count as ours. No pickle: reading runs nobody's code. Knows no network.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, Self

import torch

from geotrain.dtypes import DTYPES, WORDS, bytes_of
from geotrain.errors import UpdateRefused

# As much of a tensor as is read or written at once.
BLOCK_BYTES = 1 << 20
MAX_HEADER_BYTES = 16 << 20

_LENGTH = Struct("<Q")
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor is in the file: its bytes from `begin` on."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_values * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file holds, in the order of its bytes. header: its first bytes; num_bytes: of the whole file."""

    entries: Mapping[str, Entry]
    header: bytes
    num_bytes: int

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Self:
        """The layout of a file of tensors with these names, types and shapes."""
        names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # so that each is aligned
        described, end = {}, 0
        for name in names:
            tensor, begin = tensors[name], end
            end += tensor.numel() * tensor.dtype.itemsize
            word = {"dtype": WORDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
            described[name] = word
        text = json.dumps(described, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        header = _LENGTH.pack(len(text)) + text
        return cls(_entries(described, len(header)), header, len(header) + end)


def write_tensors(
    write: Callable[[bytes | memoryview], object], layout: Layout, tensor_of: Callable[[str], torch.Tensor]
) -> None:
    """Write a file of this layout. tensor_of: asked for each tensor when its turn has come."""
    write(layout.header)
    for name in layout.entries:
        data = bytes_of(tensor_of(name).detach().cpu().contiguous())
        for at in range(0, len(data), BLOCK_BYTES):
            write(data[at : at + BLOCK_BYTES])


class TensorFile:
    """A safetensors file that is open for reading. Raises UpdateRefused where it is none, or ends too early."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        self.num_bytes = os.fstat(self._file.fileno()).st_size
        try:
            self.entries = self._read_entries()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, name: str, start: int, into: torch.Tensor) -> torch.Tensor:
        """Fill a flat tensor of the entry's type with its values from `start` on; returns it."""
        if name not in self.entries:
            raise UpdateRefused(f"{self.path} has no tensor {name}")
        entry = self.entries[name]
        self._read_into(entry.begin + start * entry.dtype.itemsize, bytes_of(into))
        return into

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, whole."""
        entry = self.entries[name]
        return self.read(name, 0, torch.empty(entry.num_values, dtype=entry.dtype)).reshape(entry.shape)

    def blocks(self, name: str) -> Iterator[torch.Tensor]:
        """The values of a tensor, flat, a block after the other. A block is only good until the next one."""
        entry = self.entries[name]
        step = BLOCK_BYTES // entry.dtype.itemsize
        buffer = torch.empty(min(step, entry.num_values), dtype=entry.dtype)
        for start in range(0, entry.num_values, step):
            yield self.read(name, start, buffer[: entry.num_values - start])

    def _read_entries(self) -> dict[str, Entry]:
        prefix = bytearray(_LENGTH.size)
        self._read_into(0, memoryview(prefix))
        (length,) = _LENGTH.unpack(prefix)
        if length > MAX_HEADER_BYTES:
            raise UpdateRefused("the update is not a safetensors file: its header has no believable length")
        text = bytearray(length)
        self._read_into(len(prefix), memoryview(text))
        try:
            described = json.loads(text)
            described.pop("__metadata__", None)
            entries = _entries(described, len(prefix) + length)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UpdateRefused(f"the update is not a safetensors file: its header can't be read ({error})") from None
        if entries and self.num_bytes < max(e.begin + e.num_bytes for e in entries.values()):
            raise UpdateRefused("the update is not a safetensors file: it ends before its tensors do")
        return entries

    def _read_into(self, offset: int, into: memoryview) -> None:
        while into:
            if not (count := os.preadv(self._file.fileno(), [into], offset)):
                raise UpdateRefused(f"the update is not a safetensors file: it ends at byte {offset}")
            into, offset = into[count:], offset + count


def _entries(described: Mapping[str, Any], start: int) -> dict[str, Entry]:
    entries = {}
    for name, word in described.items():
        begin, end = word["data_offsets"]
        entry = Entry(DTYPES[word["dtype"]], tuple(int(size) for size in word["shape"]), start + int(begin))
        if begin < 0 or min(entry.shape, default=0) < 0 or end - begin != entry.num_bytes:
            raise ValueError(f"tensor {name}: its bytes are not its shape's")
        entries[name] = entry
    return entries
