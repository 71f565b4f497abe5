import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aerospike_helpers import expressions as exp
from aerospike_helpers.batch import records as batch
from aerospike_helpers.operations import operations as op

from geotrain.wire.partitions import partition_of
from tests.conftest import ClusterUnderTest

NUM_ROWS = 2000


@pytest.fixture(scope="module")
def rows(client: Any, cluster: ClusterUnderTest) -> str:
    """The name of a set of 2000 records: `n`, its half, its name, and for every tenth a bin of its own."""
    name = "test-scans"
    client.truncate(cluster.namespace, name, 0)
    writes = []
    for n in range(NUM_ROWS):
        ops = [op.write("n", n), op.write("half", n / 2), op.write("name", f"row {n}")]
        if n % 10 == 0:
            ops.append(op.write("tenth", True))
        writes.append(batch.Write((cluster.namespace, name, n), ops))
    result = client.batch_write(batch.BatchRecords(writes))
    assert all(row.result == 0 for row in result.batch_records)
    return name


@pytest.fixture
def scan(client: Any, cluster: ClusterUnderTest, rows: str) -> Callable[..., list[dict[str, Any]]]:
    """Scan the set and return the bins of what comes."""

    def scan(*bins: str, **policy: Any) -> list[dict[str, Any]]:
        query = client.query(cluster.namespace, rows)
        if bins:
            query.select(*bins)
        return [record[2] for record in query.results(policy)]

    return scan


Scan = Callable[..., list[dict[str, Any]]]


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return sorted(bins["n"] for bins in found)


def test_a_scan_returns_every_record_once(scan: Scan) -> None:
    found = {bins["n"]: bins for bins in scan()}
    assert len(found) == NUM_ROWS
    assert found[7] == {"n": 7, "half": 3.5, "name": "row 7"}
    assert found[10] == {"n": 10, "half": 5.0, "name": "row 10", "tenth": True}


