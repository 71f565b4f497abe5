"""Trains and measures a model on encoded samples, in this process. Knows no site, no Ray and no network."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor, nn

from geotrain.errors import ConfigError, GeotrainError
from geotrain.tasks.config import TaskConfig, TrainingConfig
from geotrain.tasks.samples import Samples
from geotrain.tasks.targets import instantiate

# Rows asked at once where no gradient is needed.
MAX_ROWS_ASKED = 65_536

Phase = Literal["training", "localize"]
OnStep = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every batch is this worker's, among `world_size` workers that train together."""

    rank: int = 0
    world_size: int = 1


ALONE = Share()


def seed_of(*parts: object) -> int:
    """A seed for torch that follows from the parts alone, such as a job's seed, a round and a site."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def choose_parameters(task: TaskConfig, phase: Phase, model: nn.Module) -> None:
    """Let the phase train only the parameters it names. To be done before a model is wrapped for DDP."""
    patterns = getattr(task, phase).parameters
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        names = ", ".join(name for name, _ in model.named_parameters())
        raise ConfigError(f"task.{phase}.parameters: {patterns} matches none", f"The model has {names}.")


def train(
    task: TaskConfig,
    phase: Phase,
    model: nn.Module,
    samples: Samples,
    *,
    allowed: Sequence[str],
    seed: int,
    share: Share = ALONE,
    on_step: OnStep | None = None,
) -> float:
    """Train the chosen parameters in place, as task.training or task.localize says. Same seed, same result.

    model: may be wrapped for DistributedDataParallel; every worker then passes its own share and the same seed.
    on_step: called after each step with its number from 1, the number of steps, and its loss.
    Returns the mean loss over the steps of the last epoch. Raises GeotrainError when a loss is not finite.
    """
    if not len(samples):
        raise GeotrainError(
            f"{phase}: there are no training rows", "See task.split and the label's column at this site."
        )
    config: TrainingConfig = getattr(task, phase)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = instantiate(config.optimizer, allowed, f"task.{phase}.optimizer", params=parameters)
    loss_of = instantiate(task.loss, allowed, "task.loss")
    torch.manual_seed(seed_of(seed, share.rank))  # for dropout and the like
    model.train()

    num_batches = max(1, round(len(samples) / config.batch_size))
    num_steps = config.epochs * num_batches
    losses: list[float] = []
    for step, batch in enumerate(_batches(samples, config.epochs, num_batches, seed, share), start=1):
        inputs, labels = _take(samples, batch, parameters[0].device)
        loss = loss_of(model(inputs), labels)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise GeotrainError(
                f"{phase}: the loss is {losses[-1]} at step {step} of {num_steps}",
                f"Lower the learning rate in task.{phase}.optimizer, or look for absurd values in the features.",
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        if on_step:
            on_step(step, num_steps, losses[-1])
    return sum(losses[-num_batches:]) / num_batches


def evaluate(task: TaskConfig, model: nn.Module, samples: Samples, *, allowed: Sequence[str]) -> float:
    """Return the task's metric on the samples."""
    outputs = predict(model, samples.inputs)
    return float(
        instantiate(task.metric, allowed, "task.metric", labels=samples.labels.numpy(), outputs=outputs.numpy())
    )


@torch.no_grad()
def predict(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the model's outputs (n,) for encoded rows, on the CPU."""
    device = next(model.parameters()).device
    model.eval()
    num_rows = len(next(iter(inputs.values())))
    starts = range(0, max(num_rows, 1), MAX_ROWS_ASKED)
    chunks = ({name: tensor[i : i + MAX_ROWS_ASKED] for name, tensor in inputs.items()} for i in starts)
    return torch.cat([model(_on(device, chunk)).cpu() for chunk in chunks])


def _batches(samples: Samples, epochs: int, num_batches: int, seed: int, share: Share) -> Iterator[Tensor]:
    """This worker's row numbers of every batch; all workers shuffle alike, and every row is in one batch an epoch."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(samples), generator=generator).tensor_split(num_batches):
            yield batch[share.rank :: share.world_size]


def _take(samples: Samples, rows: Tensor, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
    return _on(device, {name: tensor[rows] for name, tensor in samples.inputs.items()}), samples.labels[rows].to(device)


def _on(device: torch.device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
