"""Which columns of a task's rows lie in the view by key, and what a record gives of them. Pure: reads nothing."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from geotrain.errors import DataError
from geotrain.serving.features import LiveFeatures, live_features, to_us
from geotrain.tasks.config import JoinStep, TaskConfig

KEY_TYPES: dict[str, type] = {"int64": int, "string": str}

Row = Mapping[str, Any]
Place = tuple[str, str | int]  # a set of the view, and a key


@dataclass(frozen=True, slots=True)
class EquiColumns:
    """What an equi step takes from the record whose key a row holds.

    key: the column of the rows that holds it. others: further columns that must be equal, ours -> theirs. taken: new
    column -> bin. columns: the new columns. needs: the columns of a row that say which record, and what it gives.
    """

    source: str
    key: str
    key_type: type
    others: Mapping[str, str]
    taken: Mapping[str, str]
    columns: frozenset[str]
    needs: tuple[str, ...]

    def place(self, row: Row) -> Place | None:
        """Where the row's record is; None where its key is null. Raises DataError for a key of another type."""
        key = row[self.key]
        if key is None:
            return None
        if type(key) is not self.key_type:
            raise DataError(
                f"column {self.key} holds {key!r}, and the keys of {self.source} are {self.key_type.__name__}",
                "give the key as it is declared",
            )
        return self.source, row[self.key]

    def values(self, bins: Mapping[str, Any] | None, row: Row) -> dict[str, Any]:
        """What the record gives to the row. bins: None where there is no record."""
        for ours, theirs in self.others.items():
            if (own := row[ours]) is None or (bins is not None and own != bins.get(theirs)):
                bins = None
        if bins is None:
            return dict.fromkeys(self.columns)
        return {new: bins.get(theirs) for new, theirs in self.taken.items()}


@dataclass(frozen=True, slots=True)
class LiveColumns:
    """What features that live give at a row's time; as `EquiColumns`. time: the column that holds it."""

    features: LiveFeatures
    time: str
    columns: frozenset[str]
    needs: tuple[str, ...]

    def place(self, row: Row) -> Place | None:
        key = self.features.key(row)
        return None if key is None else (self.features.set_name, key)

    def values(self, bins: Mapping[str, Any] | None, row: Row) -> dict[str, Any]:
        time = row[self.time]
        if not isinstance(time, datetime):
            raise DataError(f"column {self.time} holds {time!r}", "give the row's time as a datetime")
        return self.features.values(bins, to_us(time))


RecordColumns = EquiColumns | LiveColumns


def record_columns(task: TaskConfig, live: Collection[str]) -> list[RecordColumns]:
    """What the view gives to the task's rows by key. live: sets whose features are kept up to date there, by key.

    Raises ConfigError for a set that no feature lives of.
    """
    shared = task.view_columns()
    found: list[RecordColumns] = [
        _equi(task, step) for step in task.join if _is_by_key(task, step) and not shared.intersection(step.by)
    ]
    for features in live_features(task, live) if live else ():
        ours = tuple(ours for ours, _ in features.by)
        columns = frozenset(features.new_columns())
        found.append(LiveColumns(features, task.rows.time, columns, (*ours, task.rows.time)))
    return found


def _is_by_key(task: TaskConfig, step: JoinStep) -> bool:
    view_set = task.view.get(step.source)
    return step.kind == "equi" and view_set is not None and view_set.key in step.by.values()


def _equi(task: TaskConfig, step: JoinStep) -> EquiColumns:
    view_set = task.view[step.source]
    key = next(ours for ours, theirs in step.by.items() if theirs == view_set.key)
    return EquiColumns(
        source=step.source,
        key=key,
        key_type=KEY_TYPES[view_set.columns[step.by[key]]],
        others={ours: theirs for ours, theirs in step.by.items() if ours != key},
        taken=step.columns,
        columns=frozenset(step.columns),
        needs=tuple(step.by),
    )
