"""What an update must be before it may enter the mean. Pure."""

import math
from collections.abc import Mapping

import torch

from geotrain.errors import UpdateRefused


def check(
    tensors: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor], *, max_norm: float, whole: bool = True
) -> None:
    """Raise UpdateRefused, naming the tensor, unless the update fits `like` and is finite.

    like: the base state; names, shapes and types are compared with it.
    max_norm: the largest L2 norm over all tensors together that is believed.
    whole: every tensor of `like` must be there; otherwise a subset will do.
    """
    unknown = sorted(tensors.keys() - like.keys())
    missing = sorted(like.keys() - tensors.keys()) if whole else []
    if unknown or missing:
        raise UpdateRefused(
            f"the update's tensors are not the model's: unknown {unknown}, missing {missing}",
            "Train the model that the job's task names, from the base that the round names.",
        )
    sum_of_squares = 0.0
    for name, tensor in tensors.items():
        expected = like[name]
        if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise UpdateRefused(
                f"tensor {name} is {_described(tensor)}, the model's is {_described(expected)}",
                "Train the model that the job's task names.",
            )
        if not bool(torch.isfinite(tensor).all()):
            raise UpdateRefused(
                f"tensor {name} has values that are not finite",
                "Lower the learning rate, or look for extreme values in the site's rows.",
            )
        sum_of_squares += float(tensor.double().square().sum())
    norm = math.sqrt(sum_of_squares)
    if norm > max_norm:
        raise UpdateRefused(
            f"the update's norm {norm:.3g} is over strategy.max_update_norm = {max_norm:.3g}",
            "Lower the learning rate, or raise strategy.max_update_norm if such a step is meant.",
        )


def _described(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
