import time
from datetime import datetime

import aerospike
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from geotrain.errors import DataError, ViewError
from geotrain.view.cut import Cut, partitions
from geotrain.view.nodes import UnknownSet
from geotrain.view.scan import Scan
from geotrain.view.scanned import ScannedSet
from tests.view.test_connect import counts
from tests.view.views import view_config

COLUMNS = {"n": "int64", "x": "float64", "name": "string", "late": "bool", "arrived": "timestamp"}
ROW = {"n": 1, "x": 0.5, "name": "ä", "late": False, "arrived": 1_357_000_000_000_000}
IDENTITY = ("__digest", "__generation")


def fill(view, set_name, num_rows=50, **bins):
    for key in range(num_rows):
        view.put(set_name, key, ROW | {"n": key} | bins)


def read(view, set_name, columns=None, **options):
    return Scan(view.config, set_name, columns, **options).reader().read_all()


def wait_for_the_next_millisecond(cut):
    while time.time_ns() // 1_000_000 == cut.until_ns // 1_000_000:
        pass  # the server keeps update times in milliseconds


def test_rows_come_back_in_the_declared_columns_and_types(view, set_name):
    fill(view, set_name)
    table = view.scan(set_name, COLUMNS).read_all()
    assert table.schema.field("arrived").type == pa.timestamp("us")
    assert sorted(table["n"].to_pylist()) == list(range(50))
    first = table.filter(pc.equal(table["n"], 1)).to_pylist()
    assert first == [ROW | {"arrived": datetime(2013, 1, 1, 0, 26, 40)}]


def test_lists_and_maps_come_back_at_any_depth(view, set_name):
    bins = {"l": [[1, None], []], "m": {"a": {"b": [0.5, 1.5]}, "c": {}}, "raw": b"\0\xff"}
    view.put(set_name, 1, bins)
    view.put(set_name, 2, {"raw": b""})
    columns = {"l": "list<list<int64>>", "m": "map<string, map<string, list<float64>>>", "raw": "binary"}
    table = read(view, set_name, columns).sort_by([("raw", "descending")])
    assert table.to_pylist() == [
        {"l": [[1, None], []], "m": [("a", [("b", [0.5, 1.5])]), ("c", [])], "raw": b"\0\xff"},
        {"l": None, "m": None, "raw": b""},
    ]


def test_a_bin_that_a_record_lacks_is_null(view, set_name):
    view.put(set_name, 1, {"n": 1})
    view.put(set_name, 2, ROW | {"n": 2})
    assert read(view, set_name, COLUMNS, where=[("n", "==", 1)]).to_pylist() == [dict.fromkeys(COLUMNS) | {"n": 1}]


def test_metadata_comes_as_columns(view, set_name):
    key = view.key(set_name, "one")
    view.client.put(key, {"n": 1}, policy={"key": aerospike.POLICY_KEY_SEND})
    view.put(set_name, "one", {"n": 2})
    view.put(set_name, "two", {"n": 3})
    columns = {"n": "int64", "__key": "string"}
    table = read(view, set_name, columns, metadata=("__ttl", *IDENTITY)).sort_by("n")
    assert table.schema.names == ["n", "__key", "__ttl", *IDENTITY]
    assert table.select(["n", "__key", "__ttl", "__generation"]).to_pylist() == [
        {"n": 2, "__key": "one", "__ttl": None, "__generation": 2},
        {"n": 3, "__key": None, "__ttl": None, "__generation": 1},
    ]
    assert table["__digest"][0].as_py() == bytes(aerospike.calc_digest(*key))


def test_without_columns_only_the_metadata_is_sent(view, set_name):
    fill(view, set_name)
    scan = Scan(view.config, set_name, {}, metadata=IDENTITY)
    whole = Scan(view.config, set_name, COLUMNS)
    assert scan.reader().read_all().num_rows == whole.reader().read_all().num_rows == 50
    assert scan.num_bytes < whole.num_bytes / 2
    assert (scan.fingerprints == whole.fingerprints).all()
    assert read(view, set_name, {}).num_rows == 50


