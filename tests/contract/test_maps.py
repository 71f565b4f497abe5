"""Maps through the official client's map operations."""

from typing import Any

import aerospike
import pytest
from aerospike import exception
from aerospike_helpers import cdt_ctx
from aerospike_helpers.operations import list_operations as lists
from aerospike_helpers.operations import map_operations as maps

from tests.conftest import ClusterUnderTest

MapKey = tuple[str, str, str]
INDEX, RANK, COUNT = aerospike.MAP_RETURN_INDEX, aerospike.MAP_RETURN_RANK, aerospike.MAP_RETURN_COUNT
KEY, VALUE, KEY_VALUE = aerospike.MAP_RETURN_KEY, aerospike.MAP_RETURN_VALUE, aerospike.MAP_RETURN_KEY_VALUE
EXISTS, NONE = aerospike.MAP_RETURN_EXISTS, aerospike.MAP_RETURN_NONE
ORDERED_MAP, UNORDERED_MAP = aerospike.MAP_RETURN_ORDERED_MAP, aerospike.MAP_RETURN_UNORDERED_MAP
CREATE_ONLY, UPDATE_ONLY = aerospike.MAP_WRITE_FLAGS_CREATE_ONLY, aerospike.MAP_WRITE_FLAGS_UPDATE_ONLY
PARTIAL = aerospike.MAP_WRITE_FLAGS_NO_FAIL | aerospike.MAP_WRITE_FLAGS_PARTIAL
ORDERS = [aerospike.MAP_UNORDERED, aerospike.MAP_KEY_ORDERED, aerospike.MAP_KEY_VALUE_ORDERED]


@pytest.fixture
def key(cluster: ClusterUnderTest, set_name: str) -> MapKey:
    return cluster.namespace, set_name, "k"


def answer(client: Any, key: MapKey, *operations: Any) -> Any:
    """What the last of the operations answers about bin `m`."""
    return client.operate(key, [*operations])[2].get("m")


def content(client: Any, key: MapKey) -> Any:
    return client.get(key)[2]["m"]


ITEMS = {"a": 4, "b": 1, "c": 4, "d": 2}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (maps.map_size("m"), 4),
        (maps.map_get_by_key("m", "b", VALUE), 1),
        (maps.map_get_by_key("m", "b", KEY_VALUE), ["b", 1]),
        (maps.map_get_by_key("m", "b", INDEX), 1),
        (maps.map_get_by_key("m", "b", RANK), 0),
        (maps.map_get_by_key("m", "x", VALUE), None),
        (maps.map_get_by_key("m", "x", INDEX), -1),
        (maps.map_get_by_key("m", "x", EXISTS), False),
        (maps.map_get_by_key("m", "b", NONE), None),
        (maps.map_get_by_key_list("m", ["d", "a", "x"], KEY), {"a", "d"}),
        (maps.map_get_by_key_list("m", ["d", "a"], COUNT, inverted=True), 2),
        (maps.map_get_by_key_list("m", ["a", "b"], ORDERED_MAP), {"a": 4, "b": 1}),
        (maps.map_get_by_key_list("m", ["a", "b"], UNORDERED_MAP), {"a": 4, "b": 1}),
        (maps.map_get_by_key_range("m", "b", "d", KEY), {"b", "c"}),
        (maps.map_get_by_key_index_range_relative("m", "bb", 0, KEY), {"c", "d"}),
        (maps.map_get_by_key_index_range_relative("m", "bb", -1, KEY, 2), {"b", "c"}),
        (maps.map_get_by_value("m", 4, KEY), {"a", "c"}),
        (maps.map_get_by_value("m", 4, COUNT, inverted=True), 2),
        (maps.map_get_by_value_list("m", [1, 2, 9], KEY), {"b", "d"}),
        (maps.map_get_by_value_range("m", 2, 5, COUNT), 3),
        (maps.map_get_by_value_rank_range_relative("m", 3, 0, KEY), {"a", "c"}),
        (maps.map_get_by_value_rank_range_relative("m", 3, -1, KEY, 1), {"d"}),
        (maps.map_get_by_index("m", 0, KEY), "a"),
        (maps.map_get_by_index("m", -1, VALUE), 2),
        (maps.map_get_by_index_range("m", 1, 2, KEY), {"b", "c"}),
        (maps.map_get_by_index_range("m", 1, 2, KEY, inverted=True), {"a", "d"}),
        (maps.map_get_by_rank("m", 0, KEY), "b"),
        (maps.map_get_by_rank("m", -1, VALUE), 4),
        (maps.map_get_by_rank_range("m", 0, 2, KEY), {"b", "d"}),
        (maps.map_get_by_rank_range("m", 0, 2, COUNT, inverted=True), 2),
    ],
)
def test_items_are_selected(client: Any, key: MapKey, order: int, operation: Any, expected: Any) -> None:
    client.operate(key, [maps.map_put_items("m", ITEMS, {"map_order": order})])
    found = answer(client, key, operation)
    assert (set(found) if isinstance(expected, set) else found) == expected
    assert content(client, key) == ITEMS


