"""Lists through the official client's list operations."""

from typing import Any

import aerospike
import pytest
from aerospike import exception
from aerospike_helpers import cdt_ctx
from aerospike_helpers.operations import list_operations as lists

from tests.conftest import ClusterUnderTest

Key = tuple[str, str, str]
INDEX, RANK, COUNT = aerospike.LIST_RETURN_INDEX, aerospike.LIST_RETURN_RANK, aerospike.LIST_RETURN_COUNT
VALUE, EXISTS = aerospike.LIST_RETURN_VALUE, aerospike.LIST_RETURN_EXISTS
REVERSE_INDEX, REVERSE_RANK = aerospike.LIST_RETURN_REVERSE_INDEX, aerospike.LIST_RETURN_REVERSE_RANK
UNIQUE = {"write_flags": aerospike.LIST_WRITE_ADD_UNIQUE}
UNIQUE_PARTIAL = {
    "write_flags": aerospike.LIST_WRITE_ADD_UNIQUE | aerospike.LIST_WRITE_NO_FAIL | aerospike.LIST_WRITE_PARTIAL
}
BOUNDED = {"write_flags": aerospike.LIST_WRITE_INSERT_BOUNDED}


@pytest.fixture
def key(cluster: ClusterUnderTest, set_name: str) -> Key:
    return cluster.namespace, set_name, "k"


def answer(client: Any, key: Key, *operations: Any) -> Any:
    """What the last of the operations answers about bin `l`."""
    return client.operate(key, [*operations])[2].get("l")


def content(client: Any, key: Key) -> Any:
    return client.get(key)[2]["l"]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (lists.list_size("l"), 5),
        (lists.list_get("l", -1), 4),
        (lists.list_get_range("l", 1, 2), [1, 4]),
        (lists.list_get_by_index("l", 0, VALUE), 5),
        (lists.list_get_by_index("l", 0, RANK), 4),
        (lists.list_get_by_index("l", 0, REVERSE_RANK), 0),
        (lists.list_get_by_index_range("l", -2, VALUE), [2, 4]),
        (lists.list_get_by_index_range("l", 1, VALUE, 3), [1, 4, 2]),
        (lists.list_get_by_index_range("l", 1, VALUE, 3, inverted=True), [5, 4]),
        (lists.list_get_by_rank("l", 0, VALUE), 1),
        (lists.list_get_by_rank("l", -1, INDEX), 0),
        (lists.list_get_by_rank_range("l", 0, VALUE, 2), {1, 2}),
        (lists.list_get_by_rank_range("l", -1, REVERSE_INDEX), [4]),
        (lists.list_get_by_value("l", 4, INDEX), {2, 4}),
        (lists.list_get_by_value("l", 4, COUNT), 2),
        (lists.list_get_by_value("l", 4, COUNT, inverted=True), 3),
        (lists.list_get_by_value("l", 9, EXISTS), False),
        (lists.list_get_by_value("l", 9, VALUE), []),
        (lists.list_get_by_value_list("l", [5, 1, 9], VALUE), {1, 5}),
        (lists.list_get_by_value_range("l", COUNT, 2, 5), 3),
        (lists.list_get_by_value_range("l", VALUE, 5, None), [5]),
        (lists.list_get_by_value_rank_range_relative("l", 3, 0, VALUE), {4, 5}),
        (lists.list_get_by_value_rank_range_relative("l", 3, -1, VALUE, 1), [2]),
        (lists.list_get_by_value_rank_range_relative("l", 3, -1, COUNT, 1, inverted=True), 4),
    ],
)
def test_elements_are_selected(client: Any, key: Key, operation: Any, expected: Any) -> None:
    client.put(key, {"l": [5, 1, 4, 2, 4]})
    found = answer(client, key, operation)
    assert (set(found) if isinstance(expected, set) else found) == expected
    assert content(client, key) == [5, 1, 4, 2, 4]


