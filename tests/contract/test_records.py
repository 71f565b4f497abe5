import re
from typing import Any

import aerospike
import pytest
from aerospike import exception
from aerospike_helpers import expressions as exp
from aerospike_helpers.operations import operations as op

from tests.conftest import ClusterUnderTest

Key = tuple[str, str | None, Any]

OLD_STRING_OPERATIONS = pytest.mark.filterwarnings("ignore:.*deprecated for strings in server 8.2:DeprecationWarning")


@pytest.fixture
def key(cluster: ClusterUnderTest, set_name: str) -> Key:
    return cluster.namespace, set_name, "k"


def bins_of(client: Any, key: Key) -> dict[str, Any]:
    bins: dict[str, Any] = client.get(key)[2]
    return bins


def generation_of(client: Any, key: Key) -> int:
    generation: int = client.exists(key)[1]["gen"]
    return generation


def test_a_record_reads_back_as_it_was_written(client: Any, key: Key) -> None:
    bins = {"i": -7, "f": 1.5, "s": "é", "b": b"\0\xff", "t": True, "l": [1, "a", b"x"], "m": {"k": {"z": None}}}
    client.put(key, bins)
    _, metadata, found = client.get(key)
    assert found == bins
    assert metadata["gen"] == 1


def test_a_record_of_a_megabyte_less_a_little_is_taken_and_a_larger_one_is_refused(client: Any, key: Key) -> None:
    client.put(key, {"b": bytes(1024 * 1024 - 4096)})
    assert len(bins_of(client, key)["b"]) == 1024 * 1024 - 4096
    with pytest.raises(exception.RecordTooBig):
        client.put(key, {"b": bytes(1024 * 1024 + 1)})
    assert generation_of(client, key) == 1


def test_an_absent_record_is_not_found(client: Any, key: Key) -> None:
    for command in (client.get, client.touch, lambda key: client.select(key, ["a"])):
        with pytest.raises(exception.RecordNotFound):
            command(key)
    assert client.exists(key)[1] is None


def test_select_returns_the_bins_that_are_there(client: Any, key: Key) -> None:
    client.put(key, {"a": 1, "b": 2})
    assert client.select(key, ["b", "absent"])[2] == {"b": 2}


def test_a_write_keeps_the_other_bins_and_a_replacing_one_does_not(client: Any, key: Key) -> None:
    client.put(key, {"a": 1, "b": 2})
    client.put(key, {"b": 3, "c": 4})
    assert bins_of(client, key) == {"a": 1, "b": 3, "c": 4}
    client.put(key, {"d": 5}, policy={"exists": aerospike.POLICY_EXISTS_CREATE_OR_REPLACE})
    assert bins_of(client, key) == {"d": 5}
    assert generation_of(client, key) == 3


def test_writing_nothing_into_a_bin_removes_it(client: Any, key: Key) -> None:
    client.put(key, {"a": 1, "b": 2})
    client.put(key, {"a": aerospike.null()})
    assert bins_of(client, key) == {"b": 2}


def test_the_key_that_was_sent_stays_with_the_record(client: Any, key: Key) -> None:
    client.put(key, {"a": 1}, policy={"key": aerospike.POLICY_KEY_SEND})
    client.put(key, {"a": 2})
    found = client.query(*key[:2]).results()
    assert [record[0][2] for record in found] == ["k"]


def test_compare_and_set_takes_the_current_generation_only(client: Any, key: Key) -> None:
    equal = {"gen": aerospike.POLICY_GEN_EQ}
    client.put(key, {"a": 1}, meta={"gen": 0}, policy=equal)
    client.put(key, {"a": 2}, meta={"gen": 1}, policy=equal)
    for stale in (0, 1, 3):
        with pytest.raises(exception.RecordGenerationError):
            client.put(key, {"a": 9}, meta={"gen": stale}, policy=equal)
    assert (bins_of(client, key), generation_of(client, key)) == ({"a": 2}, 2)


def test_compare_and_set_of_an_absent_record_needs_generation_0(client: Any, key: Key) -> None:
    with pytest.raises(exception.RecordGenerationError):
        client.put(key, {"a": 1}, meta={"gen": 4}, policy={"gen": aerospike.POLICY_GEN_EQ})


def test_remove_checks_the_generation_too(client: Any, key: Key, remove_policy: dict[str, Any]) -> None:
    client.put(key, {"a": 1})
    with pytest.raises(exception.RecordGenerationError):
        client.remove(key, policy=remove_policy | {"gen": aerospike.POLICY_GEN_EQ, "generation": 7})
    client.remove(key, policy=remove_policy)
    with pytest.raises(exception.RecordNotFound):
        client.remove(key, policy=remove_policy)


def test_create_only_refuses_a_record_that_is_there(client: Any, key: Key) -> None:
    create = {"exists": aerospike.POLICY_EXISTS_CREATE}
    client.put(key, {"a": 1}, policy=create)
    with pytest.raises(exception.RecordExistsError):
        client.put(key, {"a": 2}, policy=create)
    assert bins_of(client, key) == {"a": 1}


@pytest.mark.parametrize("policy", [aerospike.POLICY_EXISTS_UPDATE, aerospike.POLICY_EXISTS_REPLACE])
def test_update_only_and_replace_only_refuse_a_record_that_is_not_there(client: Any, key: Key, policy: int) -> None:
    with pytest.raises(exception.RecordNotFound):
        client.put(key, {"a": 1}, policy={"exists": policy})


