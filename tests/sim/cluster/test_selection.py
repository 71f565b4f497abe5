"""Every way to select elements, against the same said in plain Python."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire.codes import ResultCode
from sim.cluster.values.elements import Sought
from sim.cluster.values.refused import Refused
from sim.cluster.values.selection import INVERTED, Return
from tests.sim.cluster.nested_values import ask, change

numbers = st.integers(-4, 4)
lists = st.lists(numbers, max_size=7)
maps = st.dictionaries(st.integers(-6, 6), numbers, max_size=7)
places = st.integers(-9, 9)
counts = st.integers(0, 9)

Positions = list[int]


class Selection(NamedTuple):
    """An operation that selects: its codes for reading and removing, its arguments, and what it means."""

    read: int
    remove: int
    arguments: st.SearchStrategy[tuple[Any, ...]]
    means: Callable[..., Positions]


def order(values: list[int]) -> Positions:
    return sorted(range(len(values)), key=lambda position: (values[position], position))


def cut(start: int, count: int, items: Positions) -> Positions:
    return [items[position] for position in range(start, start + count) if 0 <= position < len(items)]


def by_index_range(values: list[int], index: int, count: int) -> Positions:
    return cut(index + len(values) if index < 0 else index, count, list(range(len(values))))


def by_rank_range(values: list[int], rank: int, count: int) -> Positions:
    return cut(rank + len(values) if rank < 0 else rank, count, order(values))


def by_value(values: list[int], value: int) -> Positions:
    return [position for position, item in enumerate(values) if item == value]


def by_value_list(values: list[int], wanted: list[int]) -> Positions:
    return [position for position, item in enumerate(values) if item in wanted]


def by_value_interval(values: list[int], start: int, end: int) -> Positions:
    return [position for position, item in enumerate(values) if start <= item < end]


def by_value_relative(values: list[int], value: int, rank: int, count: int) -> Positions:
    return cut(sum(item < value for item in values) + rank, count, order(values))


def by_key_relative(keys: list[int], key: int, index: int, count: int) -> Positions:
    return cut(sum(item < key for item in keys) + index, count, list(range(len(keys))))


ranges = st.tuples(places, counts)
intervals = st.tuples(numbers, numbers)
LIST_SELECTIONS = [
    Selection(22, 35, st.tuples(numbers), by_value),
    Selection(23, 36, st.tuples(lists), by_value_list),
    Selection(24, 37, ranges, by_index_range),
    Selection(25, 38, intervals, by_value_interval),
    Selection(26, 39, ranges, by_rank_range),
    Selection(27, 40, st.tuples(numbers, places, counts), by_value_relative),
]
RANK_SELECTIONS = LIST_SELECTIONS[-2:]
MAP_SELECTIONS = [
    Selection(102, 82, st.tuples(numbers), by_value),
    Selection(104, 85, ranges, by_index_range),
    Selection(105, 86, intervals, by_value_interval),
    Selection(106, 87, ranges, by_rank_range),
    Selection(108, 83, st.tuples(lists), by_value_list),
    Selection(110, 89, st.tuples(numbers, places, counts), by_value_relative),
]
KEY_SELECTIONS = [
    Selection(103, 84, intervals, by_value_interval),
    Selection(107, 81, st.tuples(lists), by_value_list),
    Selection(109, 88, st.tuples(numbers, places, counts), by_key_relative),
]


def from_the_nearer_end(positions: Positions, values: list[int]) -> Positions:
    """Neighbours in rank, in the order in which sorting from that end finds them, last to first."""
    ranks = [order(values).index(position) for position in positions]
    return positions[::-1] if ranks and ranks[0] <= len(values) - 1 - ranks[-1] else positions


def case(selections: list[Selection]) -> st.SearchStrategy[tuple[Selection, tuple[Any, ...]]]:
    return st.sampled_from(selections).flatmap(
        lambda selection: selection.arguments.map(lambda arguments: (selection, arguments))
    )


@given(values=lists, chosen=case(LIST_SELECTIONS), inverted=st.booleans())
def test_a_list_tells_of_what_was_selected_and_removing_takes_it_out(
    values: list[int], chosen: tuple[Selection, tuple[Any, ...]], inverted: bool
) -> None:
    selection, arguments = chosen
    positions = selection.means(values, *arguments)
    told = from_the_nearer_end(positions, values) if selection in RANK_SELECTIONS else positions
    if inverted:
        told = positions = [position for position in range(len(values)) if position not in positions]
    flag = INVERTED if inverted else 0
    ranks = sorted(order(values).index(position) for position in positions)
    expected = {
        Return.NONE: None,
        Return.COUNT: len(positions),
        Return.EXISTS: bool(positions),
        Return.INDEX: sorted(positions),
        Return.REVERSE_INDEX: [len(values) - 1 - position for position in sorted(positions)],
        Return.RANK: ranks,
        Return.REVERSE_RANK: [len(values) - 1 - rank for rank in ranks],
        Return.VALUE: [values[position] for position in told],
    }
    for kind, answer in expected.items():
        assert ask(values, selection.read, kind | flag, *arguments) == answer
    rest = [value for position, value in enumerate(values) if position not in positions]
    assert change(values, selection.remove, Return.VALUE | flag, *arguments) == (rest, expected[Return.VALUE])


@given(values=maps, chosen=case(MAP_SELECTIONS + KEY_SELECTIONS), inverted=st.booleans())
def test_a_map_tells_of_what_was_selected_and_removing_takes_it_out(
    values: dict[int, int], chosen: tuple[Selection, tuple[Any, ...]], inverted: bool
) -> None:
    selection, arguments = chosen
    items = sorted(values.items())
    column = [key if selection in KEY_SELECTIONS else value for key, value in items]
    ranks = order([value for _, value in items])
    positions = selection.means(column, *arguments)
    if inverted:
        positions = [position for position in range(len(items)) if position not in positions]
    flag = INVERTED if inverted else 0
    chosen_items = dict(items[position] for position in positions)
    expected = {
        Return.NONE: None,
        Return.COUNT: len(positions),
        Return.EXISTS: bool(positions),
        Return.INDEX: positions,
        Return.RANK: [ranks.index(position) for position in positions],
        Return.KEY: [items[position][0] for position in positions],
        Return.VALUE: [items[position][1] for position in positions],
        Return.KEY_VALUE: chosen_items,
        Return.UNORDERED_MAP: chosen_items,
        Return.ORDERED_MAP: chosen_items,
    }
    for kind, answer in expected.items():
        assert ask(values, selection.read, kind | flag, *arguments) == answer
    rest = {key: value for key, value in items if key not in chosen_items}
    assert change(values, selection.remove, Return.KEY | flag, *arguments) == (rest, expected[Return.KEY])


def test_many_values_are_looked_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    view = Sought.view
    monkeypatch.setattr(Sought, "view", lambda target, key: looked_at.append(key) or view(target, key))
    values = list(range(200))
    assert ask(values, 23, Return.COUNT, values[100:]) == 100
    assert len(looked_at) == len(values), "each once, however many are wanted: a client can send hundreds of thousands"


@given(values=lists, place=places)
def test_one_element_by_index_or_rank_must_be_there(values: list[int], place: int) -> None:
    for code, sequence in ((19, values), (21, sorted(values))):
        if -len(values) <= place < len(values):
            assert ask(values, code, Return.VALUE, place) == sequence[place]
        else:
            with pytest.raises(Refused) as refusal:
                ask(values, code, Return.VALUE, place)
            assert refusal.value.code == ResultCode.OP_NOT_APPLICABLE


@given(values=maps, key=numbers)
def test_a_key_that_is_not_there_has_no_value_and_no_place(values: dict[int, int], key: int) -> None:
    assert ask(values, 97, Return.VALUE, key) == values.get(key)
    assert ask(values, 97, Return.COUNT, key) == (key in values)
    assert ask(values, 97, Return.INDEX, key) == (sorted(values).index(key) if key in values else -1)
    assert ask(values, 97, Return.KEY_VALUE, key) == ({key: values[key]} if key in values else {})


ASCENDING: list[Any] = [None, False, True, -(1 << 63), -1, 0, (1 << 63) - 1, "", "a", "b", [], [1], [1, 2], [2]]
ASCENDING += [{}, {1: 1}, {1: 2}, {2: 1}, {1: 1, 2: 1}, b"", b"a", b"\xff", -1.5, 0.0, 1e300]


@given(values=st.permutations(ASCENDING))
def test_values_of_different_types_have_one_order(values: list[Any]) -> None:
    ordered = ask(values, 26, Return.VALUE, 0, len(values))  # sorted from the nearer end
    assert list(map(repr, reversed(ordered))) == list(map(repr, ASCENDING))


@pytest.mark.parametrize("kind", [Return.KEY, Return.KEY_VALUE, Return.ORDERED_MAP, 9, 14, 99])
def test_a_list_has_no_keys_to_tell(kind: int) -> None:
    with pytest.raises(Refused) as refusal:
        ask([1, 2], 24, kind, 0, 1)
    assert refusal.value.code == ResultCode.OP_NOT_APPLICABLE