@pytest.mark.parametrize(
    ("operation", "expected", "removed"),
    [
        (maps.map_remove_by_key("m", "a", VALUE), 4, "a"),
        (maps.map_remove_by_key("m", "x", COUNT), 0, ""),
        (maps.map_remove_by_key_list("m", ["a", "b"], COUNT), 2, "ab"),
        (maps.map_remove_by_key_list("m", ["a", "b"], COUNT, inverted=True), 2, "cd"),
        (maps.map_remove_by_key_range("m", "b", "d", COUNT), 2, "bc"),
        (maps.map_remove_by_key_index_range_relative("m", "c", 0, COUNT), 2, "cd"),
        (maps.map_remove_by_value("m", 4, COUNT), 2, "ac"),
        (maps.map_remove_by_value_list("m", [1, 2], COUNT), 2, "bd"),
        (maps.map_remove_by_value_range("m", 1, 3, COUNT), 2, "bd"),
        (maps.map_remove_by_value_rank_range_relative("m", 3, 0, COUNT), 2, "ac"),
        (maps.map_remove_by_index("m", 0, KEY), "a", "a"),
        (maps.map_remove_by_index_range("m", 2, 2, COUNT), 2, "cd"),
        (maps.map_remove_by_rank("m", 0, KEY), "b", "b"),
        (maps.map_remove_by_rank_range("m", 0, 2, COUNT), 2, "bd"),
        (maps.map_clear("m"), None, "abcd"),
    ],
)
def test_items_are_removed(client: Any, key: MapKey, operation: Any, expected: Any, removed: str) -> None:
    client.put(key, {"m": ITEMS})
    assert answer(client, key, operation) == expected
    assert content(client, key) == {name: value for name, value in ITEMS.items() if name not in removed}


def test_items_are_put_and_counted(client: Any, key: MapKey) -> None:
    assert answer(client, key, maps.map_put("m", "a", 1)) == 1
    assert answer(client, key, maps.map_put_items("m", {"b": 2, "c": 3})) == 3
    assert answer(client, key, maps.map_increment("m", "a", 5)) == 6
    assert answer(client, key, maps.map_decrement("m", "new", 2)) == -2
    assert content(client, key) == {"a": 6, "b": 2, "c": 3, "new": -2}


def test_items_are_put_only_where_the_policy_says(client: Any, key: MapKey) -> None:
    client.put(key, {"m": {"a": 1}})
    with pytest.raises(exception.ElementExistsError):
        client.operate(key, [maps.map_put("m", "a", 2, {"map_write_flags": CREATE_ONLY})])
    with pytest.raises(exception.ElementNotFoundError):
        client.operate(key, [maps.map_put("m", "b", 2, {"map_write_flags": UPDATE_ONLY})])
    items = {"a": 2, "b": 2}
    assert answer(client, key, maps.map_put_items("m", items, {"map_write_flags": CREATE_ONLY | PARTIAL})) == 2
    assert content(client, key) == {"a": 1, "b": 2}


@pytest.mark.parametrize("order", ORDERS)
def test_a_map_can_be_made_or_given_an_order(client: Any, key: MapKey, order: int) -> None:
    client.operate(key, [maps.map_create("m", order, persist_index=False)])
    assert content(client, key) == {}
    client.operate(key, [maps.map_put("m", "a", 1), maps.map_set_policy("m", {"map_order": order})])
    assert content(client, key) == {"a": 1}


def test_keys_of_different_types_are_different_keys(client: Any, key: MapKey) -> None:
    items = {1: "integer", "1": "string", b"1": "blob"}
    assert answer(client, key, maps.map_put_items("m", items)) == 3
    assert [answer(client, key, maps.map_get_by_key("m", name, VALUE)) for name in items] == list(items.values())


def test_contexts_lead_into_maps_and_create_them(client: Any, key: MapKey) -> None:
    created = [
        cdt_ctx.cdt_ctx_map_key_create("x", aerospike.MAP_KEY_ORDERED),
        cdt_ctx.cdt_ctx_map_key_create("y", aerospike.MAP_UNORDERED),
    ]
    assert answer(client, key, maps.map_put("m", "z", 1, ctx=created)) == 1
    assert answer(client, key, lists.list_append("m", 7, ctx=[*created[:1], cdt_ctx.cdt_ctx_map_key_create("l")])) == 1
    assert content(client, key) == {"x": {"y": {"z": 1}, "l": [7]}}
    by_index = [cdt_ctx.cdt_ctx_map_index(0), cdt_ctx.cdt_ctx_map_key("y")]
    assert answer(client, key, maps.map_increment("m", "z", 4, ctx=by_index)) == 5
    by_value = [cdt_ctx.cdt_ctx_map_rank(-1), cdt_ctx.cdt_ctx_map_value({"z": 5})]
    assert answer(client, key, maps.map_size("m", ctx=by_value)) == 1


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (maps.map_get_by_index("m", 9, VALUE), exception.OpNotApplicable),
        (maps.map_get_by_rank("m", 9, VALUE), exception.OpNotApplicable),
        (maps.map_put("n", "a", 1), exception.BinIncompatibleType),
        (maps.map_size("n"), exception.BinIncompatibleType),
        (maps.map_increment("m", "s", 1), exception.InvalidRequest),
        (maps.map_put("m", "x", 1, ctx=[cdt_ctx.cdt_ctx_map_key("absent")]), exception.OpNotApplicable),
    ],
)
def test_what_can_not_be_done_changes_nothing(client: Any, key: MapKey, operation: Any, error: type[Exception]) -> None:
    client.put(key, {"m": {"a": 1, "s": "x"}, "n": 5})
    with pytest.raises(error):
        client.operate(key, [maps.map_put("m", "b", 9), operation])
    assert client.get(key)[2] == {"m": {"a": 1, "s": "x"}, "n": 5}
