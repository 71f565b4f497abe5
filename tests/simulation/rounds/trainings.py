"""That no site trains a round twice, unless its update was lost by a crash before it was kept."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

import torch

from tests.simulation.rounds.processes import PROCESS, Process
from tests.simulation.rounds.records import Generations

KEEP_S = 1.0
"""How long after its end a training may still be lost with its agent: until its update is a file."""

Round = tuple[str, str, int]  # job, site and round; 0 stands for localizing


@dataclass
class Training:
    process: Process
    round: Round
    ended_s: float = inf


class Trainings:
    """The trainings of one run.

    counts: how often each site trained each round. rows: on which it did the last time. tell: takes a line for people.
    fail: takes what was broken.
    """

    def __init__(self, now_s: Callable[[], float], tell: Callable[[str], None], fail: Callable[[str], None]) -> None:
        self.counts: Counter[Round] = Counter()
        self.rows: dict[Round, Generations] = {}
        self._now_s = now_s
        self._tell = tell
        self._fail = fail
        self._last: dict[tuple[Round, float], Training] = {}

    def begin(self, round_: Round, base: Mapping[str, torch.Tensor], rows: Generations) -> Training:
        """The calling process trains from here on."""
        self.rows[round_] = rows
        process = PROCESS.get()
        assert process is not None
        job, site, number = round_
        self._tell(f"{process.name} trains round {number} of {job}")
        self.counts[round_] += 1
        key = (round_, sum(float(tensor.double().sum()) for tensor in base.values()))
        last = self._last.get(key)
        if last and last.process.ended_s > last.ended_s + KEEP_S:
            self._fail(f"{site} trains round {number} again, though its update was not lost")
        self._last[key] = training = Training(process, round_)
        return training

    def is_training(self, job: str, site: str, number: int) -> bool:
        """Whether an agent that lives is at it."""
        found = (training for training in self._last.values() if training.round == (job, site, number))
        return any(training.ended_s == inf and training.process.is_alive for training in found)

    def end(self, training: Training) -> None:
        training.ended_s = self._now_s()
        self._tell(f"{training.process.name} has trained round {training.round[2]}")