@pytest.mark.parametrize(
    ("operation", "expected", "rest"),
    [
        (lists.list_pop("l", 1), 1, [5, 4, 2, 4]),
        (lists.list_pop_range("l", 1, 2), [1, 4], [5, 2, 4]),
        (lists.list_remove("l", -1), 1, [5, 1, 4, 2]),
        (lists.list_remove_range("l", 3, 9), 2, [5, 1, 4]),
        (lists.list_trim("l", 1, 2), 3, [1, 4]),
        (lists.list_remove_by_index("l", 0, VALUE), 5, [1, 4, 2, 4]),
        (lists.list_remove_by_index_range("l", 1, COUNT, 2), 2, [5, 2, 4]),
        (lists.list_remove_by_index_range("l", 1, COUNT, 2, inverted=True), 3, [1, 4]),
        (lists.list_remove_by_rank("l", -1, VALUE), 5, [1, 4, 2, 4]),
        (lists.list_remove_by_rank_range("l", 0, COUNT, 2), 2, [5, 4, 4]),
        (lists.list_remove_by_value("l", 4, COUNT), 2, [5, 1, 2]),
        (lists.list_remove_by_value("l", 4, COUNT, inverted=True), 3, [4, 4]),
        (lists.list_remove_by_value_list("l", [5, 1], COUNT), 2, [4, 2, 4]),
        (lists.list_remove_by_value_range("l", COUNT, 2, 5), 3, [5, 1]),
        (lists.list_remove_by_value_rank_range_relative("l", 3, 0, COUNT), 3, [1, 2]),
        (lists.list_clear("l"), None, []),
    ],
)
def test_elements_are_removed(client: Any, key: Key, operation: Any, expected: Any, rest: list[int]) -> None:
    client.put(key, {"l": [5, 1, 4, 2, 4]})
    assert answer(client, key, operation) == expected
    assert content(client, key) == rest


@pytest.mark.parametrize(
    ("operation", "expected", "after"),
    [
        (lists.list_append("l", 9), 4, [3, 1, 2, 9]),
        (lists.list_append_items("l", [8, 9]), 5, [3, 1, 2, 8, 9]),
        (lists.list_append("l", 3, UNIQUE_PARTIAL), 3, [3, 1, 2]),
        (lists.list_append_items("l", [3, 4], UNIQUE_PARTIAL), 4, [3, 1, 2, 4]),
        (lists.list_insert("l", 1, 9), 4, [3, 9, 1, 2]),
        (lists.list_insert("l", -1, 9), 4, [3, 1, 9, 2]),
        (lists.list_insert("l", 4, 9), 5, [3, 1, 2, None, 9]),
        (lists.list_insert_items("l", 0, [8, 9]), 5, [8, 9, 3, 1, 2]),
        (lists.list_set("l", 1, "x"), None, [3, "x", 2]),
        (lists.list_set("l", 4, 9), None, [3, 1, 2, None, 9]),
        (lists.list_increment("l", 0, 5), 8, [8, 1, 2]),
        (lists.list_sort("l"), None, [1, 2, 3]),
        (lists.list_set_order("l", aerospike.LIST_ORDERED), None, [1, 2, 3]),
    ],
)
def test_elements_are_added_and_changed(client: Any, key: Key, operation: Any, expected: Any, after: Any) -> None:
    client.put(key, {"l": [3, 1, 2]})
    assert answer(client, key, operation) == expected
    assert content(client, key) == after


def test_sorting_can_drop_what_is_there_twice(client: Any, key: Key) -> None:
    client.put(key, {"l": [2, 1, 2, 1]})
    client.operate(key, [lists.list_sort("l", aerospike.LIST_SORT_DROP_DUPLICATES)])
    assert content(client, key) == [1, 2]


def test_an_ordered_list_sorts_what_is_appended(client: Any, key: Key) -> None:
    ordered = {"list_order": aerospike.LIST_ORDERED}
    client.operate(key, [lists.list_append_items("l", [3, 1], ordered), lists.list_append("l", 2, ordered)])
    assert content(client, key) == [1, 2, 3]
    with pytest.raises(exception.OpNotApplicable):
        client.operate(key, [lists.list_insert("l", 0, 9)])


