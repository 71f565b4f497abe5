from datetime import datetime

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geotrain.errors import DataError
from geotrain.view import write as write_module
from geotrain.view.connect import Record
from geotrain.view.scan import scan
from geotrain.view.write import RowsRefused, WriteResult, write
from tests.view.views import ScriptedClient, failure

INT64 = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": INT64,
            "x": st.none() | st.floats(allow_nan=False),
            "name": st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
            "late": st.none() | st.booleans(),
            "arrived": st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)),
        }
    ),
    max_size=20,
    unique_by=lambda row: row["id"],
)
SCHEMA = {
    "id": pl.Int64,
    "x": pl.Float64,
    "name": pl.String,
    "late": pl.Boolean,
    "arrived": pl.Datetime("us"),
}
COLUMNS = {"id": "int64", "x": "float64", "name": "string", "late": "bool", "arrived": "timestamp"}
num_example = iter(range(10**6))


def frame(**columns):
    return pl.DataFrame({"id": ["a", "b", "c"], **columns})


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_a_table_that_was_written_is_scanned_as_it_was(view, set_name, rows):
    own_set = f"{set_name}{next(num_example)}"
    table = pl.DataFrame(rows, SCHEMA)
    assert write(view, table, own_set, "id") == WriteResult(written=len(rows))
    scanned = pl.DataFrame(scan(view, own_set, COLUMNS, None).table.select(list(COLUMNS)))
    assert scanned.sort("id").equals(table.sort("id"), null_equal=True)


def test_an_arrow_table_is_written_like_a_frame(view, set_name):
    assert write(view, pa.table({"id": ["a"], "n": [1]}), set_name, "id").written == 1
    assert view.get(set_name, "a") == Record({"id": "a", "n": 1}, 1)


def test_a_row_replaces_the_whole_record_and_nulls_are_no_bins(view, set_name):
    write(view, frame(n=[1, 2, 3]), set_name, "id")
    write(view, frame(x=[None, 0.5, 0.5]), set_name, "id")
    assert view.get_many(set_name, ["a", "b"]) == [Record({"id": "a"}, 2), Record({"id": "b", "x": 0.5}, 2)]


def test_more_rows_than_a_batch_are_all_written(view, set_name, monkeypatch):
    monkeypatch.setattr(write_module, "ROWS_PER_BATCH", 7)
    assert write(view, pl.DataFrame({"id": range(100)}), set_name, "id").written == 100
    assert scan(view, set_name, {"id": "int64"}, None).table.num_rows == 100


def test_only_newer_rows_replace_where_that_is_asked(view, set_name):
    write(view, frame(at=[10, 10, 10], n=[1, 1, 1]), set_name, "id", newer_by="at")
    result = write(view, frame(at=[11, 10, 9], n=[2, 2, 2]), set_name, "id", newer_by="at")
    assert result == WriteResult(written=1, skipped=2)
    assert [record.bins["n"] for record in view.get_many(set_name, ["a", "b", "c"])] == [2, 1, 1]
    write(view, frame(at=[12, 12, 12]), set_name, "id", newer_by="at")
    assert view.get(set_name, "a").bins == {"id": "a", "at": 12}


def test_what_is_newer_can_be_told_by_timestamps_and_floats(view, set_name):
    days = [datetime(2013, 1, day) for day in (1, 2, 3)]
    write(view, frame(at=days, x=[1.0, 1.0, 1.0]), set_name, "id", newer_by="at")
    assert write(view, frame(at=days[::-1], x=[2.0, 0.5, 1.0]), set_name, "id", newer_by="at").written == 1
    assert write(view, frame(at=days, x=[3.0, 3.0, 0.0]), set_name, "id", newer_by="x").written == 2


@pytest.mark.parametrize(
    ("table", "key", "wrong"),
    [
        (frame(), "key", "column key is not in the table"),
        (pl.DataFrame({"id": ["a", None]}), "id", "column id is null in 1 rows"),
        (pl.DataFrame({"id": ["a", "a", "b"]}), "id", "column id is the key and holds 1 duplicates"),
        (pl.DataFrame({"id": [0.5]}), "id", "column id has the type Float64, and is the key"),
        (frame(day=[datetime(2013, 1, 1).date()] * 3), "id", "column day has the type Date"),
        (frame(list=[[1]] * 3), "id", "column list has the type List"),
        (frame(big=pl.Series([2**64 - 1] * 3, dtype=pl.UInt64)), "id", "column big has the type UInt64"),
        (frame(a_rather_long_name=[1, 2, 3]), "id", "column a_rather_long_name has a name longer than 15 bytes"),
    ],
)
def test_a_table_that_the_view_can_not_take_is_refused_by_column(view, set_name, table, key, wrong):
    with pytest.raises(DataError, match=f"set {set_name}: {wrong}"):
        write(view, table, set_name, key)


@pytest.mark.parametrize(("at", "wrong"), [(["x", "y", "z"], "decides what is newer"), ([1, None, 2], "is null in 1")])
def test_a_column_that_can_not_tell_what_is_newer_is_refused(view, set_name, at, wrong):
    with pytest.raises(DataError, match=f"column at .*{wrong}"):
        write(view, frame(at=at), set_name, "id", newer_by="at")


def test_rows_that_the_cluster_could_not_take_now_are_written_again(view, set_name):
    def unanswered(batch_write, records):
        batch_write(records)
        for row in records.batch_records:
            row.result, row.in_doubt = 9, True

    def second_row_unavailable(batch_write, records):
        batch_write(records)
        records.batch_records[1].result = 11

    script = [failure(-10), unanswered, second_row_unavailable]
    view.client = ScriptedClient(view.client, "batch_write", script)
    assert write(view, frame(n=[1, 2, 3]), set_name, "id") == WriteResult(written=3, retried=3 + 3 + 1)
    assert [record.bins["n"] for record in view.get_many(set_name, ["a", "b", "c"])] == [1, 2, 3]


def test_rows_that_are_refused_are_named_and_the_others_written(view, set_name):
    def too_big(batch_write, records):
        batch_write(records)
        records.batch_records[0].result = 13

    view.client = ScriptedClient(view.client, "batch_write", [too_big])
    with pytest.raises(RowsRefused, match="1 rows refused, 1 of them because: the record is too big") as refused:
        write(view, frame(), set_name, "id")
    assert refused.value.result == WriteResult(written=2, refused={"a": 13})


def test_a_cluster_that_stays_away_is_given_up_for_all_batches_at_once(view, set_name, monkeypatch):
    monkeypatch.setattr(write_module, "ROWS_PER_BATCH", 1)
    monkeypatch.setattr(write_module, "NUM_THREADS", 1)
    view.config.ride_through_s = 0.1
    view.client = ScriptedClient(view.client, "batch_write", [failure(11)] * 1000)
    with pytest.raises(RowsRefused) as refused:
        write(view, pl.DataFrame({"id": range(100)}), set_name, "id")
    assert len(refused.value.result.refused) == 100
    assert set(refused.value.result.refused.values()) == {11, -15}
    assert view.client.num_calls < 20