def test_columns_that_are_not_declared_are_inferred_and_said_even_without_a_configured_log(view, set_name, caplog):
    caplog.set_level("WARNING")
    fill(view, set_name, 20)
    view.put(set_name, "another", {"l": [1], "m": {"a": 0.5}})
    scan = Scan(view.config, set_name)
    inferred = {**COLUMNS, "arrived": "int64", "l": "list<int64>", "m": "map<string, float64>"}
    for name, word in inferred.items():
        assert f"\n  {name}: {word}" in caplog.text
    assert sorted(scan.schema.names) == sorted(inferred)
    assert scan.reader().read_all().num_rows == 21


def test_a_sample_with_several_types_of_a_bin_asks_for_a_declaration(view, set_name):
    view.put(set_name, 1, {"n": 1})
    view.put(set_name, 2, {"n": "1"})
    with pytest.raises(DataError, match=f"set {set_name}: column n holds .* and ") as refused:
        Scan(view.config, set_name)
    assert "declare" in refused.value.remedy


def test_the_servers_apply_conditions(view, set_name):
    fill(view, set_name)
    either = [[("n", "<", 3)], [("x", ">=", 0.5), ("n", "in", [40, 41, 99])]]
    scan = Scan(view.config, set_name, {"n": "int64", "x": "float64"}, where=either)
    assert sorted(scan.reader().read_all()["n"].to_pylist()) == [0, 1, 2, 40, 41]
    everything = Scan(view.config, set_name, {"n": "int64", "x": "float64"})
    everything.reader().read_all()
    assert scan.num_bytes < everything.num_bytes / 3


def test_a_timestamp_is_compared_with_a_datetime(view, set_name):
    for key in range(5):
        view.put(set_name, key, {"arrived": key * 1_000_000})
    found = read(view, set_name, {"arrived": "timestamp"}, where=[("arrived", ">=", datetime(1970, 1, 1, 0, 0, 3))])
    assert sorted(at.second for at in found["arrived"].to_pylist()) == [3, 4]


def test_a_condition_of_the_wrong_type_is_refused_with_its_column(view, set_name):
    with pytest.raises(DataError, match=f"set {set_name}: where: .*n") as refused:
        Scan(view.config, set_name, {"n": "int64"}, where=[("n", ">", "five")])
    assert "type" in refused.value.remedy


def test_a_condition_on_a_bin_that_is_no_column_has_the_type_that_the_records_have(view, set_name):
    fill(view, set_name, 4)
    assert read(view, set_name, {"n": "int64"}, where=[("x", "<", 1), ("n", ">", 1)]).num_rows == 2
    with pytest.raises(DataError, match=f"set {set_name}: where: .* x compares with '1', but x holds .* float"):
        read(view, set_name, {"n": "int64"}, where=[[("n", ">", 1)], [("x", "<", "1")]])


def test_where_a_bin_has_several_types_the_value_says_which_is_meant(view, set_name):
    for key, value in enumerate([1, 1.0, "1"]):
        view.put(set_name, key, {"n": key, "any": value})
    assert read(view, set_name, {"n": "int64"}, where=[("any", "==", 1.0)]).to_pylist() == [{"n": 1}]


@pytest.mark.parametrize("name", ["", None])
def test_a_set_without_a_name_is_refused_for_it_would_be_the_whole_namespace(view, name):
    with pytest.raises(DataError, match="a set can't be named"):
        Scan(view.config, name, COLUMNS)


def test_partitions_are_read_piece_by_piece(view, set_name):
    fill(view, set_name)
    pieces = [
        read(view, set_name, {"n": "int64"}, partitions=range(begin, begin + 1024), metadata=IDENTITY)
        for begin in range(0, 4096, 1024)
    ]
    assert sorted(n for piece in pieces for n in piece["n"].to_pylist()) == list(range(50))
    for begin, piece in zip(range(0, 4096, 1024), pieces, strict=True):
        assert all(begin <= pid < begin + 1024 for pid in partitions(ScannedSet(piece).digests))


