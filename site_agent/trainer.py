"""One training worker: a Ray actor that keeps the encoded training set and stays warm from round to round.

With several workers each trains on its share of every batch, and DistributedDataParallel keeps their models the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl
import ray
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding
from geotrain.tasks.model import build_model
from geotrain.tasks.samples import Samples, encode_samples, split, summarize
from site_agent.join.outputs import to_table
from site_agent.training import Phase, Share, choose_parameters, evaluate, seed_of, train

GROUP_TIMEOUT = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gave: the whole model, the number of training rows, and what was measured."""

    tensors: dict[str, Tensor]
    samples: int
    metrics: dict[str, float]


class Trainer:
    """A worker of one site. Lives in a Ray actor.

    rank: of this worker among world_size. num_threads: of torch, in this process.
    """

    def __init__(self, rank: int, world_size: int, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._share = Share(rank, world_size)
        self._device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")

    def rendezvous(self) -> str:
        """Where the workers of this site meet, `host:port`; asked of the first one."""
        host = ray.util.get_node_ip_address()
        self._store = dist.TCPStore(
            host, 0, self._share.world_size, is_master=True, wait_for_workers=False, timeout=GROUP_TIMEOUT
        )
        return f"{host}:{self._store.port}"

    def join_group(self, address: str) -> None:
        """Meet the other workers; returns when all are there."""
        if self._share.rank:
            host, _, port = address.rpartition(":")
            self._store = dist.TCPStore(host, int(port), self._share.world_size, timeout=GROUP_TIMEOUT)
        dist.init_process_group(
            "nccl" if self._device.type == "cuda" else "gloo",
            store=self._store,
            rank=self._share.rank,
            world_size=self._share.world_size,
            timeout=GROUP_TIMEOUT,
        )

    def load(
        self,
        task: TaskConfig,
        encoding: Encoding,
        blocks: list[ray.ObjectRef],
        allowed: Sequence[str],
        seed: tuple[object, ...],
    ) -> None:
        """Take the joined rows. seed: what all of this site's randomness follows from."""
        self._task, self._allowed, self._seed = task, allowed, seed
        # In the order of the local rows, whichever way the join took: the same seed then gives the same model.
        rows = pl.DataFrame(to_table(blocks))
        self._train_rows, self._test_rows = split(rows, task)
        self._train_samples, self._test_samples = self._encoded(task, encoding)
        self._model = build_model(task, encoding, allowed).to(self._device)

    def train(self, base: Mapping[str, Tensor], number: int) -> Trained:
        """Train from the base for one round."""
        self._model.load_state_dict(base)
        loss = self._fit(self._task, "training", self._model, self._train_samples, number)
        return self._trained({"loss": loss})

    def localize(self, base: Mapping[str, Tensor], rounds: int) -> Trained:
        """Adapt the base to this site's rows. metrics: `global`, `localized` and `local_only`, on the test rows."""
        self._model.load_state_dict(base)
        metrics = {"global": self._metric(self._task, self._model, self._test_samples)}
        metrics["loss"] = self._fit(self._task, "localize", self._model, self._train_samples, 0)
        metrics["localized"] = self._metric(self._task, self._model, self._test_samples)
        metrics["local_only"] = self._train_alone(rounds)
        return self._trained(metrics)

    def _train_alone(self, rounds: int) -> float:
        """What the site reaches without the others: own rows and columns, same architecture, same budget."""
        task = self._task.without_view()
        encoding = Encoding.from_statistics(summarize(self._train_rows, task), task)
        train_samples, test_samples = self._encoded(task, encoding)
        torch.manual_seed(seed_of(*self._seed, "local_only"))
        model = build_model(task, encoding, self._allowed).to(self._device)
        for number in range(1, rounds + 1):
            self._fit(task, "training", model, train_samples, number)
        self._fit(task, "localize", model, train_samples, 0)
        return self._metric(task, model, test_samples)

    def _encoded(self, task: TaskConfig, encoding: Encoding) -> tuple[Samples, Samples]:
        return encode_samples(self._train_rows, task, encoding), encode_samples(self._test_rows, task, encoding)

    def _fit(self, task: TaskConfig, phase: Phase, model: nn.Module, samples: Samples, number: int) -> float:
        choose_parameters(task, phase, model)
        wrapped = DistributedDataParallel(model) if self._share.world_size > 1 else model
        seed = seed_of(*self._seed, number)
        return train(task, phase, wrapped, samples, allowed=self._allowed, seed=seed, share=self._share)

    def _metric(self, task: TaskConfig, model: nn.Module, samples: Samples) -> float:
        return evaluate(task, model, samples, allowed=self._allowed)

    def _trained(self, metrics: dict[str, float]) -> Trained:
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self._model.state_dict().items()}
        return Trained(tensors, len(self._train_samples), metrics)
