"""Scores rows with the newest state of a model: local columns and keys in, outputs out. Knows no frame, no training."""

import asyncio
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from geotrain.serving.records import Place, Row
from geotrain.serving.scorer import Scorer
from geotrain.states.lookup import State
from geotrain.states.watch import ModelWatcher
from geotrain.tasks.targets import DEFAULT_TARGETS
from geotrain.view.keyed import Record

# Scored at once: each takes the memory of the model's widest layer.
MAX_ROWS_AT_ONCE = 65_536


class Predictor:
    """The model of the state that a watcher serves. Threads may share it, and tasks of asyncio.

    A row is a mapping of its columns: None where a value is unknown, times as datetimes, without a zone in UTC. What
    the view has by the row's keys is read there, all in one batch, but for columns that the row brings itself. What
    comes out is the model's output: for a classification a logit.
    """

    def __init__(
        self,
        watcher: ModelWatcher,
        *,
        live: Collection[str] = (),
        allowed_targets: Sequence[str] = DEFAULT_TARGETS,
    ) -> None:
        """Builds the model of the served state, and from then on that of each new state before it is served.

        live: sets of the view whose latest and window features `geotrain.serving.live` keeps up to date, by key.
        allowed_targets: patterns of the names that a state's task may make its model of.
        Raises DataError for a state that names no task, or lacks tensors that its model needs.
        """
        self._watcher = watcher
        self._live = live
        self._allowed = allowed_targets
        watcher.subscribe(self._take)

    @property
    def version(self) -> int:
        """Of the state that scores."""
        return self._scorer.state.manifest.version

    @property
    def columns(self) -> list[str]:
        """What a row must have: keys, times, and the features that the view does not give."""
        return self._scorer.columns

    def predict(self, row: Row) -> float:
        """Returns the output for one row. Raises as `predict_many`."""
        scorer = self._scorer
        return float(scorer.outputs(scorer.joined([row], self._read))[0])

    def predict_many(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Returns the outputs (n,), all of one version.

        Raises DataError for a row that lacks a column, or has a value that is not of its type; ViewError where the view
        has to be read, and can't be.
        """
        scorer = self._scorer
        parts = []
        for at in range(0, len(rows), MAX_ROWS_AT_ONCE):
            parts.append(scorer.outputs(scorer.joined(rows[at : at + MAX_ROWS_AT_ONCE], self._read)))
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    async def predict_async(self, row: Row) -> float:
        """`predict`, in a thread."""
        return await asyncio.to_thread(self.predict, row)

    async def predict_many_async(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """`predict_many`, in a thread."""
        return await asyncio.to_thread(self.predict_many, rows)

    def _take(self, state: State) -> None:
        self._scorer = Scorer(state, live=self._live, allowed=self._allowed)

    def _read(self, places: Sequence[Place]) -> Sequence[Record | None]:
        return self._watcher.view.get_records(places)
