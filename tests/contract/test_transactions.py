from collections.abc import Callable
from typing import Any

import aerospike
import pytest
from aerospike import exception
from aerospike_helpers.batch import records as batch
from aerospike_helpers.operations import operations as op

from tests.conftest import ClusterUnderTest

pytestmark = pytest.mark.usefixtures("strong")

Key = tuple[str, str, Any]
VERSION_MISMATCH, BLOCKED, ALREADY_LOCKED = 121, 120, 126


@pytest.fixture
def keys(cluster: ClusterUnderTest, set_name: str) -> list[Key]:
    return [(cluster.namespace, set_name, n) for n in range(3)]


@pytest.fixture
def values(client: Any) -> Callable[[list[Key]], list[Any]]:
    """What everyone outside transactions reads."""

    def values(keys: list[Key]) -> list[Any]:
        found = []
        for key in keys:
            _, metadata = client.exists(key)
            found.append(client.get(key)[2].get("v") if metadata else None)
        return found

    return values


Values = Callable[[list[Key]], list[Any]]


def within(transaction: Any, **policy: Any) -> dict[str, Any]:
    return {"txn": transaction, **policy}


def test_a_commit_makes_all_writes_visible_at_once(client: Any, keys: list[Key], values: Values) -> None:
    client.put(keys[0], {"v": 1})
    transaction = aerospike.Transaction()
    client.put(keys[0], {"v": 2}, policy=within(transaction))
    client.put(keys[1], {"v": 3}, policy=within(transaction))
    assert values(keys) == [1, None, None]
    assert client.commit(transaction) == aerospike.COMMIT_OK
    assert values(keys) == [2, 3, None]
    assert client.exists(keys[0])[1]["gen"] == 2


def test_an_abort_leaves_no_trace(client: Any, keys: list[Key], values: Values) -> None:
    client.put(keys[0], {"v": 1})
    client.put(keys[2], {"v": 9})
    transaction = aerospike.Transaction()
    client.put(keys[0], {"v": 2}, policy=within(transaction))
    client.put(keys[1], {"v": 3}, policy=within(transaction))
    client.remove(keys[2], policy=within(transaction, durable_delete=True))
    assert client.abort(transaction) == aerospike.ABORT_OK
    assert values(keys) == [1, None, 9]
    client.put(keys[1], {"v": 4})
    assert client.exists(keys[1])[1]["gen"] == 1


def test_a_transaction_reads_what_it_has_written(client: Any, keys: list[Key]) -> None:
    client.put(keys[0], {"v": 1})
    transaction = aerospike.Transaction()
    client.operate(keys[0], [op.increment("v", 10)], policy=within(transaction))
    client.operate(keys[0], [op.increment("v", 100)], policy=within(transaction))
    assert client.get(keys[0], policy=within(transaction))[2] == {"v": 111}
    client.remove(keys[0], policy=within(transaction, durable_delete=True))
    with pytest.raises(exception.RecordNotFound):
        client.get(keys[0], policy=within(transaction))
    client.commit(transaction)
    with pytest.raises(exception.RecordNotFound):
        client.get(keys[0])


def test_what_a_transaction_has_written_is_locked_for_all_others(client: Any, keys: list[Key]) -> None:
    first, second = aerospike.Transaction(), aerospike.Transaction()
    client.put(keys[0], {"v": 1}, policy=within(first))
    for policy in ({"max_retries": 0}, within(second, max_retries=0)):
        with pytest.raises(exception.AerospikeError) as refusal:
            client.put(keys[0], {"v": 2}, policy=policy)
        assert refusal.value.code == BLOCKED
    client.abort(second)
    client.commit(first)
    client.put(keys[0], {"v": 2})


def test_a_commit_fails_where_something_read_has_changed(client: Any, keys: list[Key], values: Values) -> None:
    client.put(keys[0], {"v": 1})
    transaction = aerospike.Transaction()
    assert client.get(keys[0], policy=within(transaction))[2] == {"v": 1}
    client.put(keys[1], {"v": 5}, policy=within(transaction))
    client.put(keys[0], {"v": 2})
    with pytest.raises(exception.AerospikeError):
        client.commit(transaction)
    assert values(keys) == [2, None, None]


def test_a_write_fails_where_what_it_follows_from_has_changed(client: Any, keys: list[Key], values: Values) -> None:
    client.put(keys[0], {"v": 1})
    transaction = aerospike.Transaction()
    client.get(keys[0], policy=within(transaction))
    client.put(keys[0], {"v": 2})
    with pytest.raises(exception.AerospikeError) as refusal:
        client.put(keys[0], {"v": 3}, policy=within(transaction, max_retries=0))
    assert refusal.value.code == VERSION_MISMATCH
    client.abort(transaction)
    assert values(keys[:1]) == [2]


def test_a_write_that_must_be_the_first_lock_is_refused_the_second_time(client: Any, keys: list[Key]) -> None:
    transaction = aerospike.Transaction()
    client.put(keys[0], {"v": 1}, policy=within(transaction, on_locking_only=True))
    with pytest.raises(exception.AerospikeError) as refusal:
        client.put(keys[0], {"v": 2}, policy=within(transaction, on_locking_only=True))
    assert refusal.value.code == ALREADY_LOCKED
    client.abort(transaction)


def test_batches_take_part_in_transactions(client: Any, keys: list[Key], values: Values) -> None:
    client.put(keys[0], {"v": 1})
    transaction = aerospike.Transaction()
    writes = [batch.Write(key, [op.write("v", 7)]) for key in keys]
    result = client.batch_write(batch.BatchRecords(writes), within(transaction))
    assert [row.result for row in result.batch_records] == [0, 0, 0]
    read = client.batch_read(keys, policy=within(transaction))
    assert [row.record[2] for row in read.batch_records] == [{"v": 7}] * 3
    assert values(keys) == [1, None, None]
    client.commit(transaction)
    assert values(keys) == [7, 7, 7]


def test_scans_see_committed_records_only(client: Any, keys: list[Key]) -> None:
    client.put(keys[0], {"v": 1})
    transaction = aerospike.Transaction()
    client.put(keys[0], {"v": 2}, policy=within(transaction))
    client.put(keys[1], {"v": 3}, policy=within(transaction))
    assert [record[2] for record in client.query(*keys[0][:2]).results()] == [{"v": 1}]
    client.commit(transaction)
    assert sorted(record[2]["v"] for record in client.query(*keys[0][:2]).results()) == [2, 3]
