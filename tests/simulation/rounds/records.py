"""The set of the view that simulated sites read: a few records, each written over at moments that a seed says."""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

import numpy as np

from geotrain.view.cut import Cut, Digests, Fingerprints, Rows, among
from geotrain.wire.fingerprints import fingerprints
from tests.simulation.rounds.processes import EPOCH_S

NUM_RECORDS = 5
MEAN_INTERVAL_S = 8.0
UNTIL_S = 200.0

Generations = Mapping[int, int]
"""Which rows: the generation of each, by record."""


@dataclass(frozen=True)
class Read:
    """The rows of a set that a site has read, as `site_agent.join.sources.ReadSet` has them."""

    generations: Generations

    @property
    def num_rows(self) -> int:
        return len(self.generations)

    def fingerprints(self) -> Fingerprints:
        rows = self.rows_in()
        return fingerprints(rows.digests, rows.generations)

    def rows_in(self, _: object = None) -> Rows:
        """All of them: more than was asked for does no harm."""
        return Rows(_digests(self.generations), np.array(list(self.generations.values()), np.uint32))

    def without(self, dropped: Digests) -> "Read":
        is_gone = dict(zip(self.generations, among(_digests(self.generations), dropped), strict=True))
        return Read({record: of for record, of in self.generations.items() if not is_gone[record]})


def _digests(generations: Generations) -> Digests:
    return np.frombuffer(b"".join(record.to_bytes(20, "little") for record in generations), np.uint8).reshape(-1, 20)


class Records:
    """now_s: the time in the world."""

    def __init__(self, random: Random, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._written_s = [list(_moments(random)) for _ in range(NUM_RECORDS)]

    def read(self, cut: Cut) -> Read:
        """What a scan finds now: only the last version of a record is there, and no later one than the cut."""
        found = {}
        for record, moments in enumerate(self._written_s):
            generation = bisect_right(moments, self._now_s())
            if (EPOCH_S + moments[generation - 1]) * 1e9 <= cut.until_ns:
                found[record] = generation
        return Read(found)


def _moments(random: Random) -> list[float]:
    """From before the world's beginning."""
    moments = [-10.0]
    while moments[-1] < UNTIL_S:
        moments.append(max(0.0, moments[-1]) + random.expovariate(1 / MEAN_INTERVAL_S))
    return moments
