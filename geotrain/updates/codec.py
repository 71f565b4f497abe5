"""Tensors to bytes and back, as one safetensors file. No pickle: decoding runs nobody's code."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from geotrain.errors import UpdateRefused


def encode(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The tensors as the bytes of one safetensors file."""
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def decode_file(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. Raises UpdateRefused if it is not one."""
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise UpdateRefused(f"the update is not a safetensors file: {error}") from None
