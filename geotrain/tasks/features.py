"""How sites agree on an encoding of features: statistics that merge, and the encoding they give.

Knows no rows, no site, no store and no model.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from math import sqrt

from geotrain.tasks.config import TaskConfig


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations of a numeric feature, nulls left out."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both together (Chan, Golub and LeVeque 1979: no cancellation, unlike sums of squares)."""
        count = self.count + other.count
        if count == 0:
            return self
        mean = (self.count * self.mean + other.count * other.mean) / count
        between = (self.mean - other.mean) ** 2 * (self.count * other.count / count)
        return Moments(count, mean, self.squares + other.squares + between)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a site tells of its training rows so that all sites can encode alike: sums and counts, no rows.

    numeric: feature -> moments. categorical: feature -> value -> number of rows.
    """

    numeric: dict[str, Moments] = field(default_factory=dict)
    categorical: dict[str, dict[str, int]] = field(default_factory=dict)

    def merge(self, other: "Statistics") -> "Statistics":
        """The statistics of both sites' rows together, whichever comes first."""
        return Statistics(
            {name: moments.merge(other.numeric[name]) for name, moments in self.numeric.items()},
            {
                name: dict(Counter(counts) + Counter(other.categorical[name]))
                for name, counts in self.categorical.items()
            },
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Statistics":
        data = json.loads(text)
        return cls({name: Moments(**moments) for name, moments in data["numeric"].items()}, data["categorical"])


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of a numeric feature after its transform."""

    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Encoding:
    """How features become tensors. Part of a model state: without it the model can't be asked.

    numeric: feature -> its scale. categorical: feature -> its vocabulary in order; index 0 is everything else.
    """

    numeric: dict[str, Scale]
    categorical: dict[str, list[str]]

    @classmethod
    def from_statistics(cls, statistics: Statistics, task: TaskConfig) -> "Encoding":
        """The encoding that the merged statistics of all sites give."""
        return cls(
            {
                name: Scale(moments.mean, sqrt(moments.squares / max(moments.count, 1)) or 1.0)
                for name, moments in statistics.numeric.items()
            },
            {
                name: sorted(value for value, count in counts.items() if count >= task.features[name].min_count)
                for name, counts in statistics.categorical.items()
            },
        )

    def cardinality(self, name: str) -> int:
        """The number of indices of a categorical feature, with index 0."""
        return len(self.categorical[name]) + 1

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Encoding":
        data = json.loads(text)
        return cls({name: Scale(**scale) for name, scale in data["numeric"].items()}, data["categorical"])