def test_batches_have_at_most_so_many_rows(view, set_name):
    fill(view, set_name)
    reader = Scan(view.config, set_name, COLUMNS, batch_rows=7, connections_per_node=3).reader()
    sizes = [batch.num_rows for batch in reader]
    assert sum(sizes) == 50
    assert max(sizes) == 7


def test_a_limited_rate_gives_all_rows(view, set_name):
    fill(view, set_name)
    assert read(view, set_name, COLUMNS, records_per_second=2000).num_rows == 50


def test_every_site_reads_the_same_rows_in_the_same_order(cluster, view, set_name):
    fill(view, set_name)
    tables = [
        ScannedSet.read(Scan(view_config(cluster, rack=rack), set_name, COLUMNS, metadata=IDENTITY)).table
        for rack in cluster.rack_ids or [0]
    ]
    assert all(table.equals(tables[0]) for table in tables)
    digests = tables[0]["__digest"].to_pylist()
    assert digests == sorted(digests)


def test_a_scan_asks_the_sites_own_rack_only(cluster, view, set_name):
    if not cluster.rack_ids:
        pytest.skip("this edition knows no racks")
    own = cluster.rack_ids[1]
    fill(view, set_name)
    before = counts(view, "pi_query_long_basic_complete")
    Scan(view_config(cluster, rack=own), set_name, COLUMNS).reader().read_all()
    after = counts(view, "pi_query_long_basic_complete")
    assert {rack for rack in after if after[rack] > before[rack]} == {own}


@pytest.mark.parametrize(
    ("value", "found"), [(0.5, "float64"), ("1", "string"), (True, "bool"), ([1], "a list"), (b"1", "binary")]
)
def test_a_bin_of_another_type_is_refused_with_set_column_and_type(view, set_name, value, found):
    view.put(set_name, 1, {"n": value})
    view.put(set_name, 2, {"n": 2})
    with pytest.raises(DataError, match=f"set {set_name}: column n is declared int64, but a record holds {found}"):
        read(view, set_name, {"n": "int64"})


@pytest.mark.parametrize(
    ("value", "word"), [(1, "float64"), ([1, "a"], "list<int64>"), ({"a": 1}, "map<string, float64>")]
)
def test_a_value_of_another_type_can_be_null_and_is_counted(view, set_name, value, word, caplog):
    view.put(set_name, 1, {"x": value, "n": 1})
    view.put(set_name, 2, {"n": 2})
    scan = Scan(view.config, set_name, {"x": word, "n": "int64"}, on_mismatch="null")
    assert scan.reader().read_all()["x"].to_pylist() == [None, None]
    assert +scan.mismatches == {"x": 1}
    assert "1 values of column x are of another type" in caplog.text
    with pytest.raises(DataError, match=f"column x is declared {word}, but a record holds"):
        read(view, set_name, {"x": word, "n": "int64"})


@pytest.mark.parametrize(
    ("columns", "options", "wrong"),
    [
        ({"n": "int"}, {}, "column n has the unknown type 'int'"),
        ({"n": "list<map<float64>>"}, {}, "column n has the unknown type"),
        ({"n" * 16: "int64"}, {}, "can't be a bin"),
        ({"": "int64"}, {}, "can't be a bin"),
        ({"n": pa.int64()}, {}, "column n has the unknown type"),
        (["n"], {}, r"columns is \['n'\]"),
        ({"__generation": "int64"}, {}, "column __generation can't be a bin"),
        ({"__key": "bool"}, {}, "__key can't be bool"),
        ({"n": "int64"}, {"metadata": ["__lut"]}, "no metadata __lut"),
        ({"n": "int64"}, {"on_mismatch": "drop"}, "on_mismatch is 'drop'"),
        ({"n": "int64"}, {"partitions": [4096]}, "partitions are out of range"),
        ({"n": "int64"}, {"connections_per_node": 0}, "connections_per_node is 0"),
        ({"n": "int64"}, {"batch_rows": 0}, "batch_rows is 0"),
    ],
)
def test_what_can_not_be_scanned_is_refused_with_its_name(view, set_name, columns, options, wrong):
    with pytest.raises(DataError, match=f"set {set_name}: .*{wrong}") as refused:
        Scan(view.config, set_name, columns, **options)
    assert refused.value.remedy


