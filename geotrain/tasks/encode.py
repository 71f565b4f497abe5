"""Turns features into what the model gets: one way to do it, where a model is trained and where it is asked.

Knows no frames, no rows' source and no model.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding

# Standard deviations beyond which a number is clipped, so that one absurd value can't rule a batch.
MAX_DEVIATIONS = 5.0


class Encoder:
    """A task's features under an encoding. Threads may share it.

    numeric, categorical: the names of the features, in the order in which the model sees them.
    """

    def __init__(self, task: TaskConfig, encoding: Encoding) -> None:
        self.numeric = task.numeric()
        self.categorical = task.categorical()
        # (1, k), and not (k,): numpy takes a shorter way between arrays of one shape, as those of a single row are.
        self._logs = log_columns(task)[np.newaxis]
        self._means = np.array([[encoding.numeric[name].mean for name in self.numeric]])
        self._deviations = np.array([[encoding.numeric[name].deviation for name in self.numeric]])
        self._places: list[dict[str | None, int]] = [
            {category: place for place, category in enumerate(encoding.categorical[name], start=1)}
            for name in self.categorical
        ]

    def place(self, feature: int, value: Any) -> int:
        """Returns where a value stands in the vocabulary of a categorical feature; 0 for all that is not there.

        Raises TypeError for a value that is no text, whole number or truth.
        """
        return self._places[feature].get(as_category(value), 0)

    def inputs(self, numbers: NDArray[np.float64], places: NDArray[np.int64]) -> dict[str, Tensor]:
        """Returns what the model gets.

        numbers: (n, k), as they are in the rows, NaN where missing; is written over. places: (n, c), as `place` gives.
        numeric: (n, k) float32, standardised, 0 where missing. missing: (n, k) float32, 1 where missing or not finite.
        categorical: (n, c) int64.
        """
        missing = transform(numbers, self._logs)
        numbers -= self._means
        numbers /= self._deviations
        np.minimum(np.maximum(numbers, -MAX_DEVIATIONS, out=numbers), MAX_DEVIATIONS, out=numbers)
        np.copyto(numbers, 0, where=missing)
        return {
            "numeric": torch.from_numpy(numbers.astype(np.float32)),
            "missing": torch.from_numpy(missing.astype(np.float32)),
            "categorical": torch.from_numpy(places),
        }


def log_columns(task: TaskConfig) -> NDArray[np.bool_]:
    """Of which of the numeric features (k,) the logarithm is taken."""
    return np.array([task.features[name].transform == "signed_log" for name in task.numeric()], np.bool_)


def transform(numbers: NDArray[np.float64], logs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Transforms numbers (n, k) in place, before they are standardised. Returns which are missing or not finite.

    logs: (k,) or (1, k), true for the columns of which the logarithm is taken, sign kept.
    """
    missing = np.logical_not(np.isfinite(numbers))
    # Of all columns: for a single row, to pick some takes longer; and where they are not in one piece, numpy may round
    # another way.
    taken = np.abs(numbers)
    np.log1p(taken, out=taken)
    np.copyto(numbers, np.copysign(taken, numbers, out=taken), where=logs)
    return missing


def as_category(value: Any) -> str | None:
    """Returns a value as a category; None for none. Raises TypeError."""
    if value is None or type(value) is str:
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer | str):
        return str(value)
    raise TypeError(f"{value!r} is no text, whole number or truth")
