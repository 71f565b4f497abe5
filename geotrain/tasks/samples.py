"""Turns frames of joined rows into samples and statistics, alike at every site. Knows no site, store or model."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from geotrain.tasks.config import TaskConfig
from geotrain.tasks.encode import Encoder, as_category, log_columns, transform
from geotrain.tasks.features import Encoding, Moments, Statistics


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
    numbers = _numbers(frame, task.numeric())
    missing = transform(numbers, log_columns(task))
    numeric = {}
    for i, name in enumerate(task.numeric()):
        values = numbers[~missing[:, i], i]
        mean = float(values.mean()) if len(values) else 0.0
        numeric[name] = Moments(len(values), mean, float(((values - mean) ** 2).sum()))
    return Statistics(numeric, {name: _counts(frame[name]) for name in task.categorical()})


def encode_samples(frame: pl.DataFrame, task: TaskConfig, encoding: Encoding) -> Samples:
    """Encode rows that have a label."""
    label = pl.col(task.label.column)
    if task.label.above is not None:
        label = label > task.label.above
    labels = frame.select(label.cast(pl.Float32)).to_series().to_numpy()
    return Samples(encode(frame, task, encoding), torch.from_numpy(labels.copy()))


def encode(frame: pl.DataFrame, task: TaskConfig, encoding: Encoding) -> dict[str, Tensor]:
    """Return what the model gets for joined rows: `geotrain.tasks.encode.Encoder.inputs`."""
    encoder = Encoder(task, encoding)
    places = np.zeros((len(frame), len(encoder.categorical)), np.int64)
    for i, name in enumerate(encoder.categorical):
        distinct = frame[name].drop_nulls().unique()
        found = [encoder.place(i, value) for value in distinct]
        places[:, i] = frame[name].replace_strict(distinct, found, default=0, return_dtype=pl.Int64).to_numpy()
    return encoder.inputs(_numbers(frame, encoder.numeric), places)


def _numbers(frame: pl.DataFrame, names: list[str]) -> npt.NDArray[np.float64]:
    """Columns of the rows as a matrix, NaN where a value is missing."""
    numbers = np.empty((len(frame), len(names)))
    for i, name in enumerate(names):
        numbers[:, i] = frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return numbers


def _counts(column: pl.Series) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for value, count in column.drop_nulls().value_counts().iter_rows():
        counts[str(as_category(value))] += count
    return dict(counts)
