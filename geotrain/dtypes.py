"""Tensors' types by safetensors' words, and their bytes in place: what states and updates both write."""

import sys

import torch

assert sys.byteorder == "little", "the bytes of a tensor are little-endian, and taken as they are"

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
WORDS = {dtype: word for word, dtype in DTYPES.items()}


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor in memory, in place."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
