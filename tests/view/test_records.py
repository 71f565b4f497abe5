import re

import aerospike
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.errors import DataError
from geotrain.view.records import canonical, operations, storable

NOON = 1_357_041_600_000_000
BINS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=2), inner, max_size=3),
    max_leaves=5,
)


def bins(table, key="id"):
    """The bins of each row, as they would be written."""
    return [{op["bin"]: op["val"] for op in row} for row in operations(storable(table, "s", key, None))]


def column(array):
    return pa.table({"id": range(len(array)), "x": array})


def refused(table, key="id", newer_by=None):
    with pytest.raises(DataError) as error:
        storable(table, "s", key, newer_by)
    return error.value.what


def test_a_row_becomes_one_write_a_bin_and_a_null_becomes_none():
    rows = operations(storable(pa.table({"id": ["a", "b"], "n": [1, None]}), "s", "id", None))
    assert rows[0] == [
        {"op": aerospike.OPERATOR_WRITE, "bin": "id", "val": "a"},
        {"op": aerospike.OPERATOR_WRITE, "bin": "n", "val": 1},
    ]
    assert [op["bin"] for op in rows[1]] == ["id"]


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (pa.array([7], pa.uint8()), 7),
        (pa.array([2**63 - 1], pa.uint64()), 2**63 - 1),
        (pa.array([0.5], pa.float32()), 0.5),
        (pa.array([True]), True),
        (pa.array(["ä"], pa.string_view()), "ä"),
        (pa.array(["ä"]).dictionary_encode(), "ä"),
        (pa.array([b"a\0b"], pa.binary(3)), b"a\0b"),
        (pa.array([NOON // 10**6], pa.timestamp("s")), NOON),
        (pa.array([NOON * 1000], pa.timestamp("ns", "Europe/Berlin")), NOON),
        (pa.array([[NOON * 1000, None]], pa.list_(pa.timestamp("ns"))), [NOON, None]),
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), [1, 2]),
        (pa.array([[("a", [0.5])]], pa.map_(pa.string(), pa.list_(pa.float32()))), {"a": [0.5]}),
        (pa.array([[[(1, b"x")]]], pa.list_(pa.map_(pa.int16(), pa.binary()))), [{1: b"x"}]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_arrow_values_become_what_the_client_stores(array, value):
    (row,) = bins(column(array))
    assert row["x"] == value
    assert type(row["x"]) is type(value)


def test_frames_of_polars_and_pandas_are_rows_like_any():
    expected = [{"id": 1, "x": 0.5, "t": NOON}, {"id": 2}]
    moment = pd.Timestamp(NOON, unit="us")
    polars = pl.DataFrame({"id": [1, 2], "x": [0.5, None], "t": [moment.to_pydatetime(), None]})
    pandas = pd.DataFrame({"id": [1, 2], "x": [0.5, float("nan")], "t": [moment, None]}, index=[7, 8])
    assert bins(polars) == bins(pandas) == expected


@pytest.mark.parametrize(
    ("array", "wrong"),
    [
        (pa.array([1], pa.date32()), r"has the type date32\[day\], which no bin has"),
        (pa.array([{"a": 1}]), "has the type struct<a: int64>, which no bin has"),
        (pa.array([[{"a": 1}]]), "has the type list<item: struct<a: int64>>, which no bin has"),
        (pa.array([[(0.5, 1)]], pa.map_(pa.float64(), pa.int64())), "has the type map<double, int64>, which no bin"),
        (
            pa.array([2**64 - 1], pa.uint64()),
            "can't be stored as it is: Integer value 18446744073709551615 not",
        ),
        (pa.array([1], pa.timestamp("ns")), "can't be stored as it is: .* would lose data"),
        (pa.array(["a\0b"]), "has a text with a NUL character"),
        (pa.array([["a", "a\0b"]]), "has a text with a NUL character"),
        (pa.array([[("a\0", 1)]], pa.map_(pa.string(), pa.int64())), "has a text with a NUL character"),
        (pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())), "has a map with the same key twice"),
    ],
    ids=str,
)
def test_what_would_be_lost_on_the_way_is_refused_by_column(array, wrong):
    assert re.match(f"set s: column x {wrong}", refused(column(array)))


@pytest.mark.parametrize(
    ("table", "key", "wrong"),
    [
        ({"id": [1]}, "key", "column key is not in the table"),
        ({"id": ["a", None]}, "id", "column id is null in 1 rows"),
        ({"id": ["a", "a", "b"]}, "id", "column id is the key and holds 1 duplicates"),
        ({"id": [0.5]}, "id", "column id has the type double, which no key has"),
        ({"id": [True]}, "id", "column id has the type bool, which no key has"),
        ({"id": ["a"], "a_rather_long_name": [1]}, "id", "column a_rather_long_name has a name longer than 15 bytes"),
        ({"id": ["a"], "": [1]}, "id", "column  has a name longer than 15 bytes, or none"),
    ],
)
def test_keys_and_names_that_no_record_has_are_refused(table, key, wrong):
    assert refused(pa.table(table), key).startswith(f"set s: {wrong}")


def test_two_columns_of_one_name_are_refused():
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["id", "id"])
    assert refused(twice) == "set s: two columns have one name: id, id"


@pytest.mark.parametrize("table", [[1], pd.DataFrame({"id": [1, "a"]}), "planes.parquet"])
def test_what_is_no_table_is_refused(table):
    assert refused(table).startswith("set s: what is to be written is no table that Arrow takes")


@pytest.mark.parametrize(("at", "wrong"), [(["x", "y"], "decides what is newer"), ([1, None], "is null in 1")])
def test_a_column_that_can_not_tell_what_is_newer_is_refused(at, wrong):
    assert wrong in refused(pa.table({"id": [1, 2], "at": at}), newer_by="at")


def test_bins_are_the_same_whatever_the_order_of_a_map():
    assert canonical({"a": {1: 2, 3: float("nan")}}) == canonical({"a": {3: float("nan"), 1: 2}})


@given(BINS, BINS)
def test_bins_that_are_not_equal_are_told_apart(one, other):
    if one != other:
        assert canonical(one) != canonical(other)


def test_bins_that_python_takes_for_equal_are_told_apart():
    lookalikes = [{"x": value} for value in (1, 1.0, True, "1", b"1", [1], [True], {1: 1}, {True: 1}, 0.0, -0.0)]
    assert len({canonical(bins) for bins in lookalikes}) == len(lookalikes)
