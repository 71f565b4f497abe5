"""Tables of states: looked up whole, in one version or the next."""

import subprocess
import sys
import threading
import time
from datetime import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geotrain.errors import ConfigError, DataError, Fenced, ViewError
from geotrain.states.aliases import rollback
from geotrain.states.heads import fence
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import MANIFESTS, UnknownState, reference
from geotrain.states.rows import ROW, set_of
from geotrain.states.table_lookup import MAX_KEYS, TableLookup
from geotrain.states.tables import publish_table, remove_unused_rows
from geotrain.view.connect import connect
from tests.states.test_publish import put_state
from tests.view.views import ScriptedClient, failure, view_config


def vectors(num_rows: int, value: float = 0.0, width: int = 4) -> pl.DataFrame:
    """Keys from 0 on; each row's vector is its key and the value."""
    matrix = np.arange(num_rows, dtype=np.float32)[:, None] + np.full(width, value, np.float32)
    return pl.DataFrame({"id": np.arange(num_rows), "vector": matrix})


def test_rows_are_found_by_key_in_the_order_of_the_keys_as_one_array(view, model):
    published = publish_table(view, model, vectors(1000, 0.5), key="id")
    assert (published.version, published.num_rows, published.reference) == (1, 1000, f"{model}/global@1")
    rows = TableLookup(view, model).get([7, 999, 7, 0])
    assert rows.values["vector"].dtype == np.float32
    assert np.shares_memory(rows.values, rows.values["vector"])
    np.testing.assert_array_equal(rows.values["vector"], np.array([7.5, 999.5, 7.5, 0.5])[:, None] * np.ones(4))
    assert rows.is_found.all()
    assert rows.version == 1
    rows.values["vector"][0] = 1  # it is the caller's own


def test_what_is_not_there_is_said_by_row(view, model):
    publish_table(view, model, vectors(3, 1), key="id")
    rows = TableLookup(view, model).get([2, 3, 0])
    assert rows.is_found.tolist() == [True, False, True]
    assert rows.values["vector"][:, 0].tolist() == [3, 0, 1]
    assert len(TableLookup(view, model).get([]).values) == 0


def test_a_table_without_rows_has_no_row_for_any_key(view, model):
    empty = pa.table({"name": pa.array([], pa.string()), "v": pa.array([], pa.float64())})
    publish_table(view, model, empty, key="name")
    rows = TableLookup(view, model).get(["a"])
    assert (rows.is_found.tolist(), rows.values["v"].tolist()) == ([False], [0])


def test_columns_of_every_kind_come_back_as_they_were(view, model):
    at = datetime(2024, 5, 6, 7, 8, 9, 123456)
    table = pa.table(
        {
            "name": ["a", "ü/1"],
            "count": pa.array([2**62, -1]),
            "share": pa.array([0.5, None], pa.float32()),
            "seen_at": pa.array([at, datetime(1969, 1, 1)], pa.timestamp("us")),
            "open": [True, False],
            "small": pa.array([1, 2], pa.int8()),
            "days": pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.int16(), 3)),
        }
    )
    publish_table(view, model, table, key="name")
    rows = TableLookup(view, model).get(["ü/1", "a"]).values
    assert rows["count"].tolist() == [-1, 2**62]
    assert np.isnan(rows["share"][0])
    assert rows["share"][1] == 0.5
    assert rows["seen_at"].tolist() == [datetime(1969, 1, 1), at]
    assert rows["open"].tolist() == [False, True]
    assert rows["small"].dtype == np.int8
    assert rows["days"].tolist() == [[4, 5, 6], [1, 2, 3]]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=8).filter(lambda key: "\0" not in key), st.floats(), min_size=1, max_size=20))
def test_any_texts_are_keys(view, model, values):
    publish_table(view, model, pd.DataFrame({"k": list(values), "v": list(values.values())}), key="k")
    rows = TableLookup(view, model).get(list(values))
    np.testing.assert_array_equal(rows.values["v"], list(values.values()))


