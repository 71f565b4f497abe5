"""Tensors to bytes in parts, and back. Knows no store."""

from collections.abc import Iterable, Iterator

import torch

from geotrain.dtypes import DTYPES, WORDS, bytes_of
from geotrain.errors import DataError
from geotrain.states.manifest import Bytes, TensorEntry

# The server is at its best with records up to 128 KiB; half of its default limit costs fewer trips over the ocean.
MAX_PART_BYTES = 512 * 1024
# Small parts go many to a trip; a large one goes alone, which costs both ends less than two together.
PARTS_PER_TRIP = 64


def split(name: str, tensor: torch.Tensor, part_bytes: int) -> tuple[TensorEntry, list[memoryview]]:
    """Returns the tensor's entry, without its parts' names, and their bytes in place, at most part_bytes each."""
    if not isinstance(tensor, torch.Tensor):
        raise DataError(f"tensor {name} is of {type(tensor).__name__}", "make a torch.Tensor of it")
    if tensor.layout is not torch.strided or tensor.is_meta:
        what = "no values (device meta)" if tensor.is_meta else f"the layout {tensor.layout}"
        raise DataError(f"tensor {name} has {what}, which a model state can't hold", "make a dense tensor of it")
    if tensor.dtype not in WORDS:
        raise DataError(
            f"tensor {name} has the type {tensor.dtype}, which a model state can't hold",
            f"convert it to one of: {', '.join(str(dtype) for dtype in WORDS)}",
        )
    data = bytes_of(tensor.detach().cpu().contiguous())
    parts = [data[at : at + part_bytes] for at in range(0, len(data), part_bytes)]
    return TensorEntry(WORDS[tensor.dtype], tuple(tensor.shape), ()), parts


def from_parts(entry: TensorEntry, parts: Iterable[Bytes]) -> torch.Tensor:
    """Returns the tensor of an entry. parts: in the entry's order, verified."""
    tensor = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    data, at = bytes_of(tensor), 0
    for part in parts:
        data[at : at + len(part)] = part
        at += len(part)
    return tensor


def in_trips(parts: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """Yields the names of parts, those together that are best written or read together. parts: names and bytes."""
    trip: list[str] = []
    trip_bytes = 0
    for name, num_bytes in parts:
        if trip and (len(trip) == PARTS_PER_TRIP or trip_bytes + num_bytes > MAX_PART_BYTES):
            yield trip
            trip, trip_bytes = [], 0
        trip.append(name)
        trip_bytes += num_bytes
    if trip:
        yield trip
