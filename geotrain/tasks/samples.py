"""Turns joined rows into tensors, alike at every site: their statistics, samples. Knows no site, store or model."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding, Moments, Statistics

# Standard deviations beyond which a number is clipped, so that one absurd value can't rule a batch.
MAX_DEVIATIONS = 5.0


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


def summarize(frame: pl.DataFrame, task: TaskConfig) -> Statistics:
    """The statistics of the joined training rows; rows from task.split.test_from on are left out."""
    frame, _ = split(frame, task)
    numeric = {}
    for name in task.numeric():
        values = _numbers(frame, task, name)
        values = values[~np.isnan(values)]
        mean = float(values.mean()) if len(values) else 0.0
        numeric[name] = Moments(len(values), mean, float(((values - mean) ** 2).sum()))
    categorical = {name: dict(Counter(_categories(frame, name).drop_nulls())) for name in task.categorical()}
    return Statistics(numeric, categorical)


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
