from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import permutations
from statistics import mean
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.errors import DataError
from geotrain.tasks.config import JoinStep, TaskConfig
from site_agent.join.steps import join_rows
from tests.tasks.pumps import pumps

START = datetime(2024, 1, 1)
ROWS: dict[str, Any] = {"at": pl.Datetime("us"), "k": pl.String, "j": pl.Int64, "y": pl.Int64}
EVENTS: dict[str, Any] = {"at": pl.Datetime("us"), "k": pl.String, "j": pl.Int64, "v": pl.Float64}
COLUMNS = {"at": "timestamp", "k": "string", "j": "int64"}

Event = tuple[datetime | None, str | None, int | None, float | None]

# Few moments, keys and values, so that ties, duplicates and empty windows all come up often.
minutes = st.integers(0, 5).map(lambda minute: START + timedelta(minutes=minute))
keys = st.sampled_from(["a", "b", None])
numbers = st.sampled_from([1, 2, None])
values = st.sampled_from([-3.0, 0.0, 0.5, 7.0, float("nan"), None])
some_rows = st.lists(st.tuples(minutes, keys, numbers, st.just(0)), max_size=12)
some_events = st.lists(st.tuples(st.none() | minutes, keys, numbers, values), max_size=30)
key_choices = st.sampled_from([{}, {"k": "k"}, {"k": "k", "j": "j"}])
lengths_s = st.sampled_from([60.0, 150.0, 600.0])


def task_with(*steps: dict[str, Any]) -> TaskConfig:
    return pumps(
        {
            "local": {"rows": {"path": "rows.parquet", "columns": {**COLUMNS, "y": "int64"}}},
            "view": {"events": {"columns": {**COLUMNS, "v": "float64"}}},
            "rows": {"dataset": "rows", "time": "at"},
            "join": [{"source": "events", **step} for step in steps],
            "features": {"j": {}},
            "label": {"column": "y"},
        }
    )


def joined(task: TaskConfig, rows: Sequence[Any], events: Sequence[Event]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=ROWS, orient="row")
    return join_rows(task, frame, {"events": pl.DataFrame(events, schema=EVENTS, orient="row")})


def matching(row: Any, events: Sequence[Event], step: JoinStep) -> list[Event]:
    """The events that a row may see, by the letter of the definition."""
    own = {"k": row[1], "j": row[2]}
    return [
        event
        for event in events
        if event[0] is not None
        and event[0] <= row[0]
        and all(own[name] is not None and own[name] == {"k": event[1], "j": event[2]}[name] for name in step.by)
    ]


def reference(row: Any, events: Sequence[Event], step: JoinStep) -> Any:
    """What a step should give for a row, found by looking at every event."""
    seen = matching(row, events, step)
    assert step.within_s is not None
    oldest = row[0] - timedelta(seconds=step.within_s)
    if step.kind == "latest":
        # Greatest value among the newest: null is the least, NaN the greatest.
        order = [
            (event[0], event[3] is not None, event[3] != event[3], event[3] if event[3] == event[3] else 0, event[3])
            for event in seen
            if event[0] >= oldest
        ]
        newest = max(order, key=lambda entry: (*entry[:3], entry[3] or 0), default=None)
        return None if newest is None else newest[4]
    inside = [event[3] for event in seen if event[0] > oldest]
    finite = [value for value in inside if value is not None and value == value]
    if step.aggregate == "count":
        return len(finite)
    aggregates = {"sum": sum, "mean": mean, "min": min, "max": max}
    return aggregates[str(step.aggregate)](finite) if finite else None