@pytest.mark.parametrize("columns", [None, COLUMNS])
def test_an_unknown_set_is_refused_with_those_that_there_are(view, set_name, columns):
    view.put(set_name, 1, ROW)
    with pytest.raises(UnknownSet, match="there is no set nowhere") as refused:
        read(view, "nowhere", columns)
    assert set_name in refused.value.remedy


def test_an_empty_set_is_an_empty_table_where_its_columns_are_declared(view, set_name):
    view.put(set_name, 1, ROW)
    view.client.remove(view.key(set_name, 1), policy={"durable_delete": view.consistency == "strong"})
    scan = Scan(view.config, set_name, COLUMNS, metadata=IDENTITY)
    table = scan.reader().read_all()
    assert (table.num_rows, table.column_names) == (0, [*COLUMNS, *IDENTITY])
    assert not scan.fingerprints.any()
    with pytest.raises(DataError, match=f"set {set_name} is empty"):
        Scan(view.config, set_name)


@pytest.mark.parametrize("columns", [{"n": "int64", "nn": "int64"}, {"nn": "int64"}])
def test_a_column_that_no_record_has_is_refused_or_null_with_a_warning(view, set_name, columns, caplog):
    fill(view, set_name, 3)
    with pytest.raises(DataError, match=f"set {set_name}: no record has the column nn"):
        read(view, set_name, columns)
    assert read(view, set_name, columns, on_mismatch="null")["nn"].to_pylist() == [None] * (3 if "n" in columns else 0)
    assert "no record has the column nn" in caplog.text


@pytest.mark.parametrize("columns", [{"n": "int64"}, {"n": "int64", "nn": "int64"}])
@pytest.mark.parametrize("either", [False, True])
def test_a_condition_on_a_bin_that_no_record_has_is_refused(view, set_name, columns, either):
    fill(view, set_name, 3)
    where = [[("nn", "==", 1)], [("n", ">=", 0)]] if either else [("nn", "==", 1)]
    with pytest.raises(DataError, match=f"set {set_name}: where: no record has the bin nn"):
        read(view, set_name, columns, where=where)


def test_a_condition_that_no_record_meets_gives_no_rows(view, set_name):
    fill(view, set_name, 3)
    view.put(set_name, "rare", {"rare": 1})
    assert read(view, set_name, {"n": "int64"}, where=[("n", ">", 5)]).num_rows == 0
    assert read(view, set_name, {"n": "int64"}, where=[("rare", ">", 5)]).num_rows == 0


def test_a_cut_leaves_out_what_was_written_after_it_and_changes_are_just_that(view, set_name):
    view.put(set_name, "before", {"n": 1})
    view.put(set_name, "rewritten", {"n": 1})
    cut = Cut(time.time_ns())
    wait_for_the_next_millisecond(cut)
    view.put(set_name, "rewritten", {"n": 2})
    view.put(set_name, "after", {"n": 3})
    later = Cut(time.time_ns())
    wait_for_the_next_millisecond(later)
    view.put(set_name, "much later", {"n": 4})
    assert read(view, set_name, {"n": "int64"}, cut=cut)["n"].to_pylist() == [1]
    assert read(view, set_name, {"n": "int64"}).num_rows == 4
    changes = view.changes(set_name, since=cut, columns={"n": "int64"}, cut=later).read_all()
    assert sorted(changes["n"].to_pylist()) == [2, 3]
    assert sorted(view.changes(set_name, since=cut, columns={"n": "int64"}).read_all()["n"].to_pylist()) == [2, 3, 4]


def test_an_unknown_namespace_is_refused_by_name(cluster):
    with pytest.raises(ViewError, match="namespace nowhere is not known") as refused:
        Scan(view_config(cluster, namespace="nowhere"), "s", COLUMNS).reader().read_all()
    assert cluster.namespace in refused.value.remedy


def test_a_scan_is_read_once(view, set_name):
    fill(view, set_name, 3)
    scan = Scan(view.config, set_name, COLUMNS)
    scan.reader()
    with pytest.raises(ValueError, match="once"):
        scan.reader()