def test_a_list_can_be_made_before_anything_is_in_it(client: Any, key: Key) -> None:
    client.operate(key, [lists.list_create("l", aerospike.LIST_ORDERED, pad=False, persist_index=False)])
    assert content(client, key) == []
    assert answer(client, key, lists.list_append_items("l", [2, 1])) == 2
    assert content(client, key) == [1, 2]


def test_values_of_different_types_have_an_order(client: Any, key: Key) -> None:
    in_order = [None, False, True, -1, 7, "a", "b", [0], {"k": 1}, b"a", 0.5]
    client.put(key, {"l": in_order[::-1]})
    client.operate(key, [lists.list_sort("l")])
    assert content(client, key) == in_order


def test_a_wildcard_stands_for_the_rest_of_a_list_and_infinity_is_above_all(client: Any, key: Key) -> None:
    client.put(key, {"l": [["a", 1], ["b", 2], ["a", 3]]})
    assert answer(client, key, lists.list_get_by_value("l", ["a", aerospike.CDTWildcard()], INDEX)) == [0, 2]
    ranged = lists.list_get_by_value_range("l", VALUE, ["a", 2], ["a", aerospike.CDTInfinite()])
    assert answer(client, key, ranged) == [["a", 3]]


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (lists.list_get("l", 9), exception.OpNotApplicable),
        (lists.list_pop("l", -9), exception.OpNotApplicable),
        (lists.list_insert("l", 9, 1, BOUNDED), exception.OpNotApplicable),
        (lists.list_append("l", 1, UNIQUE), exception.ElementExistsError),
        (lists.list_append("n", 1), exception.BinIncompatibleType),
        (lists.list_size("n"), exception.BinIncompatibleType),
        (lists.list_size("l", ctx=[cdt_ctx.cdt_ctx_list_index(0)]), exception.BinIncompatibleType),
        (lists.list_size("l", ctx=[cdt_ctx.cdt_ctx_list_index(9)]), exception.OpNotApplicable),
    ],
)
def test_what_can_not_be_done_changes_nothing(client: Any, key: Key, operation: Any, error: type[Exception]) -> None:
    client.put(key, {"l": [1, 2], "n": 5})
    with pytest.raises(error):
        client.operate(key, [lists.list_append("l", 9), operation])
    assert client.get(key)[2] == {"l": [1, 2], "n": 5}


def test_contexts_lead_into_nested_lists_and_maps(client: Any, key: Key) -> None:
    client.put(key, {"l": [{"a": [1, 2]}, [[3], [4]]]})
    into_map = [cdt_ctx.cdt_ctx_list_index(0), cdt_ctx.cdt_ctx_map_key("a")]
    assert answer(client, key, lists.list_append("l", 9, ctx=into_map)) == 3
    by_value = [cdt_ctx.cdt_ctx_list_index(-1), cdt_ctx.cdt_ctx_list_value([4])]
    assert answer(client, key, lists.list_append("l", 9, ctx=by_value)) == 2
    by_rank = [cdt_ctx.cdt_ctx_list_index(1), cdt_ctx.cdt_ctx_list_rank(0)]
    assert answer(client, key, lists.list_get_range("l", 0, 9, ctx=by_rank)) == [3]
    assert content(client, key) == [{"a": [1, 2, 9]}, [[3], [4, 9]]]


def test_contexts_create_what_is_missing(client: Any, key: Key) -> None:
    padded = [cdt_ctx.cdt_ctx_list_index_create(2, aerospike.LIST_UNORDERED, pad=True)]
    client.operate(key, [lists.list_append("l", 1, ctx=padded)])
    assert content(client, key) == [None, None, [1]]
    with pytest.raises(exception.OpNotApplicable):
        client.operate(key, [lists.list_append("l", 1, ctx=[cdt_ctx.cdt_ctx_list_index(7)])])
