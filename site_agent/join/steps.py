"""The steps of a join, on rows that lie in memory. Pure: knows no file, no store, no Ray.

Nothing that became known after a row's time ever reaches the row, and no step adds or changes rows.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.exceptions import ComputeError

from geotrain.errors import DataError
from geotrain.tasks.config import JoinStep, TaskConfig
from site_agent.join.matching import NOWHERE, find

MICROSECONDS = 1_000_000
# The join's own columns: a row's place among the local rows, its time, when a source row became known.
ROW, TIME, KNOWN_AT = "__row", "__time", "__known_at"
# A source row's place among all, and that of the first with its keys.
PLACE, FIRST = "__place", "__first"


def join_rows(task: TaskConfig, rows: pl.DataFrame, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return `rows`, in their order, with the columns that the task's join steps add.

    tables: the local datasets and sets of the view by name, as the steps' `source` names them.
    """
    steps = [(step, tables[step.source]) for step in task.join]
    return run_steps(task, number_rows(task, rows), steps).sort(ROW).drop(ROW)


def number_rows(task: TaskConfig, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the samples with their place in a column ROW. Raises DataError where one has no time."""
    if num_nulls := rows[task.rows.time].null_count():
        raise DataError(
            f"{task.rows.dataset}: {task.rows.time} is null in {num_nulls} rows",
            "Every sample needs the moment at which the model is asked; fill it in or leave the rows out.",
        )
    return rows.with_row_index(ROW)


def run_steps(task: TaskConfig, rows: pl.DataFrame, steps: Iterable[tuple[JoinStep, pl.DataFrame]]) -> pl.DataFrame:
    """Return numbered rows, in any order, with the columns that the steps add from their sources."""
    joined = rows.with_columns(pl.col(task.rows.time).cast(pl.Int64).alias(TIME))
    for step, source in steps:
        joined = JOINS[step.kind](joined, source, step)
    return joined.drop(TIME)


def join_equi(rows: pl.DataFrame, source: pl.DataFrame, step: JoinStep) -> pl.DataFrame:
    """Add the columns of the one source row with the same keys."""
    if [rows[ours].dtype for ours in step.by] == [source[theirs].dtype for theirs in step.by.values()] == [pl.Int64()]:
        return _join_numbers(rows, source, step)
    how: Literal["left", "inner"] = "inner" if step.how == "inner" else "left"
    matches = source.select(**_source_keys(step), **_source_columns(step))
    try:
        return rows.join(matches, left_on=list(step.by), right_on=list(_source_keys(step)), how=how, validate="m:1")
    except ComputeError as error:
        raise _several(step) from error


def _join_numbers(rows: pl.DataFrame, source: pl.DataFrame, step: JoinStep) -> pl.DataFrame:
    """`join_equi` by one column of integers, as most joins are."""
    (ours, theirs), *_ = step.by.items()
    source = source.drop_nulls(theirs)
    places, is_unique = find(source[theirs].to_numpy(), rows[ours].fill_null(0).to_numpy())
    if not is_unique:
        raise _several(step)
    is_found = pl.Series(places != NOWHERE) & rows[ours].is_not_null()
    matches = source.select(**_source_columns(step))
    if is_found.all():
        return rows.hstack(matches[places])
    if step.how == "inner":
        return rows.filter(is_found).hstack(matches[pl.Series(places).filter(is_found)])
    return rows.hstack(matches.select(pl.all().gather(pl.Series(places).set(~is_found, None))))


def _several(step: JoinStep) -> DataError:
    return DataError(
        f"{step.source}: several rows have the same {', '.join(step.by.values())}",
        "An equi step takes one row a key; choose other keys, or a latest or a window step.",
    )


def join_latest(rows: pl.DataFrame, source: pl.DataFrame, step: JoinStep) -> pl.DataFrame:
    """Add the columns of the newest source row with the same keys, known at the row's time, at most `within_s` old.

    Of source rows of the same moment the one with the greatest values counts, so their order never matters.
    """
    joined = _as_of(rows, _events(source, step), step, tolerance=_within_us(step))
    if step.how == "inner":
        joined = joined.filter(pl.col(KNOWN_AT).is_not_null())
    if step.age_s:
        joined = joined.with_columns(((pl.col(TIME) - pl.col(KNOWN_AT)) / MICROSECONDS).alias(step.age_s))
    return joined.drop(KNOWN_AT)


def join_window(rows: pl.DataFrame, source: pl.DataFrame, step: JoinStep) -> pl.DataFrame:
    """Add aggregates over the source rows with the same keys that became known in (time - `within_s`, time] of the row.

    Nulls and numbers that are not finite are left out; an aggregate of nothing is null, a count of nothing is 0.
    """
    rows = rows.sort(ROW)
    events = _events(source, step).sort([*_source_keys(step), KNOWN_AT], maintain_order=True)
    start, stop = _windows(rows, events, step)
    joined = rows.with_columns(**{new: _aggregate(events[new], start, stop, step.aggregate) for new in step.columns})
    return joined.filter(stop > start) if step.how == "inner" else joined


JOINS = {"equi": join_equi, "latest": join_latest, "window": join_window}


def _windows(rows: pl.DataFrame, events: pl.DataFrame, step: JoinStep) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each row's window begins and ends among the source's rows, which lie by key and time."""
    keys = list(_source_keys(step))
    first = pl.col(PLACE).min()
    places = events.select(*keys, KNOWN_AT).with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(PLACE))
    places = places.with_columns((first.over(keys) if keys else first).alias(FIRST)).sort(KNOWN_AT, PLACE)
    asked = rows.select(ROW, TIME, *step.by)
    last = _as_of(asked, places, step).sort(ROW)
    before = _as_of(asked.with_columns(pl.col(TIME) - _within_us(step)), places, step).sort(ROW)
    start = (before[PLACE] + 1).fill_null(last[FIRST]).fill_null(0)
    return start.to_numpy(), (last[PLACE] + 1).fill_null(0).to_numpy()


