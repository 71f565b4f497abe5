"""The site's Ray cluster: joins in tasks, trains in actors that stay warm from round to round. Decides nothing."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from geotrain.errors import GeotrainError
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding, Statistics
from site_agent.config import SiteConfig
from site_agent.join import join_rows
from site_agent.trainer import Trained, Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Joined:
    """The training set: Ray references to blocks of joined rows, in the order of the local rows."""

    blocks: list[ray.ObjectRef]
    num_rows: int


Worker = ray.remote(Trainer)


@ray.remote
def _join_block(task: TaskConfig, rows: pa.Table, tables: Mapping[str, ray.ObjectRef]) -> pa.Table:
    frames = {name: pl.DataFrame(table) for name, table in zip(tables, ray.get(list(tables.values())), strict=True)}
    return join_rows(task, pl.DataFrame(rows), frames).to_arrow()


@ray.remote
def _count(block: pa.Table) -> int:
    return block.num_rows


@ray.remote
def _statistics(task: TaskConfig, block: pa.Table) -> Statistics:
    return Statistics.of(pl.DataFrame(block), task)


def _get(refs: Any) -> Any:
    """ray.get; an error that a user can act on comes back as itself, without the worker's stack trace."""
    try:
        return ray.get(refs)
    except RayTaskError as error:
        if isinstance(error.cause, GeotrainError):
            raise error.cause from None
        raise


class Compute:
    """Ray, started or joined as the site's configuration says. Raises GeotrainError when it can't be."""

    def __init__(self, site: SiteConfig) -> None:
        self._site = site
        self._trainers: list[Any] = []
        local = site.ray.address == "local"
        try:
            ray.init(
                address=site.ray.address,
                num_cpus=site.ray.num_cpus if local else None,
                object_store_memory=site.ray.object_store_bytes if local else None,
                include_dashboard=False if local else None,
                log_to_driver=False,
            )
        except (ConnectionError, ValueError) as error:
            raise GeotrainError(
                f"site.ray.address: no Ray cluster at {site.ray.address}: {error}",
                "Start one with `ray start --head`, or let the agent start its own with site.ray.address=local.",
            ) from None

    def close(self) -> None:
        self.release()
        ray.shutdown()

    @property
    def is_training(self) -> bool:
        """Whether workers hold a training set."""
        return bool(self._trainers)

    def release(self) -> None:
        """Let go of the workers of a job that has ended."""
        for trainer in self._trainers:
            ray.kill(trainer)
        self._trainers = []

    def join(self, task: TaskConfig, local: Mapping[str, pl.DataFrame], view: Mapping[str, pa.Table]) -> Joined:
        """Join the task's rows with the other local datasets and the view's tables, a block a CPU."""
        rows = local[task.rows.dataset].to_arrow()
        others = {name: frame.to_arrow() for name, frame in local.items() if name != task.rows.dataset}
        tables = {name: ray.put(table) for name, table in {**others, **view}.items()}
        num_blocks = max(1, int(ray.cluster_resources()["CPU"]))
        size = -(-max(rows.num_rows, 1) // num_blocks)
        blocks = [
            _join_block.remote(task, rows.slice(start, size).combine_chunks(), tables)
            for start in range(0, rows.num_rows, size)
        ]
        return Joined(blocks=blocks, num_rows=sum(_get([_count.remote(block) for block in blocks])))

    def statistics(self, task: TaskConfig, joined: Joined) -> Statistics:
        """The training rows' sums and counts."""
        first, *others = _get([_statistics.remote(task, block) for block in joined.blocks])
        for other in others:
            first = first.merge(other)
        return first

    def start_training(self, task: TaskConfig, encoding: Encoding, joined: Joined, seed: tuple[object, ...]) -> None:
        """Give the workers the training set, encoded. They are started if they are not there yet."""
        site = self._site
        world = site.training.num_workers
        if not self._trainers:
            gpus = int(ray.cluster_resources().get("GPU", 0))
            num_gpus = 1 if site.training.use_gpu and gpus >= world else 0
            self._trainers = [
                Worker.options(num_gpus=num_gpus).remote(rank, world, site.training.threads_per_worker)
                for rank in range(world)
            ]
            if world > 1:
                address: str = _get(self._trainers[0].rendezvous.remote())
                _get([trainer.join_group.remote(address) for trainer in self._trainers])
        _get(
            [
                trainer.load.remote(task, encoding, list(joined.blocks), list(site.allowed_targets), seed)
                for trainer in self._trainers
            ]
        )

    def train(self, base: Mapping[str, torch.Tensor], number: int) -> Trained:
        """Train from `base` for one round on all workers; their models are the same at the end."""
        return self._all("train", base, number)

    def localize(self, base: Mapping[str, torch.Tensor], rounds: int) -> Trained:
        """Adapt `base` to the site's own rows; measure it beside the global model and a local-only one of `rounds`."""
        return self._all("localize", base, rounds)

    def _all(self, method: str, base: Mapping[str, torch.Tensor], *arguments: object) -> Trained:
        shared = ray.put(dict(base))
        try:
            return _get([getattr(trainer, method).remote(shared, *arguments) for trainer in self._trainers])[0]
        except (RayError, GeotrainError):
            self.release()  # a group that lost a worker can't go on; the next round starts a fresh one
            raise
