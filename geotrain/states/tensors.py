"""Tensors to bytes in parts, and back. Knows no store."""

from collections.abc import Iterable
from hashlib import sha256

import torch

from geotrain.dtypes import DTYPES, WORDS, bytes_of
from geotrain.errors import DataError
from geotrain.states.manifest import TensorEntry

# Parts that go in one trip: small ones are many to a batch, and a larger batch costs the client more than two.
PARTS_PER_BATCH = 64
BATCH_BYTES = 1 << 20


def to_parts(name: str, tensor: torch.Tensor, part_bytes: int) -> tuple[TensorEntry, dict[str, memoryview]]:
    """Returns the tensor's entry in a manifest, and its parts: hash -> at most part_bytes bytes, in place."""
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
    hashes = [sha256(part).hexdigest() for part in parts]
    entry = TensorEntry(WORDS[tensor.dtype], tuple(tensor.shape), tuple(hashes))
    return entry, dict(zip(hashes, parts, strict=True))


def from_parts(entry: TensorEntry, parts: Iterable[bytes | memoryview]) -> torch.Tensor:
    """Returns the tensor of an entry. parts: in the entry's order, verified."""
    tensor = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    data, at = bytes_of(tensor), 0
    for part in parts:
        data[at : at + len(part)] = part
        at += len(part)
    return tensor
