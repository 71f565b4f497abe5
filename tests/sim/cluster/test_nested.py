"""Contexts: an operation inside of nested lists and maps, and what comes of bytes that are none."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire import packing
from geotrain.wire.codes import Particle, ResultCode
from geotrain.wire.particles import decode_value, encode_value
from sim.cluster.values import nested
from sim.cluster.values.nested import CONTEXT
from sim.cluster.values.refused import Refused
from tests.sim.cluster.nested_values import ask, change

LIST_INDEX, LIST_RANK, LIST_VALUE = 0x10, 0x11, 0x13
MAP_INDEX, MAP_RANK, MAP_KEY, MAP_VALUE = 0x20, 0x21, 0x22, 0x23
UNORDERED, UNBOUNDED, ORDERED = 0x40, 0x80, 0xC0
APPEND, PUT, SIZE = 1, 67, 16

leaves = st.lists(st.integers(0, 9), max_size=3)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.integers(0, 5), inner, min_size=1),
)


def path_into(value: Any, data: st.DataObject) -> tuple[list[int], Any]:
    """A path to one of the lists of numbers in a tree, and that list."""
    steps: list[int] = []
    while isinstance(value, dict) or any(isinstance(item, list | dict) for item in value):
        if isinstance(value, dict):
            key = data.draw(st.sampled_from(sorted(value)))
            steps += [MAP_KEY, key] if data.draw(st.booleans()) else [MAP_INDEX, sorted(value).index(key)]
        else:
            key = data.draw(st.integers(-len(value), len(value) - 1))
            steps += [LIST_INDEX, key]
        value = value[key]
    return steps, value


@given(tree=trees, data=st.data())
def test_an_operation_at_the_end_of_a_path_changes_that_element_and_no_other(tree: Any, data: st.DataObject) -> None:
    steps, leaf = path_into(tree, data)
    if not steps:
        return
    assert ask(tree, CONTEXT, steps, [SIZE]) == len(leaf)
    after, answer = change(tree, CONTEXT, steps, [APPEND, 7])
    assert answer == len(leaf) + 1
    leaf.append(7)  # which is part of the tree
    assert after == tree


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([LIST_INDEX, 1], [[3, 1], [0, 9], [2]]),
        ([LIST_INDEX, -1], [[3, 1], [0], [2, 9]]),
        ([LIST_RANK, 0], [[3, 1], [0, 9], [2]]),
        ([LIST_RANK, -1], [[3, 1, 9], [0], [2]]),
        ([LIST_VALUE, [2]], [[3, 1], [0], [2, 9]]),
    ],
)
def test_steps_lead_by_index_rank_and_value(steps: list[Any], expected: Any) -> None:
    assert change([[3, 1], [0], [2]], CONTEXT, steps, [APPEND, 9])[0] == expected


def test_steps_lead_into_maps_by_rank_and_value_too() -> None:
    value = {"a": [2], "b": [1]}
    assert change(value, CONTEXT, [MAP_RANK, 0], [APPEND, 9])[0] == {"a": [2], "b": [1, 9]}
    assert change(value, CONTEXT, [MAP_VALUE, [2]], [APPEND, 9])[0] == {"a": [2, 9], "b": [1]}


@pytest.mark.parametrize(
    ("value", "steps", "operation", "expected"),
    [
        (None, [MAP_KEY | UNORDERED, "a"], [APPEND, 1], {"a": [1]}),
        ({"b": 2}, [MAP_KEY | UNORDERED, "a"], [PUT, 1, 2], {"a": {1: 2}, "b": 2}),
        (None, [MAP_KEY | UNORDERED, "a", MAP_KEY, "b"], [APPEND, 1], {"a": {"b": [1]}}),
        ({"a": {}}, [MAP_KEY, "a", MAP_KEY | ORDERED, "b"], [APPEND, 1], {"a": {"b": [1]}}),
        ([], [LIST_INDEX | UNORDERED, 0], [APPEND, 1], [[1]]),
        (None, [LIST_INDEX | UNBOUNDED, 2], [APPEND, 1], [None, None, [1]]),
        ([[5]], [LIST_INDEX | UNBOUNDED, 2], [APPEND, 1], [[5], None, [1]]),
        (None, [MAP_KEY | UNORDERED, "a"], [5, 0], None),
    ],
)
def test_steps_create_what_is_missing_if_they_are_told_to(
    value: Any, steps: list[Any], operation: list[Any], expected: Any
) -> None:
    assert change(value, CONTEXT, steps, operation)[0] == expected


@pytest.mark.parametrize(
    ("value", "steps", "code"),
    [
        (None, [MAP_KEY, "a"], ResultCode.OP_NOT_APPLICABLE),
        ({}, [MAP_KEY, "a"], ResultCode.OP_NOT_APPLICABLE),
        ({"a": 1}, [MAP_KEY, "a"], ResultCode.BIN_TYPE),
        ({"a": 1}, [MAP_KEY, "a", MAP_KEY, "b"], ResultCode.OP_NOT_APPLICABLE),
        ({"a": []}, [LIST_INDEX, 0], ResultCode.OP_NOT_APPLICABLE),
        ([[]], [MAP_KEY, 0], ResultCode.OP_NOT_APPLICABLE),
        ([[]], [LIST_INDEX, 1], ResultCode.OP_NOT_APPLICABLE),
        ([[]], [LIST_INDEX | UNORDERED, 5], ResultCode.OP_NOT_APPLICABLE),
        ([[]], [LIST_INDEX], ResultCode.PARAMETER),
        ([[]], [], ResultCode.PARAMETER),
        (1, [LIST_INDEX, 0], ResultCode.PARAMETER),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(value: Any, steps: list[Any], code: ResultCode) -> None:
    with pytest.raises(Refused) as refusal:
        change(value, CONTEXT, steps, [APPEND, 1])
    assert refusal.value.code == code


def test_an_element_of_an_ordered_list_moves_when_it_changes() -> None:
    ordered = bytes.fromhex("93c70001") + packing.pack([[1], [2]])[1:]
    (_, after), _ = nested.modify(Particle.LIST, ordered, packing.pack([CONTEXT, [LIST_INDEX, 0], [9, 0, 5]]))
    assert packing.unpack(after) == [[2], [5]]
    assert after[1:4] == ordered[1:4]


particles = st.sampled_from([Particle.NIL, Particle.INTEGER, Particle.LIST, Particle.MAP])
garbage = st.binary(max_size=30) | st.lists(st.integers(0, 255), max_size=4).map(packing.pack)


@pytest.mark.parametrize(
    ("before", "code", "arguments", "after", "answer"),
    [([1, 2], 1, [7], [1, 2, 7], 3), ([1, 2], 11, [], [], None), ({1: 2}, 67, [3, 4, 0], {1: 2, 3: 4}, 2)],
)
def test_a_change_is_understood_as_older_clients_write_it(
    before: Any, code: int, arguments: list[Any], after: Any, answer: Any
) -> None:
    packed = code.to_bytes(2, "big") + (packing.pack(arguments) if arguments else b"")
    changed, told = nested.modify(*encode_value(before), packed)
    assert (decode_value(*changed), decode_value(*told)) == (after, answer)


def test_a_read_is_understood_as_older_clients_write_it() -> None:
    assert nested.read(*encode_value([5, 6]), b"\0\x11" + packing.pack([1])) == encode_value(6)
    assert nested.read(*encode_value([5, 6]), b"\0\x10") == encode_value(2)
    for cut_short in (b"\0", b"\0\x11\x91"):
        with pytest.raises(Refused) as refusal:
            nested.read(*encode_value([5, 6]), cut_short)
        assert refusal.value.code == ResultCode.PARAMETER


@given(particle=particles, value=garbage, operation=garbage)
def test_garbage_is_refused_and_never_crashes(particle: int, value: bytes, operation: bytes) -> None:
    for perform in (nested.read, nested.modify):
        with contextlib.suppress(Refused):
            perform(particle, value, operation)


def test_a_path_without_measure_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        change(None, CONTEXT, [MAP_KEY | UNORDERED, "a"] * 5000, [APPEND, 1])
    assert refusal.value.code == ResultCode.PARAMETER


@pytest.mark.parametrize("header", ["dd7fffffff", "ddffffffff", "df7fffffff", "dc0002"])
def test_a_count_that_its_bytes_do_not_keep_is_refused(header: str) -> None:
    for particle in (Particle.LIST, Particle.MAP):
        with pytest.raises(Refused):
            nested.read(particle, bytes.fromhex(header), packing.pack([SIZE if particle == Particle.LIST else 96]))