def test_readers_see_one_version_or_the_next_whole_while_tables_are_published(view, model, cluster):
    publish_table(view, model, vectors(200, 0), key="id")
    stop, seen = threading.Event(), []

    def read():
        with connect(view_config(cluster)) as own:
            lookup = TableLookup(own, model)
            while not stop.is_set():
                rows = lookup.get(range(0, 200, 3))
                [value] = set((rows.values["vector"] - np.arange(0, 200, 3)[:, None]).ravel().tolist())
                seen.append((rows.version, value, rows.is_found.all()))

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(1, 8):
        publish_table(view, model, vectors(200, value), key="id")
    last = TableLookup(view, model).get([0]).version
    while seen[-1:] != [(last, 7, True)] and reader.is_alive():
        time.sleep(0.01)
    stop.set()
    reader.join()
    assert all(is_whole and value == version - 1 for version, value, is_whole in seen)
    assert [version for version, *_ in seen] == sorted(version for version, *_ in seen)


def test_a_switch_costs_one_more_batch_and_what_stays_costs_one(view, model, monkeypatch):
    publish_table(view, model, vectors(10, 0), key="id")
    lookup = TableLookup(view, model)
    lookup.get([1])
    batches = []
    batch_read = view.client.batch_read
    view.client = ScriptedClient(view.client, "batch_read", [])
    monkeypatch.setattr(
        view.client, "batch_read", lambda *a: (batches.append(len(a[0])), batch_read(*a))[1], raising=False
    )
    lookup.get([1, 2])
    assert batches == [3]
    publish_table(view, model, vectors(10, 1), key="id")
    batches.clear()
    assert lookup.get([1, 2]).version == 2
    assert batches == [3, 3]


def test_a_rollback_leads_readers_back_and_a_copy_that_lags_does_not(view, model, monkeypatch):
    for value in (0, 1):
        publish_table(view, model, vectors(3, value), key="id")
    lookup = TableLookup(view, model)
    assert lookup.get([0]).version == 2
    read_places = view.read_places

    def lagging(*arguments, **_):
        head, *rows = read_places(*arguments)
        return [(*head[:2], {"aliases": {"production": 1}, "changes": 1}), *rows]

    monkeypatch.setattr(view, "read_places", lagging)
    assert lookup.get([0]).version == 2
    monkeypatch.undo()
    rollback(view, model, "global", who="test", why="it was worse")
    rows = lookup.get([2])
    assert (rows.version, rows.values["vector"][0, 0]) == (1, 2)


def test_who_stops_before_the_alias_moved_changes_nothing(view, model, monkeypatch):
    publish_table(view, model, vectors(5, 0), key="id")
    monkeypatch.setattr("geotrain.states.tables.move_alias", lambda *_, **__: None)
    publish_table(view, model, vectors(5, 1), key="id")
    assert TableLookup(view, model).get([1]).version == 1


def test_scopes_and_aliases_of_a_table_are_apart(view, model):
    publish_table(view, model, vectors(2, 0), key="id")
    publish_table(view, model, vectors(2, 1), key="id", scope="site/ewr")
    publish_table(view, model, vectors(2, 2), key="id", alias="candidate")
    found = [
        TableLookup(view, model, *of).get([0]).values["vector"][0, 0].item()
        for of in ((), ("site/ewr",), ("global", "candidate"))
    ]
    assert found == [0, 1, 2]


def test_a_publisher_of_an_earlier_epoch_is_fenced(view, model):
    publish_table(view, model, vectors(2, 0), key="id", epoch=4)
    fence(view, model, "global", epoch=5)
    with pytest.raises(Fenced):
        publish_table(view, model, vectors(2, 1), key="id", epoch=4)
    assert TableLookup(view, model).get([0]).version == 1


def test_rows_that_no_version_names_are_removed_and_no_others(view, model):
    publish_table(view, model, vectors(50, 0), key="id")
    publish_table(view, model, vectors(50, 1), key="id")
    old, new = (keys_of(view, model, version) for version in (1, 2))
    remove_unused_rows(view, model, grace_s=0)
    wait_for_jobs(view)
    assert all(view.exist(set_of(model), [*old, *new]))  # both are named
    view.client.remove(
        view.key(MANIFESTS, reference(model, "global", 1)), policy={"durable_delete": view.consistency == "strong"}
    )
    remove_unused_rows(view, model, grace_s=3600)
    wait_for_jobs(view)
    assert all(view.exist(set_of(model), old))  # within the grace
    remove_unused_rows(view, model, grace_s=0)
    end_s = time.monotonic() + 60
    while any(view.exist(set_of(model), old)) and time.monotonic() < end_s:
        time.sleep(0.01)
    assert not any(view.exist(set_of(model), old))
    assert all(view.exist(set_of(model), new))


