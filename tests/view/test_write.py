import itertools
import time
from datetime import datetime
from types import SimpleNamespace

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geotrain.errors import DataError
from geotrain.view import write as write_module
from geotrain.view.keyed import Record
from geotrain.view.lookup import lookup
from geotrain.view.write import RowsUnwritten, WriteResult, write
from tests.view.views import ScriptedClient, failure

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
# In the order of their keys, in which the cluster gives them back.
MAPS = st.dictionaries(TEXT, st.lists(TEXT, max_size=2), max_size=3).map(lambda entries: sorted(entries.items()))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": INT64,
            "x": st.none() | st.floats(allow_nan=False),
            "name": st.none() | TEXT,
            "late": st.none() | st.booleans(),
            "blob": st.none() | st.binary(max_size=8),
            "arrived": st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)),
            "legs": st.none() | st.lists(st.none() | INT64, max_size=3),
            "parts": st.none() | MAPS,
        }
    ),
    max_size=20,
    unique_by=lambda row: row["id"],
)
SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "x": pa.float64(),
        "name": pa.string(),
        "late": pa.bool_(),
        "blob": pa.binary(),
        "arrived": pa.timestamp("us"),
        "legs": pa.list_(pa.int64()),
        "parts": pa.map_(pa.string(), pa.list_(pa.string())),
    }
)
COLUMNS = {
    "id": "int64",
    "x": "float64",
    "name": "string",
    "late": "bool",
    "blob": "binary",
    "arrived": "timestamp",
    "legs": "list<int64>",
    "parts": "map<string, list<string>>",
}
num_example = iter(range(10**6))


def frame(**columns):
    return pl.DataFrame({"id": ["a", "b", "c"], **columns})


def applied_unanswered(batch_write, records):
    batch_write(records)
    for row in records.batch_records:
        row.result, row.in_doubt = 9, True


def lost_unanswered(batch_write, records):
    for row in records.batch_records:
        row.result, row.in_doubt = 9, True


def coded(*codes):
    """A call that works; only its answer has these result codes, for the first rows."""

    def step(batch_write, records):
        batch_write(records)
        for row, code in zip(records.batch_records, codes, strict=False):
            row.result = code

    return step


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_a_table_that_was_written_is_looked_up_as_it_was(view, set_name, rows):
    own_set = f"{set_name}{next(num_example)}"
    table = pa.Table.from_pylist(rows, SCHEMA)
    assert write(view, table, own_set, "id") == WriteResult(written=len(rows))
    assert lookup(view, own_set, table["id"], COLUMNS).select(list(COLUMNS)).to_pylist() == table.to_pylist()


@pytest.mark.parametrize("keys", [[1, 2], ["a", "b"], [b"a", b"b"]], ids=["integers", "strings", "binary"])
def test_keys_are_integers_strings_or_binary(view, set_name, keys):
    assert write(view, pa.table({"id": keys, "n": [1, 2]}), set_name, "id").written == 2
    assert view.get(set_name, keys[1]) == Record({"id": keys[1], "n": 2}, 1)


def test_a_row_replaces_the_whole_record_and_nulls_are_no_bins(view, set_name):
    write(view, frame(n=[1, 2, 3]), set_name, "id")
    write(view, frame(x=[None, 0.5, 0.5]), set_name, "id")
    assert view.get_many(set_name, ["a", "b"]) == [Record({"id": "a"}, 2), Record({"id": "b", "x": 0.5}, 2)]


def test_more_rows_than_a_batch_are_all_written_and_the_caller_sees_how_far_it_is(view, set_name, monkeypatch):
    monkeypatch.setattr(write_module, "ROWS_PER_BATCH", 7)
    seen = []
    table = pl.DataFrame({"id": range(100)})
    assert write(view, table, set_name, "id", progress=lambda *at: seen.append(at)).written == 100
    assert all(view.exist(set_name, range(100)))
    assert seen == [(min(7 * (n + 1), 100), 100) for n in range(15)]


