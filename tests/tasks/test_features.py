from datetime import datetime, timedelta
from functools import reduce
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding, Moments, Statistics
from geotrain.tasks.samples import encode, encode_samples, split, summarize
from tests.tasks.pumps import pumps

TASK = pumps()
SCHEMA: dict[str, Any] = {
    "at": pl.Datetime("us"),
    "pressure": pl.Float64,
    "since_visit_s": pl.Float64,
    "alarms_1h": pl.Int64,
    "kind": pl.String,
    "is_new": pl.Boolean,
    "failures": pl.Int64,
}
Row = tuple[datetime, float | None, float | None, int | None, str | None, bool | None, int | None]

numbers = st.none() | st.floats(-1e6, 1e6) | st.just(float("nan"))
rows_of_a_site = st.lists(
    st.tuples(
        st.integers(0, 40).map(lambda day: datetime(2024, 1, 1) + timedelta(days=day)),
        numbers,
        numbers,
        st.none() | st.integers(-5, 5),
        st.sampled_from(["gear", "screw", "vane", None]),
        st.none() | st.booleans(),
        st.none() | st.integers(0, 2),
    ),
    max_size=15,
)


def joined(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def row(
    pressure: float | None = 1.0,
    since_visit_s: float | None = 0.0,
    alarms: int | None = 0,
    kind: str | None = "gear",
    is_new: bool | None = True,
    failures: int | None = 0,
    at: datetime = datetime(2024, 1, 1),
) -> Row:
    return (at, pressure, since_visit_s, alarms, kind, is_new, failures)


def encoding_of(*rows: Row, task: TaskConfig | None = None) -> Encoding:
    task = task or TASK
    return Encoding.from_statistics(summarize(joined(list(rows)), task), task)


def assert_close(ours: Statistics, theirs: Statistics) -> None:
    assert ours.categorical == theirs.categorical
    for name, moments in ours.numeric.items():
        other = theirs.numeric[name]
        assert moments.count == other.count
        assert moments.mean == pytest.approx(other.mean, rel=1e-9, abs=1e-6)
        assert moments.squares == pytest.approx(other.squares, rel=1e-9, abs=1e-3)


@given(st.lists(rows_of_a_site, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_merged_statistics_are_those_of_the_pooled_rows(sites: list[list[Row]]) -> None:
    merged = reduce(Statistics.merge, (summarize(joined(rows), TASK) for rows in sites))
    assert_close(merged, summarize(joined([row for rows in sites for row in rows]), TASK))


@given(rows_of_a_site, rows_of_a_site, rows_of_a_site)
@settings(max_examples=60, deadline=None)
def test_merging_goes_in_any_order_and_grouping(first: list[Row], second: list[Row], third: list[Row]) -> None:
    a, b, c = (summarize(joined(rows), TASK) for rows in (first, second, third))
    assert a.merge(b) == b.merge(a)
    assert_close(a.merge(b).merge(c), a.merge(b.merge(c)))


def test_deviations_far_from_zero_are_not_lost_in_the_sum() -> None:
    far = [Moments(2, 1e9 + offset, 0.5) for offset in (0.0, 1.0)]  # {0, 1} and {1, 2} on top of 1e9 - 0.5
    assert far[0].merge(far[1]) == Moments(4, 1e9 + 0.5, 2.0)


@given(rows_of_a_site)
@settings(max_examples=30, deadline=None)
def test_statistics_and_encoding_survive_their_journey_as_json(rows: list[Row]) -> None:
    statistics = summarize(joined(rows), TASK)
    assert Statistics.from_json(statistics.to_json()) == statistics
    encoding = Encoding.from_statistics(statistics, TASK)
    assert Encoding.from_json(encoding.to_json()) == encoding


def test_statistics_see_neither_test_rows_nor_rows_without_a_label() -> None:
    test_row = row(pressure=1e3, kind="screw", at=datetime(2024, 2, 1))
    cancelled = row(pressure=1e3, kind="screw", failures=None)
    statistics = summarize(joined([row(), test_row, cancelled]), TASK)
    assert statistics == summarize(joined([row()]), TASK)


def test_a_category_rare_over_all_sites_is_not_named_and_one_rare_at_each_site_is() -> None:
    sites = [[row(kind="gear"), row(kind=f"prototype {number}")] for number in range(2)]
    merged = reduce(Statistics.merge, (summarize(joined(rows), TASK) for rows in sites))
    encoding = Encoding.from_statistics(merged, TASK)
    assert encoding.categorical["kind"] == ["gear"]
    assert "prototype" not in encoding.to_json()


def test_numbers_are_standardised_missing_ones_marked_and_absurd_ones_clipped() -> None:
    encoding = encoding_of(row(pressure=1.0), row(pressure=3.0))
    asked = [row(pressure=value) for value in (2.0, 3.0, None, float("nan"), float("inf"), 1e12)]
    inputs = encode(joined(asked), TASK, encoding)
    assert inputs["numeric"][:, 0].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 5.0]
    assert inputs["missing"][:, 0].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]


def test_a_constant_or_always_missing_number_is_encoded_as_zero() -> None:
    rows = [row(pressure=7.0, since_visit_s=None)] * 2
    inputs = encode(joined(rows), TASK, encoding_of(*rows))
    assert inputs["numeric"].isfinite().all()
    assert inputs["numeric"][:, :2].tolist() == [[0.0, 0.0]] * 2


def test_a_signed_log_keeps_the_sign_and_tames_the_tail() -> None:
    rows = [row(since_visit_s=value) for value in (-np.expm1(2.0), np.expm1(2.0))]
    inputs = encode(joined(rows), TASK, encoding_of(*rows))
    assert encoding_of(*rows).numeric["since_visit_s"].deviation == pytest.approx(2.0)
    assert inputs["numeric"][:, 1].tolist() == pytest.approx([-1.0, 1.0])


def test_categories_become_places_in_the_vocabulary_and_all_others_zero() -> None:
    rows = [row(kind="vane"), row(kind="gear", is_new=False)] * 2
    asked = [row(kind="gear"), row(kind="vane", is_new=False), row(kind="new kind"), row(kind=None, is_new=None)]
    encoding = encoding_of(*rows)
    inputs = encode(joined(asked), TASK, encoding)
    assert inputs["categorical"].tolist() == [[1, 2], [2, 1], [0, 2], [0, 0]]
    assert [encoding.cardinality(name) for name in TASK.categorical()] == [3, 3]


def test_a_label_is_whether_the_column_is_above_the_threshold_or_the_column_itself() -> None:
    rows = [row(failures=number) for number in (0, 1, 3)]
    assert encode_samples(joined(rows), TASK, encoding_of(*rows)).labels.tolist() == [0.0, 1.0, 1.0]
    counts = pumps({"label": {"column": "failures"}})
    assert encode_samples(joined(rows), counts, encoding_of(*rows)).labels.tolist() == [0.0, 1.0, 3.0]


def test_rows_split_at_the_moment_and_the_moment_itself_tests() -> None:
    rows = [row(at=datetime(2024, 1, 31, 23, 59)), row(at=datetime(2024, 2, 1)), row(failures=None)]
    train, test = split(joined(rows), TASK)
    assert (train["at"].to_list(), test["at"].to_list()) == ([rows[0][0]], [rows[1][0]])


def test_a_task_without_numbers_or_without_categories_encodes_too() -> None:
    only_numbers: dict[str, Any] = {"pressure": {}}
    for features in (only_numbers, {"kind": {"kind": "categorical"}}):
        task = pumps({"features": features})
        inputs = encode(joined([row()]), task, encoding_of(row(), task=task))
        assert [len(tensor) for tensor in inputs.values()] == [1, 1, 1]
        assert inputs["categorical"].dtype == torch.int64
