import time
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from geotrain.errors import DataError, ViewError
from geotrain.view import scan as scan_module
from geotrain.view.connect import connect
from geotrain.view.cut import Cut, fingerprints, partitions
from geotrain.view.scan import scan
from tests.view.test_connect import counts
from tests.view.views import ScriptedClient, failure, view_config

COLUMNS = {"n": "int64", "x": "float64", "name": "string", "late": "bool", "arrived": "timestamp"}
ROW = {"n": 1, "x": 0.5, "name": "ä", "late": False, "arrived": 1_357_000_000_000_000}


def fill(view, set_name, num_rows=50):
    for key in range(num_rows):
        view.put(set_name, key, ROW | {"n": key})


def test_rows_come_back_in_the_declared_columns_and_types(view, set_name):
    fill(view, set_name)
    table = scan(view, set_name, COLUMNS, None).table
    assert table.schema.field("arrived").type == pa.timestamp("us")
    assert sorted(table["n"].to_pylist()) == list(range(50))
    first = table.filter(pa.compute.equal(table["n"], 1)).select(list(COLUMNS)).to_pylist()
    assert first == [ROW | {"arrived": datetime(2013, 1, 1, 0, 26, 40)}]


def test_a_bin_that_a_record_lacks_is_null(view, set_name):
    view.put(set_name, 1, {"n": 1})
    (row,) = scan(view, set_name, COLUMNS, None).table.select(list(COLUMNS)).to_pylist()
    assert row == dict.fromkeys(COLUMNS) | {"n": 1}


def test_every_site_reads_the_same_rows_in_the_same_order(cluster, view, set_name):
    fill(view, set_name)
    tables = []
    for rack in cluster.rack_ids or [0]:
        with connect(view_config(cluster, rack=rack)) as of_site:
            tables.append(scan(of_site, set_name, COLUMNS, None).table)
    assert all(table.equals(tables[0]) for table in tables)
    digests = tables[0]["__digest"].to_pylist()
    assert digests == sorted(digests)


def test_a_scan_asks_the_sites_own_rack_only(cluster, set_name):
    if not cluster.rack_ids:
        pytest.skip("this edition knows no racks")
    own = cluster.rack_ids[1]
    with connect(view_config(cluster, rack=own)) as view:
        fill(view, set_name)
        before = counts(view, "pi_query_long_basic_complete")
        scan(view, set_name, COLUMNS, None)
        after = counts(view, "pi_query_long_basic_complete")
    assert {rack for rack in after if after[rack] > before[rack]} == {own}


@pytest.mark.parametrize(
    ("value", "found"), [(0.5, "float64"), ("1", "string"), (True, "bool"), ([1], "list"), (b"1", "bytes")]
)
def test_a_bin_of_another_type_is_refused_with_set_column_and_type(view, set_name, value, found):
    view.put(set_name, 1, {"n": value})
    view.put(set_name, 2, {"n": 2})
    with pytest.raises(DataError, match=f"set {set_name}: column n is declared int64, but a record holds {found}"):
        scan(view, set_name, {"n": "int64"}, None)


def test_an_integer_is_not_taken_for_a_float(view, set_name):
    view.put(set_name, 1, {"x": 1})
    with pytest.raises(DataError, match="column x is declared float64, but a record holds int64"):
        scan(view, set_name, {"x": "float64"}, None)


def test_an_unknown_type_word_is_refused_with_those_that_are_known(view, set_name):
    with pytest.raises(DataError, match="column n has the unknown type 'int'") as refused:
        scan(view, set_name, {"n": "int"}, None)
    assert "int64" in refused.value.remedy


def test_a_set_that_nobody_has_written_is_empty(view, set_name):
    scanned = scan(view, set_name, COLUMNS, None)
    assert scanned.table.num_rows == 0
    assert scanned.table.column_names == [*COLUMNS, "__digest", "__generation"]
    assert not scanned.fingerprints().any()


def test_a_cut_leaves_out_what_was_written_after_it(view, set_name):
    view.put(set_name, "before", {"n": 1})
    view.put(set_name, "rewritten", {"n": 1})
    cut = Cut(time.time_ns())
    while time.time_ns() // 1_000_000 == cut.until_ns // 1_000_000:
        pass  # the server keeps update times in milliseconds
    view.put(set_name, "rewritten", {"n": 2})
    view.put(set_name, "after", {"n": 3})
    assert scan(view, set_name, {"n": "int64"}, cut).table["n"].to_pylist() == [1]
    assert scan(view, set_name, {"n": "int64"}, None).table.num_rows == 3


def test_fingerprints_are_those_of_digests_and_generations(view, set_name):
    fill(view, set_name, 5)
    view.put(set_name, 3, {"n": 3})
    scanned = scan(view, set_name, COLUMNS, None)
    assert sorted(scanned.generations.tolist()) == [1, 1, 1, 1, 2]
    assert scanned.digests.tobytes() == b"".join(scanned.table["__digest"].to_pylist())
    assert (scanned.fingerprints() == fingerprints(scanned.digests, scanned.generations)).all()


def test_rows_of_a_partition_can_be_listed_and_dropped(view, set_name):
    fill(view, set_name)
    scanned = scan(view, set_name, COLUMNS, None)
    chosen = int(partitions(scanned.digests)[10])
    listed = scanned.rows_in([chosen])
    left = scanned.without(listed.digests)
    assert len(listed.digests) + left.table.num_rows == 50
    assert chosen not in partitions(left.digests)
    assert np.flatnonzero(left.fingerprints() != scanned.fingerprints()).tolist() == [chosen]
    assert scanned.without(listed.digests[:0]).table.equals(scanned.table)


def test_a_scan_that_fails_in_the_middle_raises_and_gives_nothing(view, set_name):
    fill(view, set_name)

    class FailsAtThird:
        num_queries = 0

        def query(self, *arguments):
            FailsAtThird.num_queries += 1
            query = view_client.query(*arguments)
            return ScriptedClient(query, "results", [failure(9)] if self.num_queries == 3 else [])

    view_client, view.client = view.client, FailsAtThird()
    try:
        with pytest.raises(ViewError, match=f"scanning set {set_name}: no answer"):
            scan(view, set_name, COLUMNS, None)
    finally:
        view.client = view_client
    assert scan_module.gc.isenabled()
