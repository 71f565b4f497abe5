"""Turns updates into the next model: a weighted mean in a fixed order, one outer step. Knows no store, no network."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from geotrain.errors import ConfigError
from geotrain.tasks.targets import instantiate

Tensors = Mapping[str, torch.Tensor]


def weighted_mean(updates: Sequence[tuple[int, Tensors]]) -> dict[str, torch.Tensor]:
    """The mean of the updates weighted by their sample counts, summed in the order given.

    updates: (samples, tensors) of each site; samples is at least 1. All have the same names and shapes.
    """
    total = sum(samples for samples, _ in updates)
    mean: dict[str, torch.Tensor] = {}
    for samples, tensors in updates:
        for name, tensor in tensors.items():
            part = tensor * (samples / total)
            mean[name] = mean[name].add_(part) if name in mean else part
    return mean


class OuterStep:
    """The averaged update is a pseudo-gradient for a torch optimizer (Reddi et al. 2021, arXiv:2003.00295).

    optimizer: `_target_` in torch.optim and its arguments; its state lives from round to round.
    tensors: the first model. Integer tensors are carried along unchanged.
    """

    def __init__(self, optimizer: Mapping[str, Any], tensors: Tensors) -> None:
        self._parameters = {
            name: torch.nn.Parameter(tensor.clone()) for name, tensor in tensors.items() if tensor.is_floating_point()
        }
        try:
            self._optimizer = instantiate(
                dict(optimizer), ["torch.optim.*"], "strategy.outer", params=list(self._parameters.values())
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"strategy.outer: {error}", "See the arguments of this torch.optim class.") from None

    def step(self, base: Tensors, mean: Tensors) -> dict[str, torch.Tensor]:
        """The next model: `base` moved along `mean` (trained minus base) as the optimizer sees fit."""
        for name, parameter in self._parameters.items():
            parameter.data.copy_(base[name])
            parameter.grad = -mean[name]
        self._optimizer.step()
        moved = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        return {name: moved.get(name, tensor) for name, tensor in base.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """The optimizer's state after the steps so far: `<parameter>.<what>` -> tensor."""
        return {
            f"{name}.{what}": value
            for name, parameter in self._parameters.items()
            for what, value in self._optimizer.state.get(parameter, {}).items()
            if isinstance(value, torch.Tensor)
        }

    def restore(self, state: Tensors) -> None:
        """Go on from where `state` was taken. Tensors are copied."""
        for key, value in state.items():
            name, _, what = key.rpartition(".")
            self._optimizer.state[self._parameters[name]][what] = value.clone()
