from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.view.columns import SCALARS, arrow_type, as_stored, infer, particle_of, to_arrow, type_word
from geotrain.wire.codes import Particle
from geotrain.wire.particles import Opaque

SCALAR = st.sampled_from(sorted(SCALARS))
WORDS = st.recursive(
    SCALAR,
    lambda inner: inner.map("list<{}>".format) | st.builds("map<{}, {}>".format, SCALAR, inner),
    max_leaves=4,
)


@given(WORDS)
def test_a_type_survives_the_way_to_arrow_and_back(word):
    assert type_word(arrow_type(word)) == word


def test_spaces_in_a_type_do_not_matter():
    assert arrow_type(" map<string,list< int64 >> ") == pa.map_(pa.string(), pa.list_(pa.int64()))


@pytest.mark.parametrize("word", ["int", "", "list<>", "list<int64", "map<int64>", "map<list<int64>, int64>", "list"])
def test_what_is_no_type_is_refused_with_the_word(word):
    with pytest.raises(ValueError, match="unknown type"):
        arrow_type(word)


def test_a_type_says_how_its_values_travel():
    words = ["timestamp", "binary", "list<int64>", "map<int64, bool>"]
    assert [particle_of(arrow_type(word)) for word in words] == [
        Particle.INTEGER,
        Particle.BLOB,
        Particle.LIST,
        Particle.MAP,
    ]


def test_types_are_inferred_from_all_records_together():
    records = [{"a": 1, "l": []}, {"b": None, "m": {}}, {"l": [None, 0.5], "b": b"x", "m": {"k": [True]}}]
    assert infer(records) == {"a": "int64", "l": "list<float64>", "b": "binary", "m": "map<string, list<bool>>"}


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        ([{"a": 1}, {"a": 1.0}], "a holds int64 and float64"),
        ([{"a": 1}, {"a": True}], "a holds int64 and bool"),
        ([{"a": [1]}, {"a": "x"}], "a holds a list and string"),
        ([{"a": [1, "x"]}], "a holds int64 and string"),
        ([{"a": []}, {"a": []}], "a holds empty lists or maps only"),
        ([{"a": {}}], "a holds empty lists or maps only"),
        ([{"a": Opaque(Particle.HLL, b"")}], "a holds a HyperLogLog, which no column can"),
    ],
)
def test_a_bin_of_no_single_type_is_refused_with_its_name(records, wrong):
    with pytest.raises(ValueError, match=wrong):
        infer(records)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("int64", 1.5),
        ("int64", True),
        ("int64", 2**63),
        ("float64", 1),
        ("string", b"x"),
        ("binary", "x"),
        ("bool", 1),
        ("list<int64>", [1, 1.5]),
        ("list<int64>", {}),
        ("map<string, int64>", {"a": "b"}),
        ("map<string, int64>", {None: 1}),
        ("map<string, int64>", {1: 1}),
    ],
)
def test_a_value_of_another_type_is_null_and_counted(word, value):
    array, num_mismatches = to_arrow([value, None], arrow_type(word))
    assert (array.to_pylist(), num_mismatches) == ([None, None], 1)


def test_values_of_the_type_are_what_they_were():
    array, num_mismatches = to_arrow([{"a": [1, None]}, {}, None], arrow_type("map<string, list<int64>>"))
    assert (array.to_pylist(), num_mismatches) == ([[("a", [1, None])], [], None], 0)


def test_datetimes_of_a_filter_are_microseconds_in_utc():
    noon = datetime(2024, 1, 1, 12)
    elsewhere = datetime(2024, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    us = 1_704_110_400_000_000
    assert as_stored([("at", ">", noon), [("at", "in", [elsewhere, 5, "x"])]]) == [
        ("at", ">", us),
        [("at", "in", [us, 5, "x"])],
    ]
    assert as_stored(noon.replace(tzinfo=UTC)) == us
