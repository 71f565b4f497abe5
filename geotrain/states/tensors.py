"""Tensors to bytes in parts, and back. Knows no store."""

import sys
from collections.abc import Iterable
from hashlib import sha256

import torch

from geotrain.errors import DataError
from geotrain.states.manifest import TensorEntry

assert sys.byteorder == "little", "the bytes of a tensor are little-endian, and taken as they are"

# As safetensors writes them.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_WORDS = {dtype: word for word, dtype in DTYPES.items()}


def to_parts(name: str, tensor: torch.Tensor, part_bytes: int) -> tuple[TensorEntry, dict[str, memoryview]]:
    """Returns the tensor's entry in a manifest, and its parts: hash -> at most part_bytes bytes, in place."""
    if tensor.dtype not in _WORDS:
        raise DataError(
            f"tensor {name} has the type {tensor.dtype}, which a model state can't hold",
            f"convert it to one of: {', '.join(str(dtype) for dtype in _WORDS)}",
        )
    data = _bytes_of(tensor.detach().cpu().contiguous())
    parts = [data[at : at + part_bytes] for at in range(0, len(data), part_bytes)]
    hashes = [sha256(part).hexdigest() for part in parts]
    entry = TensorEntry(_WORDS[tensor.dtype], tuple(tensor.shape), tuple(hashes))
    return entry, dict(zip(hashes, parts, strict=True))


def from_parts(entry: TensorEntry, parts: Iterable[bytes]) -> torch.Tensor:
    """Returns the tensor of an entry. parts: in the entry's order, verified."""
    tensor = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    data, at = _bytes_of(tensor), 0
    for part in parts:
        data[at : at + len(part)] = part
        at += len(part)
    return tensor


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
