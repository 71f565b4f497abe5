"""What changes a list, against Python's own lists."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire.codes import ResultCode
from sim.cluster.values.lists import BOUNDED, DROP_DUPLICATES, NO_FAIL, PARTIAL, UNIQUE
from sim.cluster.values.refused import Refused
from tests.sim.cluster.nested_values import ask, change, change_all

SET_TYPE, APPEND, APPEND_ITEMS, INSERT, INSERT_ITEMS, POP, POP_RANGE, REMOVE, REMOVE_RANGE = range(9)
SET, TRIM, CLEAR, INCREMENT, SORT = range(9, 14)
SIZE, GET, GET_RANGE = 16, 17, 18
ORDERED = 1

numbers = st.integers(-4, 4)
lists = st.lists(numbers, max_size=7)
places = st.integers(-9, 9)
counts = st.integers(0, 9)


def code_of(value: Any, *operation: Any) -> ResultCode:
    with pytest.raises(Refused) as refusal:
        change(value, *operation)
    return refusal.value.code


def span(values: list[int], index: int, count: int) -> list[int]:
    start = index + len(values) if index < 0 else index
    return [position for position in range(len(values)) if start <= position < start + count]


@given(values=lists, items=lists)
def test_items_are_appended_at_the_end_and_the_size_is_answered(values: list[int], items: list[int]) -> None:
    both = values + items
    assert change(values, APPEND_ITEMS, items) == (both, len(both))
    assert change(values, APPEND, items) == ([*values, items], len(values) + 1)


@given(values=lists, items=lists)
def test_an_ordered_list_stays_sorted_whatever_is_added(values: list[int], items: list[int]) -> None:
    expected = sorted(values + items)
    assert change_all(values, [SET_TYPE, ORDERED], [APPEND_ITEMS, items]) == expected
    assert change_all(values, [SET_TYPE, ORDERED], *([APPEND, item] for item in items)) == expected
    assert change_all(None, [APPEND_ITEMS, values, ORDERED], [APPEND_ITEMS, items]) == expected


@given(values=lists, index=places, items=lists)
def test_items_are_inserted_where_asked_with_nothing_in_between(
    values: list[int], index: int, items: list[int]
) -> None:
    start = index + len(values) if index < 0 else index
    if start < 0:
        assert code_of(values, INSERT_ITEMS, index, items) == ResultCode.OP_NOT_APPLICABLE
        return
    expected: list[int | None] = list(values)
    if items:
        expected += [None] * (start - len(values))
    expected[start:start] = items
    assert change(values, INSERT_ITEMS, index, items) == (expected, len(expected))
    if start > len(values) and items:
        assert code_of(values, INSERT, index, 0, BOUNDED) == ResultCode.OP_NOT_APPLICABLE
        assert change(values, INSERT, index, 0, BOUNDED | NO_FAIL) == (values, len(values))


@given(values=lists, index=places, count=counts)
def test_ranges_are_read_taken_out_and_kept(values: list[int], index: int, count: int) -> None:
    positions = span(values, index, count)
    inside = [values[position] for position in positions]
    outside = [value for position, value in enumerate(values) if position not in positions]
    assert ask(values, GET_RANGE, index, count) == inside
    assert change(values, POP_RANGE, index, count) == (outside, inside)
    assert change(values, REMOVE_RANGE, index, count) == (outside, len(inside))
    assert change(values, TRIM, index, count) == (inside, len(outside))


@given(values=lists, index=places)
def test_one_element_is_read_and_taken_out_if_it_is_there(values: list[int], index: int) -> None:
    if not -len(values) <= index < len(values):
        assert code_of(values, POP, index) == code_of(values, REMOVE, index) == ResultCode.OP_NOT_APPLICABLE
        return
    rest = list(values)
    taken = rest.pop(index)
    assert ask(values, GET, index) == taken
    assert change(values, POP, index) == (rest, taken)
    assert change(values, REMOVE, index) == (rest, 1)


@given(values=lists, index=places, item=numbers)
def test_set_and_increment_change_one_element(values: list[int], index: int, item: int) -> None:
    if index < -len(values):
        assert code_of(values, SET, index, item) == ResultCode.OP_NOT_APPLICABLE
        return
    expected: list[int | None] = values + [None] * (index + 1 - len(values))
    present = values[index] if index < len(values) else 0
    expected[index] = item
    assert change(values, SET, index, item) == (expected, None)
    expected[index] = present + item
    assert change(values, INCREMENT, index, item) == (expected, present + item)


@given(values=lists)
def test_sorting_clearing_and_counting(values: list[int]) -> None:
    assert change(values, SORT) == (sorted(values), None)
    assert change(values, SORT, DROP_DUPLICATES) == (sorted(set(values)), None)
    assert change(values, SORT, 1) == (sorted(values, reverse=True), None)
    assert change(values, CLEAR) == ([], None)
    assert ask(values, SIZE) == len(values)


@given(values=lists, items=st.lists(numbers, min_size=1, max_size=5))
def test_unique_items_are_added_once_or_refused(values: list[int], items: list[int]) -> None:
    new = [item for position, item in enumerate(items) if item not in values and item not in items[:position]]
    if new == items:
        assert change(values, APPEND_ITEMS, items, 0, UNIQUE) == (values + items, len(values + items))
    else:
        refusals = (ResultCode.ELEMENT_EXISTS, ResultCode.OP_NOT_APPLICABLE)
        assert code_of(values, APPEND_ITEMS, items, 0, UNIQUE) in refusals
        assert change(values, APPEND_ITEMS, items, 0, UNIQUE | NO_FAIL) == (values, len(values))
    partial = UNIQUE | NO_FAIL | PARTIAL
    assert change(values, APPEND_ITEMS, items, 0, partial) == (values + new, len(values + new))


@pytest.mark.parametrize(
    "operation", [[POP, 0], [POP_RANGE, 0, 1], [REMOVE, 0], [REMOVE_RANGE, 0, 1], [TRIM, 0, 1], [CLEAR], [37, 7, 0, 1]]
)
def test_taking_from_a_list_that_is_not_there_makes_none(operation: list[Any]) -> None:
    assert change(None, *operation) == (None, None)


@pytest.mark.parametrize(
    ("value", "operation", "code"),
    [
        (5, [APPEND, 1], ResultCode.BIN_TYPE),
        ({}, [APPEND, 1], ResultCode.BIN_TYPE),
        (None, [SORT], ResultCode.BIN_TYPE),
        (["a"], [INCREMENT, 0, 1], ResultCode.PARAMETER),
        ([1], [INCREMENT, 0, "a"], ResultCode.PARAMETER),
        ([1], [APPEND], ResultCode.PARAMETER),
        ([1], [APPEND, 1, 2, 3, 4], ResultCode.PARAMETER),
        ([1], [APPEND_ITEMS, 1], ResultCode.PARAMETER),
        ([1], [INSERT, "a", 1], ResultCode.PARAMETER),
        ([1], [40, 7], ResultCode.PARAMETER),
        ([1], [63], ResultCode.PARAMETER),
        ([1], [], ResultCode.PARAMETER),
        ([1], [INSERT, 1 << 40, 1], ResultCode.OP_NOT_APPLICABLE),
        ([1], [0xFE, [4], 1], ResultCode.UNSUPPORTED),
    ],
)
def test_what_a_list_can_not_do_is_refused(value: Any, operation: list[Any], code: ResultCode) -> None:
    assert code_of(value, *operation) == code


@pytest.mark.parametrize("operation", [[INSERT, 0, 1], [INSERT_ITEMS, 0, [1]], [SET, 0, 1]])
def test_an_ordered_list_gives_places_itself(operation: list[Any]) -> None:
    with pytest.raises(Refused) as refusal:
        change_all([1, 2], [SET_TYPE, ORDERED], operation)
    assert refusal.value.code == ResultCode.OP_NOT_APPLICABLE


def test_numbers_keep_their_type_and_wrap() -> None:
    assert change([1], INCREMENT, 0, 1.9) == ([2], 2)
    assert change([1.5], INCREMENT, 0, 2) == ([3.5], 3.5)
    assert change([1], INCREMENT, 0) == ([2], 2)
    assert change([(1 << 63) - 1], INCREMENT, 0, 1) == ([-(1 << 63)], -(1 << 63))
    assert change_all([1, 5, 9], [SET_TYPE, ORDERED], [INCREMENT, 0, 6]) == [5, 7, 9]