def test_a_strongly_consistent_namespace_refuses_a_delete_that_is_not_durable(
    strong: None, client: Any, key: Key
) -> None:
    client.put(key, {"a": 1})
    with pytest.raises(exception.ForbiddenError):
        client.remove(key)
    assert bins_of(client, key) == {"a": 1}


@OLD_STRING_OPERATIONS
def test_operations_are_performed_in_their_order(client: Any, key: Key) -> None:
    client.put(key, {"n": 40, "f": 0.5, "s": "b"})
    operations = [
        op.increment("n", 2),
        op.increment("f", 0.25),
        op.increment("new", 5),
        op.append("s", "c"),
        op.prepend("s", "a"),
        op.read("s"),
        op.append("s", "!"),
        op.read("n"),
    ]
    assert client.operate(key, operations)[2] == {"s": "abc", "n": 42}
    assert bins_of(client, key) == {"n": 42, "f": 0.75, "s": "abc!", "new": 5}
    assert generation_of(client, key) == 2


@OLD_STRING_OPERATIONS
def test_an_operation_on_another_type_changes_nothing(client: Any, key: Key) -> None:
    client.put(key, {"n": 1, "s": "a"})
    for operation in (op.increment("s", 1), op.append("n", "x"), op.increment("n", 0.5)):
        with pytest.raises(exception.BinIncompatibleType):
            client.operate(key, [op.write("n", 9), operation])
    assert (bins_of(client, key), generation_of(client, key)) == ({"n": 1, "s": "a"}, 1)


def test_integers_wrap_at_64_bits(client: Any, key: Key) -> None:
    client.put(key, {"n": (1 << 63) - 1})
    client.increment(key, "n", 1)
    assert bins_of(client, key) == {"n": -(1 << 63)}


def test_touch_raises_the_generation_and_keeps_the_bins(client: Any, key: Key) -> None:
    client.put(key, {"a": 1})
    client.touch(key)
    assert (bins_of(client, key), generation_of(client, key)) == ({"a": 1}, 2)


def test_a_filter_that_is_false_refuses_reads_writes_and_removes(
    client: Any, key: Key, remove_policy: dict[str, Any]
) -> None:
    client.put(key, {"a": 1})
    never = {"expressions": exp.GT(exp.IntBin("a"), 1).compile()}
    with pytest.raises(exception.FilteredOut):
        client.get(key, policy=never)
    with pytest.raises(exception.FilteredOut):
        client.put(key, {"a": 2}, policy=never)
    with pytest.raises(exception.FilteredOut):
        client.remove(key, policy=remove_policy | never)
    assert (bins_of(client, key), generation_of(client, key)) == ({"a": 1}, 1)


def test_a_filter_is_not_asked_when_a_write_creates_the_record(client: Any, key: Key) -> None:
    client.put(key, {"a": 1}, policy={"expressions": exp.Eq(exp.IntBin("a"), 5).compile()})
    assert bins_of(client, key) == {"a": 1}


def test_a_lease_can_be_taken_over_only_when_the_servers_clock_says_that_it_ran_out(client: Any, key: Key) -> None:
    client.put(key, {"holder": "a"})
    long_ago = {"expressions": exp.GT(exp.SinceUpdateTime(), 3_600_000).compile()}
    with pytest.raises(exception.FilteredOut):
        client.put(key, {"holder": "b"}, policy=long_ago)
    at_once = {"expressions": exp.GE(exp.SinceUpdateTime(), 0).compile()}
    client.put(key, {"holder": "b"}, policy=at_once)
    assert bins_of(client, key) == {"holder": "b"}


def test_a_filter_that_compares_different_types_is_a_wrong_parameter(client: Any, key: Key) -> None:
    client.put(key, {"a": 1})
    with pytest.raises(exception.InvalidRequest):
        client.get(key, policy={"expressions": exp.Eq(exp.IntBin("a"), "1").compile()})


def test_an_unknown_namespace_is_named_by_the_client(client: Any, key: Key) -> None:
    with pytest.raises(exception.AerospikeError, match="namespace"):
        client.get(("nosuch", *key[1:]))


def test_records_of_one_key_in_two_sets_are_two_records(client: Any, key: Key, remove_policy: dict[str, Any]) -> None:
    other = (key[0], None, key[2])
    client.put(key, {"a": 1})
    client.put(other, {"a": 2})
    assert (bins_of(client, key), bins_of(client, other)) == ({"a": 1}, {"a": 2})
    client.remove(other, policy=remove_policy)
    assert bins_of(client, key) == {"a": 1}


def test_a_time_to_live_is_kept_or_forbidden_where_expired_records_are_not_removed(
    client: Any, cluster: ClusterUnderTest, key: Key
) -> None:
    found = re.search(r"nsup-period=(\d+)", client.info_random_node(f"get-config:context=namespace;id={key[0]}"))
    assert found is not None
    if found.group(1) == "0":
        with pytest.raises(exception.ForbiddenError):
            client.put(key, {"a": 1}, policy={"ttl": 1000})
        assert client.exists(key)[1] is None
    else:
        client.put(key, {"a": 1}, policy={"ttl": 1000})
        assert 990 <= client.get(key)[1]["ttl"] <= 1000
    client.put(key, {"a": 1}, policy={"ttl": aerospike.TTL_NEVER_EXPIRE})
    assert client.get(key)[1]["ttl"] == aerospike.TTL_NEVER_EXPIRE