def test_a_scan_returns_the_selected_bins_of_the_records_that_have_any(scan: Scan) -> None:
    assert scan("tenth") == [{"tenth": True}] * (NUM_ROWS // 10)
    mixed = Counter(tuple(sorted(bins)) for bins in scan("name", "tenth"))
    assert mixed == {("name",): NUM_ROWS * 9 // 10, ("name", "tenth"): NUM_ROWS // 10}


def test_a_scan_without_bins_returns_digests_and_generations(client: Any, cluster: ClusterUnderTest, rows: str) -> None:
    found = client.query(cluster.namespace, rows).results(options={"nobins": True})
    assert len({bytes(key[3]) for key, _, _ in found}) == NUM_ROWS
    assert {metadata["gen"] for _, metadata, _ in found} == {1}
    assert not any(bins for _, _, bins in found)


FILTERS: list[tuple[Any, Callable[[int], bool]]] = [
    (exp.Eq(exp.IntBin("n"), 7), lambda n: n == 7),
    (exp.NE(exp.StrBin("name"), "row 7"), lambda n: n != 7),
    (exp.And(exp.GE(exp.IntBin("n"), 10), exp.LT(exp.FloatBin("half"), 10.0)), lambda n: 10 <= n < 20),
    (exp.Or(exp.LE(exp.IntBin("n"), 1), exp.GT(exp.IntBin("n"), 1997)), lambda n: n <= 1 or n > 1997),
    (exp.Exclusive(exp.LT(exp.IntBin("n"), 20), exp.LT(exp.IntBin("n"), 10)), lambda n: 10 <= n < 20),
    (exp.Not(exp.BinExists("tenth")), lambda n: n % 10 != 0),
    (exp.BoolBin("tenth"), lambda n: n % 10 == 0),
    (exp.Or(exp.BoolBin("tenth"), exp.LT(exp.IntBin("n"), 5)), lambda n: n % 10 == 0 or n < 5),
    (exp.Eq(exp.Mod(exp.IntBin("n"), 7), 3), lambda n: n % 7 == 3),
    (exp.Eq(exp.Add(exp.IntBin("n"), 5, exp.IntBin("n")), 25), lambda n: n == 10),
    (exp.Eq(exp.Sub(exp.Mul(exp.IntBin("n"), 3), 6), exp.IntBin("n")), lambda n: n == 3),
    (exp.Eq(exp.Div(exp.IntBin("n"), 4), 5), lambda n: 20 <= n < 24),
    (exp.Eq(exp.ToInt(exp.Floor(exp.FloatBin("half"))), 3), lambda n: n in (6, 7)),
    (exp.Eq(exp.ToFloat(exp.IntBin("n")), exp.FloatBin("half")), lambda n: n == 0),
    (exp.LE(exp.Max(exp.IntBin("n"), 3), exp.Min(exp.IntBin("n"), 8)), lambda n: 3 <= n <= 8),
    (exp.Eq(exp.Abs(exp.Sub(exp.IntBin("n"), 100)), 2), lambda n: n in (98, 102)),
    (exp.Eq(exp.IntAnd(exp.IntBin("n"), 0xFF), 1), lambda n: n & 0xFF == 1),
    (exp.Eq(exp.SetName(), "test-scans"), lambda n: True),
    (exp.KeyExists(), lambda n: False),
    (exp.GT(exp.VoidTime(), 0), lambda n: False),
    (
        exp.Cond(exp.LT(exp.IntBin("n"), 10), True, exp.LT(exp.IntBin("n"), 20), False, exp.LT(exp.IntBin("n"), 30)),
        lambda n: n < 10 or 20 <= n < 30,
    ),
    (
        exp.Let(
            exp.Def("x", exp.Mul(exp.IntBin("n"), 2)),
            exp.Def("y", exp.Add(exp.Var("x"), 1)),
            exp.Eq(exp.Add(exp.Var("x"), exp.Var("y")), 41),
        ),
        lambda n: n == 10,
    ),
    (exp.GT(exp.IntBin("absent"), 0), lambda n: False),
    (exp.Not(exp.GT(exp.IntBin("absent"), 0)), lambda n: False),
    (exp.GT(exp.StrBin("n"), ""), lambda n: False),
]


@pytest.mark.parametrize("position", range(len(FILTERS)))
def test_a_filter_keeps_the_records_for_which_it_is_true(scan: Scan, position: int) -> None:
    expression, keeps = FILTERS[position]
    assert numbers(scan(expressions=expression.compile())) == [n for n in range(NUM_ROWS) if keeps(n)]


def test_the_digest_modulo_splits_a_set_into_shares(scan: Scan) -> None:
    shares = [numbers(scan(expressions=exp.Eq(exp.DigestMod(4), share).compile())) for share in range(4)]
    assert sorted(n for share in shares for n in share) == list(range(NUM_ROWS))
    assert all(len(share) > NUM_ROWS // 8 for share in shares)


def test_a_cut_by_last_update_leaves_out_what_was_written_later(
    client: Any, cluster: ClusterUnderTest, set_name: str
) -> None:
    keys = [(cluster.namespace, set_name, n) for n in range(20)]
    for key in keys:
        client.put(key, {"n": key[2]})
    last_ms = max(_last_update_ms(client, key) for key in keys)
    while time.time_ns() // 1_000_000 <= last_ms:
        continue
    for key in keys[:5]:
        client.put(key, {"n": key[2] + 100})

    def scan_until(moment_ms: int) -> list[int]:
        until = exp.LE(exp.LastUpdateTime(), moment_ms * 1_000_000).compile()
        return numbers([record[2] for record in client.query(*keys[0][:2]).results({"expressions": until})])

    assert scan_until(last_ms) == list(range(5, 20))
    assert scan_until(max(_last_update_ms(client, key) for key in keys)) == [*range(5, 20), *range(100, 105)]


def _last_update_ms(client: Any, key: tuple[str, str, int]) -> int:
    """By bisection: the time of a record's last update is known to filters only."""
    low, high = 0, (time.time_ns() // 1_000_000) + 3_600_000
    while low < high:
        middle = (low + high) // 2
        until = exp.LE(exp.LastUpdateTime(), middle * 1_000_000).compile()
        found = client.batch_read([key], [], policy={"expressions": until}).batch_records[0].result == 0
        low, high = (low, middle) if found else (middle + 1, high)
    return low


def test_partitions_can_be_scanned_piece_by_piece(client: Any, cluster: ClusterUnderTest, rows: str) -> None:
    found: list[int] = []
    for begin in range(0, 4096, 512):
        piece = client.query(cluster.namespace, rows).results({"partition_filter": {"begin": begin, "count": 512}})
        assert all(begin <= partition_of(bytes(record[0][3])) < begin + 512 for record in piece)
        found += [record[2]["n"] for record in piece]
    assert sorted(found) == list(range(NUM_ROWS))


def test_a_scan_in_pages_resumes_where_it_stopped(client: Any, cluster: ClusterUnderTest, rows: str) -> None:
    query = client.query(cluster.namespace, rows)
    query.max_records = 300
    query.paginate()
    found: list[int] = []
    num_pages = 0
    while not query.is_done():
        page = [record[2]["n"] for record in query.results()]
        assert len(page) <= 300
        found += page
        num_pages += 1
    assert sorted(found) == list(range(NUM_ROWS))
    assert num_pages >= NUM_ROWS // 300


def test_a_scan_that_was_broken_off_goes_on_after_the_last_record(
    client: Any, cluster: ClusterUnderTest, rows: str
) -> None:
    seen: list[int] = []

    def until_half(_: int, record: Any) -> bool:
        seen.append(record[2]["n"])
        return len(seen) < NUM_ROWS // 2

    query = client.query(cluster.namespace, rows)
    query.foreach(until_half, {"partition_filter": {"begin": 0, "count": 4096}})
    status = query.get_partitions_status()
    resumed = client.query(cluster.namespace, rows)
    rest = resumed.results({"partition_filter": {"begin": 0, "count": 4096, "partition_status": status}})
    seen += [record[2]["n"] for record in rest]
    assert set(seen) == set(range(NUM_ROWS))
    assert len(seen) <= NUM_ROWS + 3 * len(cluster.hosts)


def test_a_scan_at_a_limited_rate_returns_every_record(client: Any, cluster: ClusterUnderTest, rows: str) -> None:
    query = client.query(cluster.namespace, rows)
    query.records_per_second = 5000
    assert numbers([record[2] for record in query.results()]) == list(range(NUM_ROWS))


def test_a_set_that_nobody_wrote_is_empty(client: Any, cluster: ClusterUnderTest) -> None:
    assert client.query(cluster.namespace, "test-nosuch").results() == []


def test_truncate_empties_a_set(client: Any, cluster: ClusterUnderTest, set_name: str) -> None:
    client.put((cluster.namespace, set_name, 1), {"n": 1})
    last_ms = _last_update_ms(client, (cluster.namespace, set_name, 1))
    while time.time_ns() // 1_000_000 <= last_ms:
        continue
    client.truncate(cluster.namespace, set_name, 0)
    assert client.query(cluster.namespace, set_name).results() == []
