"""Turns joined rows into tensors, alike at every site: statistics that merge, the encoding they give, samples.

Knows no site, no store and no model.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from math import sqrt

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from geotrain.tasks.config import TaskConfig

# Standard deviations beyond which a number is clipped, so that one absurd value can't rule a batch.
MAX_DEVIATIONS = 5.0


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

    @classmethod
    def of(cls, frame: pl.DataFrame, task: TaskConfig) -> "Statistics":
        """The statistics of the joined training rows; rows from task.split.test_from on are left out."""
        frame, _ = split(frame, task)
        numeric = {}
        for name in task.numeric():
            values = _numbers(frame, task, name)
            values = values[~np.isnan(values)]
            mean = float(values.mean()) if len(values) else 0.0
            numeric[name] = Moments(len(values), mean, float(((values - mean) ** 2).sum()))
        categorical = {name: dict(Counter(_categories(frame, name).drop_nulls())) for name in task.categorical()}
        return cls(numeric, categorical)

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


@dataclass(frozen=True, slots=True)
class Samples:
    """Encoded rows. inputs: as `encode` gives them; labels: (n,) float32."""

    inputs: dict[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def split(frame: pl.DataFrame, task: TaskConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The training rows and the test rows, those without a label left out."""
    labelled = frame.drop_nulls(task.label.column)
    is_test = pl.col(task.rows.time) >= task.split.moment()
    return labelled.filter(~is_test), labelled.filter(is_test)


def encode_samples(frame: pl.DataFrame, task: TaskConfig, encoding: Encoding) -> Samples:
    """Encode rows that have a label."""
    label = pl.col(task.label.column)
    if task.label.above is not None:
        label = label > task.label.above
    labels = frame.select(label.cast(pl.Float32)).to_series().to_numpy()
    return Samples(encode(frame, task, encoding), torch.from_numpy(labels.copy()))


def encode(frame: pl.DataFrame, task: TaskConfig, encoding: Encoding) -> dict[str, Tensor]:
    """Return what the model gets; features in the order of the task.

    numeric: (n, k) float32, standardised, 0 where missing. missing: (n, k) float32, 1 where missing.
    categorical: (n, c) int64, indices into the vocabularies, 0 for unknown, rare and missing values.
    """
    numbers = np.zeros((len(frame), len(task.numeric())))
    for i, name in enumerate(task.numeric()):
        scale = encoding.numeric[name]
        numbers[:, i] = (_numbers(frame, task, name) - scale.mean) / scale.deviation
    missing = np.isnan(numbers)
    numbers = np.where(missing, 0, numbers.clip(-MAX_DEVIATIONS, MAX_DEVIATIONS))
    categories = np.zeros((len(frame), len(task.categorical())), np.int64)
    for i, name in enumerate(task.categorical()):
        index = {value: place for place, value in enumerate(encoding.categorical[name], start=1)}
        categories[:, i] = _categories(frame, name).replace_strict(index, default=0, return_dtype=pl.Int64).to_numpy()
    return {
        "numeric": torch.from_numpy(numbers.astype(np.float32)),
        "missing": torch.from_numpy(missing.astype(np.float32)),
        "categorical": torch.from_numpy(categories),
    }


def _numbers(frame: pl.DataFrame, task: TaskConfig, name: str) -> npt.NDArray[np.float64]:
    """A numeric feature after its transform; NaN where it is missing or not finite."""
    values = frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()
    values[~np.isfinite(values)] = np.nan
    if task.features[name].transform == "signed_log":
        values = np.sign(values) * np.log1p(np.abs(values))
    return values


def _categories(frame: pl.DataFrame, name: str) -> pl.Series:
    return frame[name].cast(pl.String)
