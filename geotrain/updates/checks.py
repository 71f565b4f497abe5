"""What an update must be before it may enter the mean. Reads it block by block; knows no network and no round."""

import math
from collections.abc import Mapping

import torch

from geotrain.errors import UpdateRefused
from geotrain.updates.codec import Entry, TensorFile


def check(update: TensorFile, like: Mapping[str, torch.Tensor], *, max_norm: float, whole: bool = True) -> None:
    """Raise UpdateRefused, naming the tensor, unless the update fits `like` and is finite.

    like: the base state; names, shapes and types are compared with it.
    max_norm: the largest L2 norm over all tensors together that is believed.
    whole: every tensor of `like` must be there; otherwise a subset will do.
    """
    unknown = sorted(update.entries.keys() - like.keys())
    missing = sorted(like.keys() - update.entries.keys()) if whole else []
    if unknown or missing:
        raise UpdateRefused(
            f"the update's tensors are not the model's: unknown {unknown}, missing {missing}",
            "Train the model that the job's task names, from the base that the round names.",
        )
    for name, entry in update.entries.items():
        expected = Entry(like[name].dtype, tuple(like[name].shape), entry.begin)
        if entry != expected:
            raise UpdateRefused(
                f"tensor {name} is {_described(entry)}, the model's is {_described(expected)}",
                "Train the model that the job's task names.",
            )
    norm = math.sqrt(sum(_sum_of_squares(update, name) for name in update.entries))
    if norm > max_norm:
        raise UpdateRefused(
            f"the update's norm {norm:.3g} is over strategy.max_update_norm = {max_norm:.3g}",
            "Lower the learning rate, or raise strategy.max_update_norm if such a step is meant.",
        )


def _sum_of_squares(update: TensorFile, name: str) -> float:
    """Of a tensor's values. Raises UpdateRefused where one is not finite."""
    total = 0.0
    for block in update.blocks(name):
        values = block if block.dtype == torch.float64 else block.float()
        # Not torch.dot: each new thread that calls it gets a team of BLAS threads, which wait by spinning.
        norm = float(torch.linalg.vector_norm(values))
        squares = norm * norm  # not ** 2, which raises OverflowError where this is infinite
        if not math.isfinite(squares):  # a value is not finite, or its square is not
            if not bool(torch.isfinite(values).all()):
                raise UpdateRefused(
                    f"tensor {name} has values that are not finite",
                    "Lower the learning rate, or look for extreme values in the site's rows.",
                )
            squares = float(values.double().square().sum())
        total += squares
    return total


def _described(entry: Entry) -> str:
    return f"{str(entry.dtype).removeprefix('torch.')}{list(entry.shape)}"