def assert_same(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or ours == pytest.approx(theirs, nan_ok=True)


@given(some_rows, some_events, key_choices, lengths_s)
@settings(max_examples=100, deadline=None)
def test_latest_gives_what_looking_at_every_event_gives(
    rows: list[Any], events: list[Event], by: dict[str, str], within_s: float
) -> None:
    task = task_with(
        {"kind": "latest", "by": by, "known_at": "at", "within_s": within_s, "columns": {"last": "v"}, "age_s": "age"}
    )
    frame = joined(task, rows, events)
    assert_same(frame["last"].to_list(), [reference(row, events, task.join[0]) for row in rows])
    ages = [
        max((event[0] for event in matching(row, events, task.join[0]) if event[0] is not None), default=None)
        for row in rows
    ]
    seconds = [None if at is None else (row[0] - at).total_seconds() for row, at in zip(rows, ages, strict=True)]
    assert_same(frame["age"].to_list(), [age if age is not None and age <= within_s else None for age in seconds])


@given(some_rows, some_events, key_choices, lengths_s, st.sampled_from(["count", "sum", "mean", "min", "max"]))
@settings(max_examples=100, deadline=None)
def test_a_window_gives_what_looking_at_every_event_gives(
    rows: list[Any], events: list[Event], by: dict[str, str], within_s: float, aggregate: str
) -> None:
    task = task_with(
        {
            "kind": "window",
            "by": by,
            "known_at": "at",
            "within_s": within_s,
            "aggregate": aggregate,
            "columns": {"total": "v"},
        }
    )
    frame = joined(task, rows, events)
    assert_same(frame["total"].to_list(), [reference(row, events, task.join[0]) for row in rows])


@given(some_rows, some_events, key_choices, lengths_s, st.sampled_from(["latest", "window"]))
@settings(max_examples=60, deadline=None)
def test_an_inner_step_keeps_the_rows_that_match_something_and_gives_them_the_same(
    rows: list[Any], events: list[Event], by: dict[str, str], within_s: float, kind: str
) -> None:
    step = {"kind": kind, "by": by, "known_at": "at", "within_s": within_s, "columns": {"new": "v"}}
    step |= {"aggregate": "min"} if kind == "window" else {}
    inner = task_with({**step, "how": "inner"})
    oldest = [row[0] - timedelta(seconds=within_s) for row in rows]
    keeps = [
        any(
            event[0] > start or (event[0] == start and kind == "latest")
            for event in matching(row, events, inner.join[0])
        )
        for row, start in zip(rows, oldest, strict=True)
    ]
    expected = joined(task_with(step), rows, events).filter(pl.Series(keeps, dtype=pl.Boolean))
    assert joined(inner, rows, events).equals(expected)


def test_an_inner_equi_step_drops_rows_without_a_match() -> None:
    task = task_with({"kind": "equi", "by": {"k": "k"}, "columns": {"value": "v"}, "how": "inner"})
    rows = [(START, key, None, 0) for key in ("b", "z", None, "a")]
    frame = joined(task, rows, [(None, "a", 1, 1.0), (None, "b", 2, None), (None, None, 3, 3.0)])
    assert frame.select("k", "value").rows() == [("b", None), ("a", 1.0)]


def test_without_a_tolerance_the_latest_row_counts_however_old() -> None:
    old: Event = (START - timedelta(days=4000), "a", 1, 5.0)
    step = {"kind": "latest", "by": {"k": "k"}, "known_at": "at", "columns": {"last": "v"}}
    assert joined(task_with(step), [(START, "a", 1, 0)], [old])["last"].to_list() == [5.0]
    assert joined(task_with({**step, "within_s": 60}), [(START, "a", 1, 0)], [old])["last"].to_list() == [None]


@pytest.mark.parametrize(
    ("aggregate", "expected"), [("count", 2), ("sum", 5.0), ("mean", 2.5), ("min", 2.0), ("max", 3.0)]
)
def test_a_window_has_its_end_and_not_its_start(aggregate: str, expected: float) -> None:
    step = {"kind": "window", "known_at": "at", "within_s": 60, "aggregate": aggregate, "columns": {"total": "v"}}
    seconds_before = {60: -100.0, 59: 2.0, 0: 3.0, -1: 1000.0}
    events: list[Event] = [(START - timedelta(seconds=s), "a", 1, value) for s, value in seconds_before.items()]
    extremes: list[Event] = [
        (START - timedelta(seconds=60), "a", 1, 1000.0),
        (START + timedelta(seconds=1), "a", 1, -1.0),
    ]
    assert joined(task_with(step), [(START, "a", 1, 0)], events + extremes)["total"].to_list() == [expected]


@pytest.mark.parametrize(("aggregate", "expected"), [("sum", 1.5), ("mean", 0.75), ("min", 0.5), ("max", 1.0)])
@pytest.mark.parametrize("outside", [1e18, 1.5e308])
@pytest.mark.parametrize("by", [{}, {"k": "k"}])
def test_great_values_outside_a_window_leave_what_is_inside_exact(
    by: dict[str, str], outside: float, aggregate: str, expected: float
) -> None:
    step = {"kind": "window", "by": by, "known_at": "at", "within_s": 60, "aggregate": aggregate, "columns": {"t": "v"}}
    before: list[Event] = [(START - timedelta(seconds=90 + s), "a", 1, outside) for s in range(3)]
    inside: list[Event] = [(START, "a", 1, 1.0), (START - timedelta(seconds=30), "a", 1, 0.5)]
    assert joined(task_with(step), [(START, "a", 1, 0)], [*before, *inside])["t"].to_list() == [expected]


EVERY_KIND = (
    {"kind": "latest", "by": {"k": "k"}, "known_at": "at", "within_s": 300, "columns": {"last": "v", "j_last": "j"}},
    {"kind": "window", "known_at": "at", "within_s": 300, "aggregate": "mean", "columns": {"mean": "v"}},
    {
        "kind": "window",
        "by": {"k": "k"},
        "known_at": "at",
        "within_s": 300,
        "aggregate": "count",
        "columns": {"n": "v"},
    },
)


@given(some_rows, some_events, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_a_source_never_matters(rows: list[Any], events: list[Event], random: Any) -> None:
    task = task_with(*EVERY_KIND)
    shuffled = random.sample(events, len(events))
    assert joined(task, rows, events).equals(joined(task, rows, shuffled))


@given(some_rows, some_events, minutes)
@settings(max_examples=40, deadline=None)
def test_what_happens_later_changes_nothing_for_a_row(rows: list[Any], events: list[Event], now: datetime) -> None:
    task = task_with(*EVERY_KIND)
    past = [event for event in events if event[0] is not None and event[0] <= now]
    asked_by_now = pl.col("at") <= now
    assert joined(task, rows, events).filter(asked_by_now).equals(joined(task, rows, past).filter(asked_by_now))


@given(some_rows, some_events)
@settings(max_examples=40, deadline=None)
def test_no_step_adds_drops_reorders_or_changes_rows(rows: list[Any], events: list[Event]) -> None:
    frame = joined(task_with(*EVERY_KIND), rows, events)
    assert frame.select(list(ROWS)).equals(pl.DataFrame(rows, schema=ROWS, orient="row"))


def test_of_events_of_the_same_moment_the_greatest_counts() -> None:
    events: list[Event] = [(START, "a", 1, value) for value in (2.0, 7.0, None)]
    for order in permutations(events):
        assert joined(task_with(EVERY_KIND[0]), [(START, "a", None, 0)], order)["last"].to_list() == [7.0]


def test_an_equal_key_brings_its_columns_and_an_unknown_or_null_one_brings_null() -> None:
    task = task_with({"kind": "equi", "by": {"k": "k"}, "columns": {"value": "v"}})
    rows = [(START, key, None, 0) for key in ("b", "z", None, "a")]
    events: list[Event] = [(None, "a", 1, 1.0), (None, "b", 2, 2.0), (None, None, 3, 3.0), (None, None, 4, 4.0)]
    assert joined(task, rows, events)["value"].to_list() == [2.0, None, None, 1.0]


@given(some_rows, st.permutations([(None, "a", j, j and j / 2) for j in (1, 2, None, None)]), st.booleans())
@settings(deadline=None)
def test_integers_bring_the_columns_that_the_same_keys_as_text_bring(
    rows: list[Any], events: list[Event], is_inner: bool
) -> None:
    step = {"kind": "equi", "columns": {"value": "v", "name": "k"}, "how": "inner" if is_inner else "left"}
    frame, source = pl.DataFrame(rows, schema=ROWS, orient="row"), pl.DataFrame(events, schema=EVENTS, orient="row")
    texts = [table.with_columns(k=pl.col("j").cast(pl.String)) for table in (frame, source.drop("k"))]
    by_text = task_with({**step, "by": {"k": "k"}, "columns": {"value": "v", "name": "j"}})
    expected = join_rows(by_text, texts[0], {"events": texts[1]})
    found = join_rows(task_with({**step, "by": {"j": "j"}}), frame, {"events": source})
    assert found["value"].to_list() == expected["value"].to_list()
    assert found["j"].to_list() == expected["j"].to_list()
    assert found["name"].is_null().to_list() == expected["name"].is_null().to_list()


@pytest.mark.parametrize("column", ["k", "j"])
def test_an_equal_key_that_is_not_unique_is_refused_by_the_names_of_set_and_column(column: str) -> None:
    task = task_with({"kind": "equi", "by": {column: column}, "columns": {"value": "v"}})
    with pytest.raises(DataError, match=f"events: several rows have the same {column}"):
        joined(task, [(START, "a", None, 0)], [(None, "a", 1, 1.0), (None, "a", 1, 2.0)])


def test_a_step_can_join_by_a_column_that_an_earlier_step_added() -> None:
    task = task_with(
        {"kind": "equi", "by": {"k": "k"}, "columns": {"other": "j"}},
        {"kind": "equi", "by": {"other": "j"}, "columns": {"value": "v"}},
    )
    rows = [(START, "a", None, 0)]
    assert joined(task, rows, [(None, "a", 9, 1.0)])["value"].to_list() == [1.0]


@pytest.mark.parametrize(("kind", "values"), [("bool", [True, False, None]), ("int64", [1, 0, None])])
def test_whole_numbers_and_truth_values_can_be_aggregated_too(kind: str, values: list[Any]) -> None:
    step = {"kind": "window", "known_at": "at", "within_s": 60, "aggregate": "mean", "columns": {"mean": "v"}}
    task = task_with(step)
    task.view["events"].columns["v"] = kind
    rows = pl.DataFrame([(START, "a", 1, 0)], schema=ROWS, orient="row")
    events = pl.DataFrame({"at": [START] * 3, "v": values})
    assert join_rows(task, rows, {"events": events})["mean"].to_list() == [0.5]


def test_a_row_without_a_time_is_refused() -> None:
    with pytest.raises(DataError, match="rows: at is null in 1 rows"):
        joined(task_with(*EVERY_KIND), [(None, "a", 1, 0)], [])


def test_times_may_come_as_microseconds_since_the_epoch() -> None:
    task = task_with(EVERY_KIND[1])
    rows = pl.DataFrame([(START, "a", 1, 0)], schema=ROWS, orient="row")
    events = pl.DataFrame([(START, "a", 1, 5.0)], schema=EVENTS, orient="row")
    as_integers = events.with_columns(pl.col("at").cast(pl.Int64))
    assert join_rows(task, rows, {"events": as_integers}).equals(join_rows(task, rows, {"events": events}))
