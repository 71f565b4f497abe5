from typing import Any

import aerospike
import pytest
from aerospike_helpers import expressions as exp
from aerospike_helpers.batch import records as batch
from aerospike_helpers.operations import operations as op

from tests.conftest import ClusterUnderTest

NOT_FOUND, GENERATION, FILTERED_OUT = 2, 3, 27

Keys = list[tuple[str, str, int]]


@pytest.fixture
def keys(client: Any, cluster: ClusterUnderTest, set_name: str) -> Keys:
    """300 records `n` and `half`, written in one batch."""
    keys = [(cluster.namespace, set_name, n) for n in range(300)]
    rows = [batch.Write(key, [op.write("n", key[2]), op.write("half", key[2] / 2)]) for key in keys]
    assert codes(client.batch_write(batch.BatchRecords(rows))) == [0] * 300
    return keys


def codes(result: Any) -> list[int]:
    return [row.result for row in result.batch_records]


def test_rows_are_answered_in_the_order_of_the_keys_and_absent_ones_say_so(client: Any, keys: Keys) -> None:
    absent = (*keys[0][:2], 10_000)
    result = client.batch_read([*keys[10:20], absent, keys[5]])
    assert codes(result) == [0] * 10 + [NOT_FOUND, 0]
    bins = [row.record[2] for row in result.batch_records if row.result == 0]
    assert bins == [{"n": n, "half": n / 2} for n in [*range(10, 20), 5]]


def test_a_batch_reads_only_the_bins_asked_for(client: Any, keys: Keys) -> None:
    assert [row.record[2] for row in client.batch_read(keys[:5], ["n"]).batch_records] == [{"n": n} for n in range(5)]
    without = client.batch_read(keys[:5], [])
    assert [len(row.record) for row in without.batch_records] == [2] * 5
    assert [row.record[1]["gen"] for row in without.batch_records] == [1] * 5


def test_a_filter_holds_for_every_row_of_a_batch(client: Any, keys: Keys) -> None:
    policy = {"expressions": exp.LT(exp.IntBin("n"), 2).compile()}
    assert codes(client.batch_read(keys[:4], policy=policy)) == [0, 0, FILTERED_OUT, FILTERED_OUT]


def test_every_row_of_a_batch_has_its_own_policy_and_outcome(
    client: Any, keys: Keys, remove_policy: dict[str, Any]
) -> None:
    equal = {"gen": aerospike.POLICY_GEN_EQ}
    rows = [
        batch.Write(keys[0], [op.write("n", 100)], meta={"gen": 1}, policy=equal),
        batch.Write(keys[1], [op.write("n", 100)], meta={"gen": 9}, policy=equal),
        batch.Write(keys[2], [op.increment("n", 5), op.read("n")]),
        batch.Read(keys[3], [op.read("half")]),
        batch.Remove(keys[4], policy=remove_policy),
        batch.Read(keys[4], None, read_all_bins=True),
    ]
    result = client.batch_write(batch.BatchRecords(rows))
    assert codes(result)[:5] == [0, GENERATION, 0, 0, 0]
    assert result.batch_records[2].record[2] == {"n": 7}
    assert result.batch_records[3].record[2] == {"half": 1.5}
    left = client.batch_read(keys[:5])
    assert codes(left) == [0, 0, 0, 0, NOT_FOUND]
    assert [row.record[2]["n"] for row in left.batch_records[:4]] == [100, 1, 7, 3]


def test_a_batch_of_removes_removes(client: Any, keys: Keys, remove_policy: dict[str, Any]) -> None:
    assert codes(client.batch_remove(keys[:100], policy_batch_remove=remove_policy)) == [0] * 100
    assert codes(client.batch_read(keys[95:105])) == [NOT_FOUND] * 5 + [0] * 5


def test_large_records_come_back_whole_in_a_batch(client: Any, cluster: ClusterUnderTest, set_name: str) -> None:
    keys = [(cluster.namespace, set_name, n) for n in range(12)]
    for key in keys:
        client.put(key, {"b": bytes([key[2]]) * 900_000})
    found = [row.record[2]["b"] for row in client.batch_read(keys).batch_records]
    assert found == [bytes([n]) * 900_000 for n in range(12)]
