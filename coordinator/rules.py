"""The phases of a job, and the part of its configuration that decides. Values; they know nothing."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from coordinator.config import JobConfig


class Phase(StrEnum):
    GATHERING = "gathering"
    SCANNING = "scanning"
    RECONCILING = "reconciling"
    SUMMARIZING = "summarizing"
    TRAINING = "training"
    PUBLISHING = "publishing"
    LOCALIZING = "localizing"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """As in `coordinator.config.JobConfig` and `StrategyConfig`. grace_s: infinite where there is none."""

    sites: tuple[str, ...]
    min_sites: int
    rounds: int
    gather_deadline_s: float
    phase_deadline_s: float
    grace_s: float = math.inf
    max_staleness: int = 0

    @classmethod
    def of(cls, config: JobConfig) -> Self:
        return cls(
            sites=tuple(sorted(config.sites)),
            min_sites=config.min_sites,
            rounds=config.rounds,
            gather_deadline_s=config.gather_deadline_s,
            phase_deadline_s=config.phase_deadline_s,
            grace_s=math.inf if config.grace_s is None else config.grace_s,
            max_staleness=config.strategy.max_staleness,
        )
