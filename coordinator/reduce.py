"""Turns updates into the next model: a weighted mean in a fixed order, one outer step. Knows no store, no network.

Tensor by tensor and block by block: memory grows neither with the number of updates nor with the model's size. What is
computed for a value does not depend on where blocks begin, so the result is the same bits however it is cut.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from geotrain.errors import ConfigError
from geotrain.tasks.targets import prepare
from geotrain.updates.codec import BLOCK_BYTES, TensorFile

Tensors = Mapping[str, torch.Tensor]


def weighted_mean(updates: Sequence[tuple[float, TensorFile]], name: str) -> torch.Tensor:
    """The mean of one tensor over the updates, summed in the order given; at least in single precision.

    updates: (weight, file) of each site, all with a tensor of this name, shape and type; weights are over 0.
    """
    total = sum(weight for weight, _ in updates)
    entry = updates[0][1].entries[name]
    mean = torch.zeros(entry.num_values, dtype=torch.promote_types(entry.dtype, torch.float32))
    buffer = torch.empty(BLOCK_BYTES // entry.dtype.itemsize, dtype=entry.dtype)
    for start in range(0, len(mean), len(buffer)):
        part = mean[start : start + len(buffer)]
        for weight, file in updates:
            block = file.read(name, start, buffer[: len(part)])
            # Not add_ with alpha: it rounds once in the vectors and twice in what is left over.
            part.add_(block.to(mean.dtype).mul_(weight / total))
    return mean.reshape(entry.shape)


def _uncompiled(optimizer: Any) -> type[Any]:
    """The optimizer without its hooks for torch.compile: they load the compiler, 70 MB that nobody here uses."""
    if not (isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)):
        raise TypeError(f"{optimizer.__name__} is no optimizer")
    plain = {name: inspect.unwrap(getattr(optimizer, name)) for name in ("add_param_group", "step")}
    return type(optimizer.__name__, (optimizer,), plain)


class OuterStep:
    """The averaged update is a pseudo-gradient for a torch optimizer (Reddi et al. 2021, arXiv:2003.00295).

    optimizer: `_target_` in torch.optim and its arguments; its state lives from round to round.
    tensors: the model, moved in place. Integer tensors are left as they are.
    """

    def __init__(self, optimizer: Mapping[str, Any], tensors: Tensors) -> None:
        self._parameters = {
            name: torch.nn.Parameter(tensor) for name, tensor in tensors.items() if tensor.is_floating_point()
        }
        try:
            make = prepare(dict(optimizer), ["torch.optim.*"], "strategy.outer")
            optimizer_class = _uncompiled(make.func)
            # One for each tensor, so that each takes its step when its gradient is there.
            self._optimizers = {
                name: optimizer_class([parameter], **make.keywords) for name, parameter in self._parameters.items()
            }
        except (TypeError, ValueError) as error:
            raise ConfigError(f"strategy.outer: {error}", "See the arguments of this torch.optim class.") from None

    @classmethod
    def check(cls, optimizer: Mapping[str, Any]) -> None:
        """Raise ConfigError unless it can be made, and moves a model by a mean to where there are numbers."""
        model = {"w": torch.zeros(1)}
        outer = cls(optimizer, model)
        try:
            outer.step("w", torch.ones(1))
        except Exception as error:  # noqa: BLE001 - whatever an optimizer of torch says
            reason = f"{optimizer['_target_']} can't take a step from a mean update: {error}"
            raise ConfigError(f"strategy.outer: {reason}", "Choose one that needs no closure.") from None
        if not model["w"].isfinite().all():
            raise ConfigError(f"strategy.outer: its first step is to {model['w'].item()}", "Look at its arguments.")

    def step(self, name: str, mean: torch.Tensor) -> None:
        """Move one tensor of the model along `mean` (trained minus base) as the optimizer sees fit. Takes `mean`."""
        parameter = self._parameters[name]
        parameter.grad = mean.neg_().to(parameter.dtype)
        with torch.no_grad():
            self._optimizers[name].step()
        parameter.grad = None

    def state(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The optimizers' state after the steps so far: `<parameter>.<what>` and a tensor."""
        for name, optimizer in self._optimizers.items():
            for what, value in optimizer.state.get(self._parameters[name], {}).items():
                if isinstance(value, torch.Tensor):
                    yield f"{name}.{what}", value

    def restore(self, state: Tensors) -> None:
        """Go on from where `state` was taken. Its tensors are taken over, and changed from here on."""
        for key, value in state.items():
            name, _, what = key.rpartition(".")
            self._optimizers[name].state[self._parameters[name]][what] = value