def _aggregate(column: pl.Series, start: NDArray[np.int64], stop: NDArray[np.int64], kind: str | None) -> pl.Series:
    numbers = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    is_finite = np.isfinite(numbers)
    counts = _fold(np.add, is_finite.astype(np.int64), start, stop, 0)
    if kind == "count":
        return pl.Series(counts)
    fold, nothing = {"min": (np.minimum, np.inf), "max": (np.maximum, -np.inf)}.get(str(kind), (np.add, 0.0))
    folded = pl.Series(_fold(fold, np.where(is_finite, numbers, nothing), start, stop, nothing))
    if kind == "mean":
        folded = folded / pl.Series(counts)
    return folded.set(pl.Series(counts == 0), None)


def _fold(
    fold: np.ufunc, values: NDArray[Any], start: NDArray[np.int64], stop: NDArray[np.int64], nothing: float
) -> NDArray[Any]:
    """Fold values[start:stop] for each start and stop.

    Folds of 1, 2, 4, ... values are made for all places at once, and each window is put together of those. Unlike
    differences of running totals this lets nothing outside a window touch it, be it only by its rounding.
    """
    folded, at, remaining, length = np.full(len(start), nothing, values.dtype), start.copy(), stop - start, 1
    with np.errstate(over="ignore", invalid="ignore"):  # the sum of a window may be too great for a float: infinite
        while remaining.any():
            taking = np.flatnonzero(remaining & 1)
            folded[taking] = fold(folded[taking], values[at[taking]])
            at[taking] += length
            values = fold(values[:-length], values[length:])
            remaining >>= 1
            length *= 2
    return folded


def _as_of(rows: pl.DataFrame, events: pl.DataFrame, step: JoinStep, *, tolerance: int | None = None) -> pl.DataFrame:
    """Add to each row the last event up to its time with the same keys."""
    return rows.sort(TIME).join_asof(
        events,
        left_on=TIME,
        right_on=KNOWN_AT,
        by_left=list(step.by) or None,
        by_right=list(_source_keys(step)) or None,
        tolerance=tolerance,
        coalesce=False,
        check_sortedness=False,  # polars can't check it by group; both sides are sorted here
    )


def _events(source: pl.DataFrame, step: JoinStep) -> pl.DataFrame:
    """The source's keys, times and new columns in order of time, in an order that does not depend on the source's."""
    assert step.known_at is not None  # the task's checks saw to it
    events = source.select(
        **_source_keys(step), **{KNOWN_AT: pl.col(step.known_at).cast(pl.Int64)}, **_source_columns(step)
    )
    return events.drop_nulls(KNOWN_AT).sort(KNOWN_AT, *step.columns)


def _source_keys(step: JoinStep) -> dict[str, pl.Expr]:
    return {f"__key{i}": pl.col(column) for i, column in enumerate(step.by.values())}


def _source_columns(step: JoinStep) -> dict[str, pl.Expr]:
    return {new: pl.col(column) for new, column in step.columns.items()}


def _within_us(step: JoinStep) -> int | None:
    return None if step.within_s is None else round(step.within_s * MICROSECONDS)
