"""The site's Ray cluster: joins in tasks, trains in actors that stay warm from round to round. Decides nothing."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import ray
import torch
from ray.exceptions import RayTaskError

from geotrain.errors import GeotrainError
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding, Statistics
from geotrain.tasks.samples import summarize
from geotrain.view.connect import View
from geotrain.view.cut import Cut
from geotrain.view.layout import DIGEST, GENERATION
from geotrain.view.sizes import set_sizes
from site_agent.config import SiteConfig
from site_agent.datasets import LocalDataset
from site_agent.join.execute import Join, Joined, learn, num_blocks
from site_agent.join.fetch import MAKE_ROOM, fetch, full_disk, put, ray_folder
from site_agent.join.planner import Rates
from site_agent.join.sources import Part, ReadSet
from site_agent.trainer import Trained, Trainer

logger = logging.getLogger(__name__)

# What every task may be given whole, as a part of the memory that tasks share.
BROADCAST_SHARE = 1 / 4

Worker = ray.remote(Trainer)


@ray.remote
def _statistics(task: TaskConfig, block: pa.Table) -> Statistics:
    return summarize(pl.DataFrame(block), task)


def _num_cpus(resources: Mapping[str, float]) -> int:
    return max(1, int(resources.get("CPU", 0)))


class Compute:
    """Ray, started or joined as the site's configuration says. Raises GeotrainError when it can't be."""

    def __init__(self, site: SiteConfig) -> None:
        self._site = site
        # By job.
        self._trainers: dict[str, list[Any]] = {}
        self._rates = Rates()
        local = site.ray.address == "local"
        try:
            ray.init(
                address=site.ray.address,
                num_cpus=site.ray.num_cpus if local else None,
                object_store_memory=site.ray.object_store_bytes if local else None,
                include_dashboard=False if local else None,
                log_to_driver=False,
            )
        except (OSError, RuntimeError, ValueError) as error:
            if full := full_disk():
                raise GeotrainError(f"Ray can't be started: {full}", MAKE_ROOM) from error
            if local:
                raise GeotrainError(f"Ray can't be started: {error}", f"Its logs are in {ray_folder()}/ray.") from error
            raise GeotrainError(
                f"site.ray.address: no Ray cluster at {site.ray.address}: {error}",
                "Start one with `ray start --head`, or let the agent start its own with site.ray.address=local.",
            ) from None
        self._own = ray.cluster_resources() if local else None

    @property
    def _resources(self) -> Mapping[str, float]:
        """What the Ray cluster has. One of the agent's own stays as it is; another may grow and shrink."""
        found: Mapping[str, float] = self._own or ray.cluster_resources()
        return found

    def close(self) -> None:
        for job in list(self._trainers):
            self.release(job)
        ray.shutdown()

    def is_training(self, job: str) -> bool:
        """Whether workers hold a training set of the job."""
        return job in self._trainers

    def release(self, job: str) -> None:
        """Let go of the job's workers, also while they train: whoever waits for them is told that they are gone."""
        for trainer in self._trainers.pop(job, []):
            ray.kill(trainer)

    def read(self, view: View, task: TaskConfig, cut: Cut) -> dict[str, ReadSet]:
        """Read the sets that are to be proven the same at every site: their rows below the cut, and which these are."""
        sizes = set_sizes(view, task.proven())
        num_cpus = _num_cpus(self._resources)
        num_parts = num_blocks(max((size.num_bytes for size in sizes.values()), default=0), num_cpus)
        sets = {}
        for name in sizes:
            view_set = task.view[name]
            part = Part(view.config, name, view_set, cut, metadata=(DIGEST, GENERATION), by_key=bool(view_set.key))
            sets[name] = ReadSet.of(part, num_parts)
            self._rates = learn(self._rates, sets[name].read, min(num_cpus, num_parts))
        return sets

    def join(
        self,
        view: View,
        task: TaskConfig,
        local: Mapping[str, LocalDataset],
        read: Mapping[str, ReadSet],
        cut: Cut | None,
    ) -> Joined:
        """Join the task's rows with the other local datasets and the view's sets: those that were `read`, and others.

        cut: leaves out later rows of the others; None takes them as they are.
        """
        resources = self._resources
        join = Join(
            task=task,
            local=local,
            view=view,
            cut=cut,
            read=read,
            cache_dir=Path(self._site.cache_dir),
            num_cpus=_num_cpus(resources),
            max_broadcast_bytes=int(resources["object_store_memory"] * BROADCAST_SHARE),
            rates=self._rates,
        )
        joined = join.run()
        self._rates = join.rates
        return joined

    def statistics(self, task: TaskConfig, joined: Joined) -> Statistics:
        """The training rows' sums and counts."""
        first, *others = fetch([_statistics.remote(task, block) for block in joined.blocks])
        for other in others:
            first = first.merge(other)
        return first

    def start_training(
        self, job: str, task: TaskConfig, encoding: Encoding, joined: Joined, seed: tuple[object, ...]
    ) -> None:
        """Give the job's workers the training set, encoded. They are started if they are not there yet."""
        site = self._site
        world = site.training.num_workers
        trainers = self._trainers.get(job, [])
        if not trainers:
            gpus = int(self._resources.get("GPU", 0))
            num_gpus = 1 if site.training.use_gpu and gpus >= world else 0
            trainers = [
                # No CPU of Ray's: they keep still while tasks read and join, and must not keep those from starting.
                Worker.options(num_cpus=0, num_gpus=num_gpus).remote(rank, world, site.training.threads_per_worker)
                for rank in range(world)
            ]
            self._trainers[job] = trainers
            if world > 1:
                address: str = fetch(trainers[0].rendezvous.remote())
                fetch([trainer.join_group.remote(address) for trainer in trainers])
        fetch(
            [
                trainer.load.remote(task, encoding, list(joined.blocks), list(site.allowed_targets), seed)
                for trainer in trainers
            ]
        )

    def train(self, job: str, base: Mapping[str, torch.Tensor], number: int) -> Trained:
        """Train from `base` for one round on all workers; their models are the same at the end."""
        return self._all(job, "train", base, number)

    def localize(self, job: str, base: Mapping[str, torch.Tensor], rounds: int) -> Trained:
        """Adapt `base` to the site's own rows; measure it beside the global model and a local-only one of `rounds`."""
        return self._all(job, "localize", base, rounds)

    def _all(self, job: str, method: str, base: Mapping[str, torch.Tensor], *arguments: object) -> Trained:
        shared = put(dict(base))
        try:
            return fetch([getattr(trainer, method).remote(shared, *arguments) for trainer in self._trainers[job]])[0]
        except (RayTaskError, GeotrainError):
            self.release(job)  # a group that lost a worker can't go on; the next round starts a fresh one
            raise