def keys_of(view, model, version):
    lookup = TableLookup(view, model)
    layout = lookup._layout(version)
    return [f"{layout.prefix}{key}" for key in range(layout.num_rows)]


def wait_for_jobs(view):
    """Until a job that was started now, which the nodes do after those before, has done its work."""
    view.put("gt_table_jobs", "probe", {"content": "x"})
    remove_unused_rows(view, "jobs", grace_s=0)
    end_s = time.monotonic() + 60
    while any(view.exist("gt_table_jobs", ["probe"])) and time.monotonic() < end_s:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (pa.table({"id": [1, 1], "v": [1.0, 2.0]}), "column id is the key and holds 1 duplicates"),
        (pa.table({"id": [1, None], "v": [1.0, 2.0]}), "column id is null in 1 rows"),
        (pa.table({"id": [1.5, 2], "v": [1.0, 2.0]}), "column id has the type double, which no key has"),
        (pa.table({"key": [1]}), "column id is not in the table"),
        (pa.table({"id": [1]}), "no column but the key"),
        (pa.table({"id": [1], "v": ["text"]}), "column v has the type string"),
        (pa.table({"id": [1, 2], "v": [1, None]}), "column v is null in 1 places"),
        (pa.table({"id": [1, 2], "v": [[1.0], [1.0, 2.0]]}), "lists in column v are not of one length"),
        (pa.table({"id": [1, 2], "v": [[1.0], None]}), "lists in column v are not of one length"),
        (pa.table({"id": [1], "v": [[0.0] * 1_000_000]}), "a row has 8,000,000 bytes"),
    ],
)
def test_a_table_that_can_not_be_published_is_refused_before_anything_is_written(view, model, table, what):
    with pytest.raises(DataError, match=what):
        publish_table(view, model, table, key="id")
    with pytest.raises(UnknownState):
        TableLookup(view, model).get([1])


def test_what_is_asked_for_wrongly_is_said(view, model):
    publish_table(view, model, vectors(2), key="id")
    with pytest.raises(DataError, match="its keys are int64"):
        TableLookup(view, model).get(["1"])
    with pytest.raises(DataError, match="5001 keys"):
        TableLookup(view, model).get(range(MAX_KEYS + 1))
    with pytest.raises(UnknownState, match="no alias candidate") as refused:
        TableLookup(view, model, alias="candidate").get([1])
    assert "production" in refused.value.remedy
    with pytest.raises(ConfigError, match="'a name' is not a name"):
        publish_table(view, "a name", vectors(2), key="id")
    with pytest.raises(DataError, match="column key is not in the table") as refused:
        publish_table(view, model, vectors(2), key="key")
    assert refused.value.remedy == "name one of: id, vector"
    with pytest.raises(ConfigError, match="too long"):
        publish_table(view, "a" * 51, vectors(2), key="id")


def test_a_models_state_is_no_table_and_a_table_is_listed_as_a_state(view, model):
    put_state(view, model, 1)
    with pytest.raises(UnknownState, match="is a model's state, and no table"):
        TableLookup(view, model).get([1])
    publish_table(view, model, vectors(2), key="id", lineage={"job": "j"})
    assert ModelLookup(view, model).latest().manifest.lineage == {"job": "j"}


def test_a_damaged_row_is_said(view, model):
    publish_table(view, model, vectors(2), key="id")
    view.put(set_of(model), keys_of(view, model, 1)[1], {ROW: b"short"})
    with pytest.raises(ViewError, match="the row 1 is damaged"):
        TableLookup(view, model).get([0, 1])


def test_a_cluster_that_does_not_answer_for_a_moment_is_asked_again(view, model):
    publish_table(view, model, vectors(2), key="id")
    view.client = ScriptedClient(view.client, "batch_read", [failure(11), failure(9)])
    assert TableLookup(view, model).get([0, 1]).is_found.all()


def test_looking_up_loads_neither_torch_nor_arrow():
    code = "import sys, geotrain.states.table_lookup; print(sys.modules.keys() & {'torch', 'pyarrow', 'polars', 'ray'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
