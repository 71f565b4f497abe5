import logging
import time

import pandas as pd
import pyarrow as pa
import pytest

from geotrain.errors import DataError, ViewError
from geotrain.view import lookup as lookup_module
from geotrain.view.cut import Cut
from geotrain.view.lookup import lookup
from geotrain.view.write import write
from tests.view.views import ScriptedClient, failure

COLUMNS = {"n": "int64", "x": "float64"}


@pytest.fixture
def planes(view, set_name):
    """Two records; the second has no bin x."""
    write(view, pa.table({"id": ["a", "b"], "n": [1, 2], "x": [0.5, None]}), set_name, "id")
    return set_name


def rows(view, set_name, keys, columns=COLUMNS, **options):
    return lookup(view, set_name, keys, columns, **options).to_pylist()


def test_rows_come_in_the_order_of_the_keys_and_what_is_absent_is_null(view, planes):
    assert rows(view, planes, ["b", "absent", "a"]) == [
        {"n": 2, "x": None, "__generation": 1},
        {"n": None, "x": None, "__generation": None},
        {"n": 1, "x": 0.5, "__generation": 1},
    ]


@pytest.mark.parametrize("keys", [[], ["absent"], ["a"]])
def test_the_schema_is_what_was_declared_even_of_no_rows(view, planes, keys):
    found = lookup(view, planes, keys, {"n": "timestamp", "x": "float64", "legs": "list<int64>"})
    assert found.schema.types == [pa.timestamp("us"), pa.float64(), pa.list_(pa.int64()), pa.int32()]
    assert found.num_rows == len(keys)


def test_without_columns_it_says_which_keys_have_a_record(view, planes):
    assert rows(view, planes, ["a", "absent"], {}) == [{"__generation": 1}, {"__generation": None}]


def test_a_key_that_comes_again_is_read_once(view, planes):
    asked = []

    def note(batch_read, keys, *rest):
        asked.extend(key for _, _, key in keys)
        return batch_read(keys, *rest)

    view.client = ScriptedClient(view.client, "batch_read", [note])
    assert [row["n"] for row in rows(view, planes, ["a", "b", "a", "a"])] == [1, 2, 1, 1]
    assert asked == ["a", "b"]


def test_more_keys_than_a_chunk_are_all_read(view, set_name, monkeypatch):
    monkeypatch.setattr(lookup_module, "KEYS_PER_CHUNK", 7)
    write(view, pa.table({"id": range(100), "n": range(100)}), set_name, "id")
    keys = [*range(0, 200, 3), *range(50)]
    assert [row["n"] for row in rows(view, set_name, keys)] == [key if key < 100 else None for key in keys]


@pytest.mark.parametrize(
    "keys",
    [
        pa.chunked_array([["a"], [], ["b"]]),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["a", "b"], pa.string_view()),
        pd.Series(["a", "b"]),
        ("a", "b"),
    ],
    ids=lambda keys: type(keys).__name__,
)
def test_keys_come_in_any_form_that_arrow_takes(view, planes, keys):
    assert [row["n"] for row in rows(view, planes, keys)] == [1, 2]


def test_binary_keys_find_what_was_written_with_them(view, set_name):
    write(view, pa.table({"id": [b"\0a", b"b"], "n": [1, 2]}), set_name, "id")
    assert [row["n"] for row in rows(view, set_name, [b"b", b"\0a"])] == [2, 1]


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        (["a", None], "the column of keys is null in 1 rows"),
        (["a", 1], "the keys are not of one type"),
        ([2**63], "the keys are not of one type"),
        ([0.5], "the column of keys has the type double"),
        ([True], "the column of keys has the type bool"),
        (["a\0b"], "the column of keys has a text with a NUL character"),
    ],
)
def test_keys_that_no_record_has_are_refused(view, planes, keys, wrong):
    with pytest.raises(DataError, match=f"set {planes}: {wrong}"):
        lookup(view, planes, keys, COLUMNS)


def test_a_record_of_another_type_than_declared_is_refused_by_column(view, planes):
    with pytest.raises(DataError, match=f"set {planes}: column n is declared float64, but 2 records hold another type"):
        lookup(view, planes, ["a", "b"], {"n": "float64"})


def test_a_type_that_no_column_has_is_refused(view, planes):
    with pytest.raises(DataError, match=f"set {planes}: column n has the unknown type 'number'"):
        lookup(view, planes, ["a"], {"n": "number"})


@pytest.mark.parametrize("name", ["n" * 16, "", "__key", "__generation"])
def test_a_column_that_can_be_no_bin_is_refused(view, planes, name):
    with pytest.raises(DataError, match=f"set {planes}: column {name} can't be a bin"):
        lookup(view, planes, ["a"], {name: "int64"})


def test_records_later_than_the_cut_are_not_there(view, planes):
    for cut, generation in ((Cut(until_ns=1), None), (Cut(until_ns=time.time_ns() + 10**12), 1)):
        found = lookup(view, planes, ["a", "b"], COLUMNS, cut=cut)
        assert found["__generation"].to_pylist() == [generation] * 2


def test_a_read_that_fails_now_is_tried_again(view, planes):
    def one_unavailable(batch_read, *arguments):
        read = batch_read(*arguments)
        read.batch_records[1].result = 11
        return read

    view.client = ScriptedClient(view.client, "batch_read", [failure(9), one_unavailable])
    assert [row["n"] for row in rows(view, planes, ["a", "b"])] == [1, 2]
    assert view.client.num_calls == 3


def test_records_that_can_not_be_read_are_an_error_not_nulls(view, planes):
    view.client = ScriptedClient(view.client, "batch_read", [failure(20)])
    with pytest.raises(ViewError, match=f"reading 2 records of {planes}: the namespace does not exist"):
        lookup(view, planes, ["a", "b"], COLUMNS)


def test_a_column_that_no_record_has_is_told(view, planes, caplog):
    with caplog.at_level(logging.WARNING):
        lookup(view, planes, ["a", "b"], {"n": "int64", "seat": "int64"})
        lookup(view, planes, ["absent"], {"n": "int64"})
    assert [record.getMessage() for record in caplog.records] == [
        f"set {planes}: none of the 2 records found by key has the column seat"
    ]
