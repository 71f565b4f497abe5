"""What a simulated site computes: it reads records, and training is one addition. No Ray."""

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Moments, Statistics
from geotrain.view.cut import Cut
from site_agent.join.execute import Joined
from site_agent.trainer import Trained
from tests.simulation.rounds.processes import block
from tests.simulation.rounds.records import Generations, Read

if TYPE_CHECKING:
    from tests.simulation.rounds.records import Records
    from tests.simulation.rounds.trainings import Trainings

SITES = ("ewr", "jfk", "lga")
SAMPLES = {"ewr": 100, "jfk": 300, "lga": 50}
SCAN_S = (0.05, 0.3)
TRAIN_S = (0.5, 2.0)

TASK: dict[str, Any] = {
    "name": "tiny",
    "local": {
        "flights": {"path": "flights.parquet", "columns": {"at": "timestamp", "tail": "string", "late": "int64"}}
    },
    "view": {"legs": {"columns": {"tail": "string", "hours": "float64"}, "key": "tail"}},
    "rows": {"dataset": "flights", "time": "at"},
    "join": [{"kind": "equi", "source": "legs", "by": {"tail": "tail"}, "columns": {"hours": "hours"}}],
    "features": {"hours": {}},
    "label": {"column": "late", "above": 0},
    "split": {"test_from": "2024-02-01"},
    "model": {"_target_": "geotrain.tasks.model.TabularNet", "depth": 0},
    "loss": {"_target_": "torch.nn.BCEWithLogitsLoss"},
    "metric": {"_target_": "geotrain.tasks.metrics.roc_auc"},
    "training": {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}},
    "localize": {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}},
}


def trained(site: str, number: int, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """What training makes of a tensor in a round; 0 stands for localizing."""
    return tensor * 0.9 + (SITES.index(site) + 1) * 0.1 + number * 0.01 + len(name) * 0.001


class SimulatedCompute:
    """Stands in for the site's Ray. records: what it reads. trainings: told of every training."""

    def __init__(self, site: str, random: Random, records: "Records", trainings: "Trainings") -> None:
        self._site = site
        self._random = random
        self._records = records
        self._trainings = trainings
        self._joined: dict[str, Generations] = {}  # by model

    def read(self, view: object, task: TaskConfig, cut: Cut) -> dict[str, Read]:
        block(self._random.uniform(*SCAN_S))
        return {name: self._records.read(cut) for name in task.proven()}

    def join(self, view: object, task: TaskConfig, local: object, sets: Mapping[str, Read], cut: Cut) -> Joined:
        block(self._random.uniform(*SCAN_S))
        [read] = sets.values()
        self._joined[task.name] = read.generations
        return Joined(blocks=[], num_rows=SAMPLES[self._site])

    def statistics(self, task: TaskConfig, joined: Joined) -> Statistics:
        return Statistics(numeric={name: Moments(10, 0.0, 10.0) for name in task.numeric()})

    def is_training(self, job: str) -> bool:
        return True

    def start_training(self, *_: object) -> None:
        pass

    def train(self, job: str, base: Mapping[str, torch.Tensor], number: int) -> Trained:
        return self._work(job, base, number, {"loss": 0.5})

    def localize(self, job: str, base: Mapping[str, torch.Tensor], rounds: int) -> Trained:
        return self._work(job, base, 0, {"loss": 0.5, "global": 0.6, "localized": 0.7, "local_only": 0.5})

    def _work(self, job: str, base: Mapping[str, torch.Tensor], number: int, metrics: dict[str, float]) -> Trained:
        rows = self._joined[job.partition("-")[0]]
        training = self._trainings.begin((job, self._site, number), base, rows)
        block(self._random.uniform(*TRAIN_S))
        self._trainings.end(training)
        tensors = {name: trained(self._site, number, name, tensor) for name, tensor in base.items()}
        return Trained(tensors, SAMPLES[self._site], metrics)

    def release(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass
