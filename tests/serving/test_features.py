"""What is looked up is what a join gives: for any rows in any order, and for every flight of the year."""

import gc
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geotrain.errors import ConfigError
from geotrain.serving.features import EVENTS, NUM_SPARE, Change, LiveFeatures, key_of, live_features, to_us
from geotrain.tasks.config import TaskConfig
from sim.flights import SITES, site_data
from site_agent.join.steps import join_rows
from tests.sim.test_config import sim
from tests.site_agent.join.test_steps import EVENTS as SCHEMA
from tests.site_agent.join.test_steps import ROWS, START, key_choices, keys, numbers, task_with, values

minutes = st.integers(0, 8).map(lambda minute: START + timedelta(minutes=minute))
late = st.sampled_from([0.0, 60.0, 200.0])
# By the event's id, what it said first and what it says in the end; its keys and its time stay as they are.
some_events = st.dictionaries(
    st.integers(0, 20), st.tuples(st.none() | minutes, keys, numbers, values, values), min_size=1, max_size=20
)
WITHIN = {"known_at": "at", "within_s": 150.0}
WINDOW = {"kind": "window", **WITHIN}


class Records:
    """The records that the view would hold, without a view."""

    def __init__(self, features: list[LiveFeatures], late_s: float = 0) -> None:
        self.features = features
        self._late_us = round(late_s * 1e6)
        self._held: dict[str, dict[str, Any]] = defaultdict(dict)

    def write(self, rows: list[tuple[Any, dict[str, Any]]]) -> None:
        for features in self.features:
            held = self._held[features.set_name]
            for record, change in features.changes(rows, self._late_us).items():
                held[record] = change.apply(held.get(record, {}))

    def values(self, row: dict[str, Any], time_us: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for features in self.features:
            record = features.key(row)
            events = None if record is None else self._held[features.set_name].get(record)
            found |= features.values(None if events is None else {EVENTS: events}, time_us)
        return found

    def sizes(self) -> list[int]:
        return [len(events) for held in self._held.values() for events in held.values()]


def steps_by(by: dict[str, str], endless: bool) -> TaskConfig:
    """Every kind of step, by these keys. endless: also one for which a row counts however old it is."""
    steps = [
        *([{"kind": "latest", "known_at": "at", "columns": {"last": "v"}, "age_s": "age"}] if endless else []),
        {"kind": "latest", **WITHIN, "columns": {"last_within": "v"}},
        {"kind": "latest", **WITHIN, "columns": {"last_k": "k", "last_j": "j"}},
        *({**WINDOW, "aggregate": kind, "columns": {kind: "v"}} for kind in ("count", "sum", "mean", "min", "max")),
        {**WINDOW, "within_s": 60.0, "aggregate": "mean", "columns": {"mean_j": "j"}},
    ]
    return task_with(*({**step, "by": by} for step in steps))


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in found.items():
        assert value == expected[name] or (value != value and expected[name] != expected[name]), name


@given(some_events, st.randoms(use_true_random=False), key_choices, late, st.tuples(keys, numbers), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_value_is_what_a_join_gives_in_whatever_order_rows_came_and_however_often(
    events: dict[int, Any], random: Any, by: dict[str, str], late_s: float, asked: tuple[Any, Any], endless: bool
) -> None:
    times = [at for at, *_ in events.values() if at is not None]
    assume(times and max(Counter((at, k, j) for at, k, j, *_ in events.values()).values()) <= NUM_SPARE)
    task = steps_by(by, endless)
    records = Records(live_features(task, ["events"]), late_s)

    def row(at: datetime | None, k: Any, j: Any, v: Any) -> dict[str, Any]:
        return {"at": None if at is None else to_us(at), "k": k, "j": j, "v": v}

    writes = [(number, row(at, k, j, first)) for number, (at, k, j, first, _) in events.items()]
    for sent in (writes, [(number, row(at, k, j, v)) for number, (at, k, j, _, v) in events.items()]):
        random.shuffle(sent)
        while sent:
            size = random.randint(1, 4)
            records.write(sent[:size])
            sent = sent[size:]
    history = pl.DataFrame([(*event[:3], event[4]) for event in events.values()], schema=SCHEMA, orient="row")
    moments = [max(times) + timedelta(seconds=seconds) for seconds in (-late_s, -late_s / 2, 0, 30, 150, 1e6)]
    rows = pl.DataFrame([(at, *asked, 0) for at in moments], schema=ROWS, orient="row")
    for joined in join_rows(task, rows, {"events": history}).iter_rows(named=True):
        assert_equal(records.values(joined, to_us(joined["at"])), joined)


@pytest.mark.parametrize("endless", [False, True])
def test_what_a_late_moment_asks_for_stays_and_no_more(endless: bool) -> None:
    task = steps_by({}, endless)
    records = Records(live_features(task, ["events"]), late_s=100.0)
    moments = [START + timedelta(seconds=10 * i) for i in range(60)]
    for i, at in enumerate(moments):
        records.write([(i, {"at": to_us(at), "k": "a", "j": i, "v": float(i)})])
    history = pl.DataFrame([(at, "a", i, float(i)) for i, at in enumerate(moments)], schema=SCHEMA, orient="row")
    asked = moments[-1] - timedelta(seconds=100)
    rows = pl.DataFrame([(asked, "a", 1, 0)], schema=ROWS, orient="row")
    [joined] = join_rows(task, rows, {"events": history}).to_dicts()
    assert_equal(records.values(joined, to_us(asked)), joined)
    assert records.sizes() == [(100 + 150) // 10 + 1 + (NUM_SPARE if endless else 0)]


@pytest.mark.parametrize(
    ("tied", "newest"), [([0.0, None], 0.0), ([7.0, float("nan"), -3.0], float("nan")), ([None, -3.0], -3.0)]
)
def test_of_rows_known_at_the_same_moment_the_one_counts_that_a_join_takes(tied: list[Any], newest: float) -> None:
    task = steps_by({}, endless=True)
    records = Records(live_features(task, ["events"]))
    records.write([(i, {"at": to_us(START), "k": "a", "j": 1, "v": value}) for i, value in enumerate(tied)])
    history = pl.DataFrame([(START, "a", 1, value) for value in tied], schema=SCHEMA, orient="row")
    [joined] = join_rows(
        task, pl.DataFrame([(START, "a", 1, 0)], schema=ROWS, orient="row"), {"events": history}
    ).to_dicts()
    assert_equal(records.values(joined, to_us(START)), joined)
    assert joined["last"] == newest or newest != newest


def test_a_sum_of_floats_is_rounded_as_a_join_rounds_it() -> None:
    task = task_with({**WINDOW, "aggregate": "sum", "columns": {"total": "v"}, "by": {}})
    events = [(START + timedelta(seconds=i % 7), "a", 1, (-1) ** i * 10.0 ** (i % 17) / 3) for i in range(60)]
    records = Records(live_features(task, ["events"]))
    records.write([(i, {"at": to_us(at), "v": v}) for i, (at, _, _, v) in enumerate(events)])
    at = START + timedelta(seconds=100)
    rows = pl.DataFrame([(at, "a", 1, 0)], schema=ROWS, orient="row")
    joined = join_rows(task, rows, {"events": pl.DataFrame(events, schema=SCHEMA, orient="row")})
    assert records.values({}, to_us(at)) == {"total": joined["total"].item()}


@pytest.fixture(scope="module")
def flights() -> tuple[TaskConfig, list[dict[str, Any]], list[tuple[str, dict[str, Any]]]]:
    """The task's steps on legs, every flight of the year with what they join to it, and every leg; in order of time."""
    task = sim().task
    task = replace(
        task, join=[step for step in task.join if step.source == "legs"], features={"hour": task.features["hour"]}
    )
    sites = [site_data(site) for site in SITES]
    legs = pl.concat([data.legs for data in sites]).sort("arrived_at")
    rows = pl.concat([data.flights for data in sites]).select("scheduled_at", "tailnum", "carrier", "dest", "origin")
    joined = join_rows(task, rows.sort("scheduled_at"), {"legs": legs}).with_columns(
        pl.col("scheduled_at").to_physical()
    )
    told = legs.with_columns(pl.col("arrived_at").to_physical())
    return task, joined.to_dicts(), [(leg["leg"], leg) for leg in told.iter_rows(named=True)]


def test_what_is_looked_up_at_each_scheduled_departure_is_what_the_join_gives_for_every_flight_of_the_year(
    flights: tuple[TaskConfig, list[dict[str, Any]], list[tuple[str, dict[str, Any]]]],
) -> None:
    task, joined, legs = flights
    records = Records(live_features(task, ["legs"]))
    times = [leg["arrived_at"] for _, leg in legs]
    gc.collect()
    gc.freeze()  # millions of objects that would be looked through again and again
    told = 0
    for row in joined:
        known = bisect_right(times, row["scheduled_at"], told)
        records.write(legs[told:known])
        told = known
        found = records.values(row, row["scheduled_at"])
        assert found == {name: row[name] for name in found}
    gc.unfreeze()
    assert len(joined) == 336_776
    assert len(found) == len([name for step in task.join for name in step.new_columns()])
    assert max(records.sizes()) < 200  # what can no longer count is gone


def test_steps_that_hold_the_same_share_records_and_others_have_their_own() -> None:
    window = {**WINDOW, "aggregate": "max", "columns": {"most": "v"}}
    task = task_with({**window, "by": {"k": "k"}}, {**window, "by": {"k": "k"}, "columns": {"again": "v"}})
    [shared] = live_features(task, ["events"])
    assert shared.new_columns() == ["most", "again"]
    names = {shared.set_name}
    for change in ({"by": {"j": "j"}}, {"by": {}}, {"within_s": 151.0}, {"columns": {"most": "j"}}):
        [other] = live_features(task_with({**window, "by": {"k": "k"}, **change}), ["events"])
        names.add(other.set_name)
    assert len(names) == 5


def test_a_row_without_a_key_or_a_time_changes_nothing_and_asks_for_no_record() -> None:
    [features] = live_features(
        task_with({**WINDOW, "aggregate": "count", "columns": {"n": "v"}, "by": {"k": "k"}}), ["events"]
    )
    assert features.changes([(1, {"k": None, "at": 5, "v": 1.0}), (2, {"k": "a", "at": None, "v": 1.0})], 0) == {}
    assert features.key({"k": None}) is None
    assert features.values(None, 0) == {"n": 0}


def test_keys_are_told_apart_by_value_and_type() -> None:
    assert len({key_of(values) for values in (["1"], [1], [True], ["1", ""], ["", "1"], ["1/"], [])}) == 7


def test_times_with_a_zone_are_the_same_moment() -> None:
    zone = pl.Series([datetime(2024, 7, 1, 12, tzinfo=UTC)]).dt.convert_time_zone("America/New_York")[0]
    assert to_us(zone) == to_us(datetime(2024, 7, 1, 12)) == to_us(datetime(2024, 7, 1, 12, tzinfo=UTC))


def test_of_what_no_longer_counts_only_the_newest_few_stay_where_they_may_count_for_ever() -> None:
    held = {i: [i, 0.5] for i in range(20)}
    assert sorted(Change({20: [20, 0.5]}, 15, 0).apply(held)) == [15, 16, 17, 18, 19, 20]
    assert sorted(Change({20: [20, 0.5]}, 15, 2).apply(held)) == [13, 14, 15, 16, 17, 18, 19, 20]


def test_a_step_whose_keys_come_from_the_view_is_refused() -> None:
    latest = {"kind": "latest", "known_at": "at"}
    task = task_with(
        {**latest, "columns": {"other": "k"}, "by": {"j": "j"}},
        {**latest, "columns": {"last": "v"}, "by": {"other": "k"}},
    )
    with pytest.raises(ConfigError, match=r"task.join\[1\].by: other comes from the view itself"):
        live_features(task, ["events"])


def test_a_set_that_no_step_takes_from_is_refused_with_those_that_there_are() -> None:
    task = task_with({**WINDOW, "aggregate": "count", "columns": {"n": "v"}})
    with pytest.raises(ConfigError, match="takes from a set legs of the view") as refused:
        live_features(task, ["legs"])
    assert "events" in refused.value.remedy
