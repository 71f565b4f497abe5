"""What changes a map, against Python's own dicts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire import packing
from geotrain.wire.codes import Particle, ResultCode
from geotrain.wire.particles import encode_value
from sim.cluster.values import nested
from sim.cluster.values.maps import NO_CREATE, NO_FAIL, NO_OVERWRITE, PARTIAL
from sim.cluster.values.refused import Refused
from tests.sim.cluster.nested_values import ask, change

SET_TYPE, ADD, ADD_ITEMS, PUT, PUT_ITEMS, REPLACE, REPLACE_ITEMS = range(64, 71)
INCREMENT, DECREMENT, CLEAR, SIZE = 73, 74, 75, 96
KEY_ORDERED, KEY_VALUE_ORDERED = 1, 3

keys = st.sampled_from([1, 2, 3, "a", "b", b"a"])
numbers = st.integers(-4, 4)
maps = st.dictionaries(keys, numbers, max_size=6)


def code_of(value: Any, *operation: Any) -> ResultCode:
    with pytest.raises(Refused) as refusal:
        change(value, *operation)
    return refusal.value.code


@given(value=maps, key=keys, number=numbers)
def test_a_key_is_put_added_and_replaced(value: dict[Any, int], key: Any, number: int) -> None:
    after = value | {key: number}
    assert change(value, PUT, key, number) == (after, len(after))
    if key in value:
        assert change(value, REPLACE, key, number) == (after, len(after))
        assert code_of(value, ADD, key, number) == ResultCode.ELEMENT_EXISTS
        assert change(value, PUT, key, number, 0, NO_OVERWRITE | NO_FAIL) == (value, len(value))
    else:
        assert change(value, ADD, key, number) == (after, len(after))
        assert code_of(value, REPLACE, key, number) == ResultCode.ELEMENT_NOT_FOUND
        assert change(value, PUT, key, number, 0, NO_CREATE | NO_FAIL) == (value, len(value))


@given(value=maps, items=maps)
def test_many_keys_are_put_together_or_those_that_may_be(value: dict[Any, int], items: dict[Any, int]) -> None:
    assert change(value, PUT_ITEMS, items) == (value | items, len(value | items))
    new, old = ({k: v for k, v in items.items() if (k in value) is is_old} for is_old in (False, True))
    for flag, admitted, code in (
        (NO_OVERWRITE, new, ResultCode.ELEMENT_EXISTS),
        (NO_CREATE, old, ResultCode.ELEMENT_NOT_FOUND),
    ):
        after = value | admitted
        assert change(value, PUT_ITEMS, items, 0, flag | NO_FAIL | PARTIAL) == (after, len(after))
        if admitted != items:
            assert code_of(value, PUT_ITEMS, items, 0, flag) == code
            assert change(value, PUT_ITEMS, items, 0, flag | NO_FAIL) == (value, len(value))


@given(value=maps, key=keys, number=numbers)
def test_a_number_counts_up_and_down_from_zero(value: dict[Any, int], key: Any, number: int) -> None:
    up, down = value.get(key, 0) + number, value.get(key, 0) - number
    assert change(value, INCREMENT, key, number) == (value | {key: up}, up)
    assert change(value, DECREMENT, key, number) == (value | {key: down}, down)


@given(value=maps)
def test_a_map_is_counted_and_cleared(value: dict[Any, int]) -> None:
    assert ask(value, SIZE) == len(value)
    assert change(value, CLEAR) == ({}, None)


@given(items=st.lists(st.tuples(keys, numbers), max_size=8))
def test_keys_are_in_their_order_however_they_came(items: list[tuple[Any, int]]) -> None:
    particle, data = int(Particle.NIL), b""
    for key, number in items:
        (particle, data), _ = nested.modify(particle, data, packing.pack([PUT, key, number, KEY_ORDERED]))
    if items:
        found = nested.read(particle, data, packing.pack([104, 6, 0, 99]))[1]
        in_order = [key for key in (1, 2, 3, "a", "b", b"a") if key in dict(items)]
        assert packing.unpack(found) == in_order
        assert packing.unpack(data) == dict(items)


@pytest.mark.parametrize("flags", [0, KEY_ORDERED, KEY_VALUE_ORDERED])
def test_the_order_that_a_map_was_made_with_travels_with_it(flags: int) -> None:
    marker = bytes.fromhex(f"c700{flags:02x}c0") if flags else b""
    header = bytes([0x81 + bool(flags)])
    (_, made), _ = nested.modify(Particle.NIL, b"", packing.pack([PUT, 1, 2, flags]))
    assert made == header + marker + b"\1\2"
    (_, changed), _ = nested.modify(*encode_value({1: 2}), packing.pack([SET_TYPE, flags]))
    assert changed == made


@pytest.mark.parametrize(
    ("value", "operation", "code"),
    [
        ([], [PUT, 1, 1], ResultCode.BIN_TYPE),
        ("text", [PUT, 1, 1], ResultCode.BIN_TYPE),
        (None, [REPLACE, 1, 1], ResultCode.ELEMENT_NOT_FOUND),
        ({1: "a"}, [INCREMENT, 1, 1], ResultCode.PARAMETER),
        ({}, [PUT, 1], ResultCode.PARAMETER),
        ({}, [PUT_ITEMS, 1], ResultCode.PARAMETER),
        ({}, [71], ResultCode.PARAMETER),
        ({}, [255], ResultCode.PARAMETER),
        ({}, [76, 7 | 0x10000, 1], ResultCode.OP_NOT_APPLICABLE),
    ],
)
def test_what_a_map_can_not_do_is_refused(value: Any, operation: list[Any], code: ResultCode) -> None:
    assert code_of(value, *operation) == code


def test_a_wildcard_and_infinity_are_looked_for_but_never_stored() -> None:
    wildcard, infinity = bytes.fromhex("d4ff00"), bytes.fromhex("d4ff01")
    lists = encode_value({1: ["a", 1], 2: ["b", 2], 3: ["a", 3], 4: "a"})
    begins_with_a = b"\x92\xa2\x03a" + wildcard
    assert nested.read(*lists, b"\x93\x66\x06" + begins_with_a) == encode_value([1, 3])
    assert nested.read(*lists, b"\x94\x67\x06\x02" + infinity) == encode_value([2, 3, 4])
    for mark in (wildcard, infinity):
        with pytest.raises(Refused) as refusal:
            nested.modify(*lists, b"\x93\x43\x09" + mark)
        assert refusal.value.code == ResultCode.PARAMETER