def test_big_rows_travel_in_small_batches(view, set_name, monkeypatch):
    monkeypatch.setattr(write_module, "BYTES_PER_BATCH", 100_000)
    view.client = ScriptedClient(view.client, "batch_write", [])
    write(view, pa.table({"id": range(10), "blob": [b"x" * 50_000] * 10}), set_name, "id")
    assert view.client.num_calls == 10


def test_a_caller_that_breaks_off_waits_for_no_further_attempts(view, set_name, monkeypatch):
    """Rows but the first are refused often, and then taken: they would be there in the end."""

    def only_the_first(batch_write, records):
        if records.batch_records[0].key[2] == 0:
            batch_write(records)
        else:
            records.batch_records[0].result = 11

    def interrupt(num_done, num_rows):
        raise KeyboardInterrupt

    monkeypatch.setattr(write_module, "ROWS_PER_BATCH", 1)
    view.config.ride_through_s = 1000.0
    view.client = ScriptedClient(view.client, "batch_write", [only_the_first] * 200)
    with pytest.raises(KeyboardInterrupt):
        write(view, pa.table({"id": range(100)}), set_name, "id", progress=interrupt)
    assert view.exist(set_name, range(3)) == [True, False, False]


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


def test_nothing_of_a_table_that_can_not_be_written_is_written(view, set_name):
    with pytest.raises(DataError, match=f"set {set_name}: column day has the type date32"):
        write(view, frame(day=[datetime(2013, 1, 1).date()] * 3), set_name, "id")
    assert not any(view.exist(set_name, ["a", "b", "c"]))


def test_rows_that_the_cluster_could_not_take_now_are_written_again(view, set_name):
    view.client = ScriptedClient(view.client, "batch_write", [failure(-10), coded(0, 11)])
    assert write(view, frame(n=[1, 2, 3]), set_name, "id") == WriteResult(written=3, retried=3 + 1)
    assert [record.bins["n"] for record in view.get_many(set_name, ["a", "b", "c"])] == [1, 2, 3]


def test_rows_in_doubt_that_are_not_there_when_read_back_are_written_again(view, set_name):
    write(view, frame(n=[1, 0, 0]), set_name, "id")
    view.client = ScriptedClient(view.client, "batch_write", [lost_unanswered])
    assert write(view, frame(n=[1, 2, 3]), set_name, "id") == WriteResult(written=3, retried=2)
    assert [record.bins["n"] for record in view.get_many(set_name, ["a", "b", "c"])] == [1, 2, 3]


def test_rows_in_doubt_that_are_there_when_read_back_are_not_written_again(view, set_name):
    def linearizable(batch_read, keys, bins, policy):
        assert policy == view._read_policies["linearizable"]
        return batch_read(keys, bins, policy)

    write(view, frame(n=[0, 0, 0]), set_name, "id")
    reads = ScriptedClient(view.client, "batch_read", [linearizable])
    view.client = ScriptedClient(reads, "batch_write", [applied_unanswered])
    assert write(view, frame(n=[1, 2, 3]), set_name, "id") == WriteResult(written=3)
    view.client = reads
    assert reads.num_calls == 1
    assert [record.generation for record in view.get_many(set_name, ["a", "b", "c"])] == [2, 2, 2]


def test_a_row_in_doubt_that_was_written_is_not_counted_as_skipped(view, set_name):
    write(view, frame(at=[9, 1, 9]), set_name, "id", newer_by="at")
    reads_fail = ScriptedClient(view.client, "batch_read", [failure(20)])
    view.client = ScriptedClient(reads_fail, "batch_write", [applied_unanswered])
    result = write(view, frame(at=[5, 5, 5]), set_name, "id", newer_by="at")
    assert result == WriteResult(written=1, skipped=2, retried=3)


