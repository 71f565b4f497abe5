"""Joins a site's rows with its other datasets and with the view, as of each row's time. Pure: knows no file, no store.

Nothing that happened after a row's time ever reaches the row, and no step adds, drops or reorders rows.
"""

from collections.abc import Mapping

import polars as pl
from polars.exceptions import ComputeError

from geotrain.errors import DataError
from geotrain.tasks.config import JoinStep, TaskConfig

MICROSECONDS = 1_000_000
# The join's own columns: a row's place, its time, the time of a source row. None outlives the join.
ROW, TIME, SOURCE_TIME = "__row", "__time", "__source_time"


def join_rows(task: TaskConfig, rows: pl.DataFrame, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return `rows`, in their order, with the columns that the task's join steps add.

    tables: the local datasets and sets of the view by name, as the steps' `source` names them.
    """
    if num_nulls := rows[task.rows.time].null_count():
        raise DataError(
            f"{task.rows.dataset}: {task.rows.time} is null in {num_nulls} rows",
            "Every sample needs the moment at which the model is asked; fill it in or leave the rows out.",
        )
    joined = rows.with_row_index(ROW).with_columns(pl.col(task.rows.time).cast(pl.Int64).alias(TIME))
    for step in task.join:
        joined = JOINS[step.kind](joined, tables[step.source], step)
    return joined.sort(ROW).drop(ROW, TIME)


def join_equi(rows: pl.DataFrame, source: pl.DataFrame, step: JoinStep) -> pl.DataFrame:
    """Add the columns of the one source row with the same keys; null where there is none."""
    matches = source.select(**_source_keys(step), **_source_columns(step))
    try:
        return rows.join(matches, left_on=list(step.by), right_on=list(_source_keys(step)), how="left", validate="m:1")
    except ComputeError as error:
        raise DataError(
            f"{step.source}: several rows have the same {', '.join(step.by.values())}",
            "An equi step takes one row a key; choose other keys, or a latest or a window step.",
        ) from error


def join_latest(rows: pl.DataFrame, source: pl.DataFrame, step: JoinStep) -> pl.DataFrame:
    """Add the columns of the newest source row with the same keys, not after the row and at most `within_s` before it.

    Of source rows of the same moment the one with the greatest values counts, so their order never matters.
    """
    joined = _as_of(rows, _events(source, step), step, tolerance=_within_us(step))
    if step.age_s:
        joined = joined.with_columns(((pl.col(TIME) - pl.col(SOURCE_TIME)) / MICROSECONDS).alias(step.age_s))
    return joined.drop(SOURCE_TIME)


def join_window(rows: pl.DataFrame, source: pl.DataFrame, step: JoinStep) -> pl.DataFrame:
    """Add aggregates over the source rows with the same keys whose time is in (row's time - `within_s`, row's time].

    A total over a window is the running total at its end less that at its start: two as-of joins, whatever its length.
    Nulls and numbers that are not finite are left out; a mean or a sum of nothing is null, a count of nothing is 0.
    """
    keys = list(_source_keys(step))
    numbers = {name: pl.col(name).cast(pl.Float64) for name in step.columns}
    finite = {name: pl.when(number.is_finite()).then(number) for name, number in numbers.items()}
    events = _events(source, step).with_columns(**finite)
    values = {f"__sum_{name}": pl.col(name).fill_null(0).cum_sum() for name in step.columns}
    counts = {f"__count_{name}": pl.col(name).cum_count().cast(pl.Int64) for name in step.columns}
    running = {name: total.over(keys) if keys else total for name, total in {**values, **counts}.items()}
    events = events.select(*keys, SOURCE_TIME, **running)

    asked = rows.select(ROW, TIME, *step.by)
    at_end = _as_of(asked, events, step).sort(ROW)
    at_start = _as_of(asked.with_columns(pl.col(TIME) - _within_us(step)), events, step).sort(ROW)
    totals = pl.DataFrame({name: at_end[name].fill_null(0) - at_start[name].fill_null(0) for name in running})
    aggregates = totals.select(_aggregate(step.aggregate, name) for name in step.columns)
    return rows.sort(ROW).hstack(aggregates)


JOINS = {"equi": join_equi, "latest": join_latest, "window": join_window}


def _aggregate(kind: str | None, name: str) -> pl.Expr:
    total, count = pl.col(f"__sum_{name}"), pl.col(f"__count_{name}")
    if kind == "count":
        return count.alias(name)
    return pl.when(count > 0).then(total / count if kind == "mean" else total).alias(name)


def _as_of(rows: pl.DataFrame, events: pl.DataFrame, step: JoinStep, *, tolerance: int | None = None) -> pl.DataFrame:
    """Add to each row the last event up to its time with the same keys."""
    return rows.sort(TIME).join_asof(
        events,
        left_on=TIME,
        right_on=SOURCE_TIME,
        by_left=list(step.by) or None,
        by_right=list(_source_keys(step)) or None,
        tolerance=tolerance,
        coalesce=False,
        check_sortedness=False,  # polars can't check it by group; both sides are sorted here
    )


def _events(source: pl.DataFrame, step: JoinStep) -> pl.DataFrame:
    """The source's keys, time and new columns in order of time, in an order that does not depend on the source's."""
    assert step.time is not None  # the task's checks saw to it
    events = source.select(
        **_source_keys(step), **{SOURCE_TIME: pl.col(step.time).cast(pl.Int64)}, **_source_columns(step)
    )
    return events.drop_nulls(SOURCE_TIME).sort(SOURCE_TIME, *step.columns)


def _source_keys(step: JoinStep) -> dict[str, pl.Expr]:
    return {f"__key{i}": pl.col(column) for i, column in enumerate(step.by.values())}


def _source_columns(step: JoinStep) -> dict[str, pl.Expr]:
    return {new: pl.col(column) for new, column in step.columns.items()}


def _within_us(step: JoinStep) -> int:
    assert step.within_s is not None  # the task's checks saw to it
    return round(step.within_s * MICROSECONDS)
