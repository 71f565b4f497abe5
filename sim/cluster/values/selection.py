"""Which elements of a list or map an operation means, and what it tells of them. Pure.

An operation names elements by index, rank, value or key, singly, in ranges or relative to one that may be absent; its
return type says what it answers, and a flag turns the selection into all the others. Reading and removing share all of
this. Indexes are places in a list, or in a map's order of keys; ranks are places in the order of values.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from geotrain.wire.codes import Particle, ResultCode
from sim.cluster.values.changes import NOTHING, Arguments, Result, check_number, integer_result
from sim.cluster.values.elements import (
    ORDERED,
    PRESERVE_ORDER,
    Container,
    Key,
    List,
    Map,
    Sought,
    integer,
    order_key,
    pack_integer,
    particle_of,
    sought,
    split,
)
from sim.cluster.values.refused import Refused

INVERTED = 0x10000
_TO_END = 1 << 32


class Return:
    """What an operation tells of the elements that it selects."""

    NONE: Final = 0
    INDEX: Final = 1
    REVERSE_INDEX: Final = 2
    RANK: Final = 3
    REVERSE_RANK: Final = 4
    COUNT: Final = 5
    KEY: Final = 6
    VALUE: Final = 7
    KEY_VALUE: Final = 8
    EXISTS: Final = 13
    UNORDERED_MAP: Final = 16
    ORDERED_MAP: Final = 17


_MAP_FLAGS = {Return.KEY_VALUE: PRESERVE_ORDER, Return.UNORDERED_MAP: 0, Return.ORDERED_MAP: ORDERED}

Positions = Sequence[int]
"""Indexes of elements, in the order of an answer."""


class Selector(NamedTuple):
    """How an operation selects. Its first argument is the return type; `select` gets the others."""

    select: Callable[[Container, Arguments], Positions]
    num_arguments: tuple[int, int]
    """At least and at most, beside the return type."""
    is_multi: bool = True
    """Whether it means any number of elements, and so answers with a list."""


def answer(container: Container, selector: Selector, arguments: Arguments) -> tuple[Positions, Result]:
    """What an operation selects, and what it answers. Raises Refused or ProtocolError."""
    at_least, at_most = selector.num_arguments
    check_number(arguments, (at_least + 1, at_most + 1))
    flags = integer(arguments[0])
    positions = selector.select(container, arguments[1:])
    if flags & INVERTED:
        if not selector.is_multi:
            raise Refused(ResultCode.OP_NOT_APPLICABLE)
        chosen = set(positions)
        positions = [position for position in range(len(container.items)) if position not in chosen]
    return positions, told(container, positions, flags & ~INVERTED, is_multi=selector.is_multi)


def told(container: Container, positions: Positions, kind: int, *, is_multi: bool = True) -> Result:
    """What is told of selected elements under a return type. Raises Refused."""
    match kind:
        case Return.NONE:
            return NOTHING
        case Return.COUNT:
            return integer_result(len(positions))
        case Return.EXISTS:
            return Particle.BOOL, bytes([bool(positions)])
        case Return.INDEX | Return.REVERSE_INDEX | Return.RANK | Return.REVERSE_RANK:
            return _places(container, positions, kind, is_multi=is_multi)
        case Return.KEY_VALUE | Return.UNORDERED_MAP | Return.ORDERED_MAP if isinstance(container, Map):
            items = list(container.items.items())
            return Particle.MAP, Map(dict(items[at] for at in sorted(positions)), _MAP_FLAGS[kind]).pack()
        case Return.VALUE:
            parts = container.values
        case Return.KEY if isinstance(container, Map):
            parts = list(container.items)
        case _:
            raise Refused(ResultCode.OP_NOT_APPLICABLE)
    if is_multi:
        return Particle.LIST, List([parts[position] for position in positions]).pack()
    return particle_of(parts[positions[0]]) if positions else NOTHING


def _places(container: Container, positions: Positions, kind: int, *, is_multi: bool) -> Result:
    places = list(positions)
    if kind in (Return.RANK, Return.REVERSE_RANK):
        ranks = {position: rank for rank, position in enumerate(ranking(container))}
        if not is_multi and isinstance(container, List):  # equal elements share their rank
            places = [_num_below(container.values, container.items[position]) for position in positions]
        else:
            places = [ranks[position] for position in positions]
    if isinstance(container, List):
        places.sort()
    if kind in (Return.REVERSE_INDEX, Return.REVERSE_RANK):
        places = [len(container.items) - 1 - place for place in places]
    if not is_multi:
        return integer_result(places[0] if places else -1)
    return Particle.LIST, List([pack_integer(place) for place in places]).pack()


def ranking(container: Container) -> list[int]:
    """The indexes of all elements in the order of their values."""
    keys = _keys(container.values)
    return sorted(range(len(keys)), key=keys.__getitem__)


def _keys(parts: list[bytes]) -> list[tuple[object, ...]]:
    return [order_key(part) for part in parts]


def place(index: int, size: int) -> int:
    """One index or rank, counted from the end if negative. Raises Refused where there is none."""
    absolute = index + size if index < 0 else index
    if not 0 <= absolute < size:
        raise Refused(ResultCode.OP_NOT_APPLICABLE)
    return absolute


def span(index: int, count: int, size: int) -> range:
    """A range of indexes or ranks; what of it lies outside is left out."""
    return _clipped(index + size if index < 0 else index, count, size)


def _clipped(start: int, count: int, size: int) -> range:
    return range(min(max(start, 0), size), min(max(start + count, 0), size))


def _range(arguments: Arguments, size: int) -> range:
    index, count = map(integer, [*arguments, pack_integer(_TO_END)][:2])
    return span(index, count, size)


def _relative(arguments: Arguments, first: int, size: int) -> range:
    """A range that counts from `first`, in both directions."""
    offset, count = map(integer, [*arguments, pack_integer(_TO_END)][:2])
    return _clipped(first + offset, count, size)


def _equal(parts: list[bytes], wanted: list[bytes]) -> list[int]:
    """Where elements equal any of those wanted. Targets of which as much counts are looked up together."""
    groups: dict[tuple[int | None, bool], tuple[Sought, set[Key]]] = {}
    for target in map(sought, wanted):
        groups.setdefault((target.num_compared, bool(target.key)), (target, set()))[1].add(target.key)
    return [
        position
        for position, key in enumerate(_keys(parts))
        if any(target.view(key) in keys for target, keys in groups.values())
    ]


def _between(parts: list[bytes], arguments: Arguments) -> list[int]:
    """Those from the first argument on and below the second; without a second, to the end."""
    start, *end = map(sought, arguments)
    return [
        position
        for position, key in enumerate(_keys(parts))
        if start.view(key) >= start.key and (not end or end[0].view(key) < end[0].key)
    ]


def _num_below(parts: list[bytes], packed: bytes) -> int:
    target = sought(packed)
    return sum(target.view(key) < target.key for key in _keys(parts))


def _map_keys(container: Container) -> list[bytes]:
    assert isinstance(container, Map)
    return list(container.items)


def _by_index(container: Container, arguments: Arguments) -> Positions:
    return [place(integer(arguments[0]), len(container.items))]


def _by_index_range(container: Container, arguments: Arguments) -> Positions:
    return _range(arguments, len(container.items))


def _by_rank(container: Container, arguments: Arguments) -> Positions:
    return [ranking(container)[place(integer(arguments[0]), len(container.items))]]


def _by_rank_range(container: Container, arguments: Arguments) -> Positions:
    return _ranked(container, _range(arguments, len(container.items)))


def _ranked(container: Container, chosen: range) -> Positions:
    """The elements of these ranks. A server sorts an unordered list from the nearer end, and answers in that order."""
    positions = ranking(container)[chosen.start : chosen.stop]
    is_sorted_down = chosen.start <= len(container.items) - chosen.stop
    if isinstance(container, List) and not container.flags & ORDERED and is_sorted_down:
        positions.reverse()
    return positions


def _by_value(container: Container, arguments: Arguments) -> Positions:
    return _equal(container.values, arguments)


def _by_one_value(container: Container, arguments: Arguments) -> Positions:
    return _equal(container.values, arguments)[:1]


def _by_value_list(container: Container, arguments: Arguments) -> Positions:
    return _equal(container.values, split(arguments[0]))


def _by_value_interval(container: Container, arguments: Arguments) -> Positions:
    return _between(container.values, arguments)


def _by_value_relative(container: Container, arguments: Arguments) -> Positions:
    first = _num_below(container.values, arguments[0])
    return _ranked(container, _relative(arguments[1:], first, len(container.items)))


def _by_key(container: Container, arguments: Arguments) -> Positions:
    keys = _map_keys(container)
    return [keys.index(arguments[0])] if arguments[0] in container.items else _equal(keys, arguments)


def _by_key_list(container: Container, arguments: Arguments) -> Positions:
    return _equal(_map_keys(container), split(arguments[0]))


def _by_key_interval(container: Container, arguments: Arguments) -> Positions:
    return _between(_map_keys(container), arguments)


def _by_key_relative(container: Container, arguments: Arguments) -> Positions:
    first = _num_below(_map_keys(container), arguments[0])
    return _relative(arguments[1:], first, len(container.items))


BY_INDEX = Selector(_by_index, (1, 1), is_multi=False)
BY_INDEX_RANGE = Selector(_by_index_range, (1, 2))
BY_RANK = Selector(_by_rank, (1, 1), is_multi=False)
BY_RANK_RANGE = Selector(_by_rank_range, (1, 2))
BY_VALUE = Selector(_by_one_value, (1, 1), is_multi=False)
ALL_BY_VALUE = Selector(_by_value, (1, 1))
BY_VALUE_LIST = Selector(_by_value_list, (1, 1))
BY_VALUE_INTERVAL = Selector(_by_value_interval, (1, 2))
BY_VALUE_RELATIVE = Selector(_by_value_relative, (2, 3))
BY_KEY = Selector(_by_key, (1, 1), is_multi=False)
BY_KEY_LIST = Selector(_by_key_list, (1, 1))
BY_KEY_INTERVAL = Selector(_by_key_interval, (1, 2))
BY_KEY_RELATIVE = Selector(_by_key_relative, (2, 3))
