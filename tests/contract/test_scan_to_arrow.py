"""The scan to Arrow returns the rows that the official client returns."""

import math
from typing import Any

import pytest
from aerospike_helpers.batch import records as batch
from aerospike_helpers.operations import operations as op
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.view.config import ViewConfig
from geotrain.view.scan import Scan
from tests.conftest import ClusterUnderTest

KEYS = st.text("abc", min_size=1, max_size=4)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(),
    "bool": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    "binary": st.binary(max_size=40),
    "list<int64>": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    "list<list<string>>": st.lists(st.lists(KEYS, max_size=2), max_size=3),
    "map<string, float64>": st.dictionaries(KEYS, st.floats(), max_size=3),
    "map<int64, list<bool>>": st.dictionaries(st.integers(0, 9), st.lists(st.booleans(), max_size=2), max_size=3),
}
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_0123456789é", min_size=1, max_size=15).filter(
    lambda name: len(name.encode()) <= 15 and not name.startswith("__")
)
SCHEMAS = st.dictionaries(NAMES, st.sampled_from(sorted(VALUES)), min_size=1, max_size=6)


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """A schema, and records that have some of its bins each."""
    schema = draw(SCHEMAS)
    columns = {name: st.none() | VALUES[word] for name, word in schema.items()}
    rows = draw(st.lists(st.fixed_dictionaries(columns), max_size=12))
    # A server keeps no record without a bin.
    return schema, [present for row in rows if (present := {k: v for k, v in row.items() if v is not None})]


@settings(deadline=None, max_examples=60)
@given(table=tables(), connections=st.integers(1, 3), batch_rows=st.integers(1, 5), data=st.data())
def test_a_scan_to_arrow_returns_what_the_official_client_returns(
    client: Any, cluster: ClusterUnderTest, table: Any, connections: int, batch_rows: int, data: st.DataObject
) -> None:
    schema, rows = table
    name = f"scan{data.draw(st.integers(0, 2**60), label='set')}"
    write(client, cluster.namespace, name, rows)
    selected = data.draw(st.lists(st.sampled_from(sorted(schema)), min_size=1, unique=True), label="columns")
    query = client.query(cluster.namespace, name)
    query.select(*selected)
    official = [(bytes(key[3]), meta["gen"], bins) for key, meta, bins in query.results()]

    config = ViewConfig(hosts=cluster.hosts, namespace=cluster.namespace)
    scan = Scan(
        config,
        name,
        {column: schema[column] for column in selected},
        metadata=("__digest", "__generation"),
        on_mismatch="null",
        connections_per_node=connections,
        batch_rows=batch_rows,
    )
    found = scan.reader().read_all().to_pylist() if rows else []
    assert not +scan.mismatches
    ours = [
        (row["__digest"], row["__generation"], {column: row[column] for column in selected if row[column] is not None})
        for row in found
    ]
    assert sorted(map(comparable, ours)) == sorted(map(comparable, official))
    client.truncate(cluster.namespace, name, 0)


@pytest.mark.parametrize("num_rows", [3000])
def test_a_larger_set_is_the_same_in_both(client: Any, cluster: ClusterUnderTest, num_rows: int, set_name: str) -> None:
    write(client, cluster.namespace, set_name, [{"n": n, "s": "x" * (n % 300)} for n in range(num_rows)])
    official = {record[2]["n"]: record[2]["s"] for record in client.query(cluster.namespace, set_name).results()}
    config = ViewConfig(hosts=cluster.hosts, namespace=cluster.namespace)
    ours = Scan(config, set_name).reader().read_all().to_pydict()
    assert dict(zip(ours["n"], ours["s"], strict=True)) == official
    assert len(ours["n"]) == num_rows


def write(client: Any, namespace: str, set_name: str, rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), 1000):
        writes = [
            batch.Write((namespace, set_name, start + n), [op.write(column, value) for column, value in row.items()])
            for n, row in enumerate(rows[start : start + 1000])
        ]
        assert all(row.result == 0 for row in client.batch_write(batch.BatchRecords(writes)).batch_records)


def comparable(value: Any) -> Any:
    """A value of which equals can be told from others: maps as their pairs in order, NaN as a word."""
    match value:
        case float() if math.isnan(value):
            return "nan"
        case bytearray():
            return bytes(value).hex()
        case bytes():
            return value.hex()
        case dict():
            return sorted((repr(key), comparable(item)) for key, item in value.items())
        case [(_, _), *_] if all(isinstance(pair, tuple) for pair in value):
            return sorted((repr(key), comparable(item)) for key, item in value)
        case list() | tuple():
            return [comparable(item) for item in value]
    return repr(value)