def test_rows_that_stay_in_doubt_are_named_as_such(view, set_name):
    view.config.ride_through_s = 0.1
    view.client = ScriptedClient(view.client, "batch_write", [lost_unanswered] * 1000)
    with pytest.raises(RowsUnwritten, match=r"of 3 rows these .* 3 \(sent, not answered, and not there") as unwritten:
        write(view, frame(), set_name, "id")
    result = unwritten.value.result
    assert (result.written, result.refused, result.in_doubt.num_rows) == (0, {}, 3)
    assert sorted(result.in_doubt.keys) == ["a", "b", "c"]


def test_rows_that_are_refused_are_named_and_the_others_written(view, set_name):
    view.client = ScriptedClient(view.client, "batch_write", [coded(13)])
    with pytest.raises(RowsUnwritten, match=r"1 \(the record is too big; 'a' is one\)") as unwritten:
        write(view, frame(), set_name, "id")
    result = unwritten.value.result
    assert result.written == 2
    assert {code: (rows.num_rows, rows.keys) for code, rows in result.refused.items()} == {13: (1, ["a"])}


def test_of_many_refused_rows_the_first_are_named(view, set_name, monkeypatch):
    monkeypatch.setattr(write_module, "MAX_NAMED_KEYS", 5)
    view.client = ScriptedClient(view.client, "batch_write", [coded(*[22] * 100)])
    with pytest.raises(RowsUnwritten) as unwritten:
        write(view, pl.DataFrame({"id": range(100)}), set_name, "id")
    refused = unwritten.value.result.refused[22]
    assert (refused.num_rows, refused.keys) == (100, [0, 1, 2, 3, 4])


def test_a_cluster_that_stays_away_is_given_up_for_all_batches_at_once(view, set_name, monkeypatch):
    monkeypatch.setattr(write_module, "ROWS_PER_BATCH", 1)
    monkeypatch.setattr(write_module, "MAX_BATCHES_IN_FLIGHT", 1)
    view.config.ride_through_s = 0.1
    view.client = ScriptedClient(view.client, "batch_write", [failure(11)] * 1000)
    with pytest.raises(RowsUnwritten) as unwritten:
        write(view, pl.DataFrame({"id": range(100)}), set_name, "id")
    result = unwritten.value.result
    assert {code: rows.num_rows for code, rows in result.refused.items()} == {11: 1, -15: 99}
    assert view.client.num_calls < 20


def test_a_cluster_that_is_slow_but_takes_rows_is_not_given_up(view, set_name, monkeypatch):
    """Each attempt takes one row of what is left: longer in all than `ride_through_s`, never in one go."""

    def one_row(batch_write, records):
        batch_write(records)
        for row in records.batch_records[1:]:
            row.result = 18

    clock = itertools.count(time.monotonic(), 0.5)
    monkeypatch.setattr(write_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(write_module, "pauses", lambda budget_s: iter([0.0] * 1000))
    view.config.ride_through_s = 2.0
    view.client = ScriptedClient(view.client, "batch_write", [one_row] * 1000)
    assert write(view, pl.DataFrame({"id": range(20)}), set_name, "id").written == 20


def test_an_overloaded_cluster_gets_fewer_batches_at_once(view, set_name, monkeypatch):
    """While every answer says overloaded, what is in flight shrinks to one batch."""
    in_flight, seen = [], []

    def overloaded(batch_write, records):
        in_flight.append(records)
        seen.append(len(in_flight))
        batch_write(records)
        in_flight.remove(records)
        for row in records.batch_records:
            row.result = 18

    monkeypatch.setattr(write_module, "ROWS_PER_BATCH", 10)
    view.client = ScriptedClient(view.client, "batch_write", [overloaded] * 40)
    assert write(view, pl.DataFrame({"id": range(400)}), set_name, "id").written == 400
    assert max(seen) <= write_module.FIRST_BATCHES_IN_FLIGHT
    assert set(seen[10:]) == {1}
