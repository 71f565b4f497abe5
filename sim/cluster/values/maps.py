"""What each operation does to a map: tables from operation code to function. Pure."""

from bisect import bisect_left

from geotrain.wire.codes import ResultCode
from sim.cluster.values import selection
from sim.cluster.values.changes import NOTHING, Arguments, Change, Read, Result, flag, integer_result
from sim.cluster.values.elements import (
    ORDERED,
    VALUE_ORDERED,
    Map,
    added,
    integer,
    order_key,
    particle_of,
    sorted_items,
    storable,
    unpack_map,
)
from sim.cluster.values.refused import Refused
from sim.cluster.values.selection import Selector

NO_OVERWRITE, NO_CREATE, NO_FAIL, PARTIAL = 0x01, 0x02, 0x04, 0x08


def find(target: Map, key: bytes) -> bytes | None:
    """The key in the map that equals `key`, in whatever form it was packed."""
    if key in target.items:
        return key
    keys, wanted = list(target.items), order_key(key)
    at = bisect_left(keys, wanted, key=order_key)
    return keys[at] if at < len(keys) and order_key(keys[at]) == wanted else None


def insert(target: Map, key: bytes, value: bytes) -> None:
    """Set the value of a key."""
    present = find(target, key)
    target.items[key if present is None else present] = value
    if present is None:
        target.items = sorted_items(target.items)


def _put(target: Map, arguments: Arguments) -> Result:
    return _put_all(target, {arguments[0]: arguments[1]}, flag(arguments, 3))


def _put_items(target: Map, arguments: Arguments) -> Result:
    return _put_all(target, unpack_map(arguments[0]).items, flag(arguments, 2))


def _add(target: Map, arguments: Arguments) -> Result:
    return _put_all(target, {arguments[0]: arguments[1]}, NO_OVERWRITE)


def _add_items(target: Map, arguments: Arguments) -> Result:
    return _put_all(target, unpack_map(arguments[0]).items, NO_OVERWRITE)


def _replace(target: Map, arguments: Arguments) -> Result:
    return _put_all(target, {arguments[0]: arguments[1]}, NO_CREATE)


def _replace_items(target: Map, arguments: Arguments) -> Result:
    return _put_all(target, unpack_map(arguments[0]).items, NO_CREATE)


def _put_all(target: Map, items: dict[bytes, bytes], flags: int) -> Result:
    """Put those items that the flags admit. Raises Refused."""
    admitted, refusals = {}, []
    for key, value in items.items():
        present = find(target, storable(key))
        if present is not None and flags & NO_OVERWRITE:
            refusals.append(ResultCode.ELEMENT_EXISTS)
        elif present is None and flags & NO_CREATE:
            refusals.append(ResultCode.ELEMENT_NOT_FOUND)
        else:
            admitted[key if present is None else present] = storable(value)
    if refusals and not flags & NO_FAIL:
        raise Refused(refusals[0])
    if not refusals or flags & PARTIAL:
        target.items = sorted_items(target.items | admitted)
    return integer_result(len(target.items))


def _increment(target: Map, arguments: Arguments) -> Result:
    return _count(target, arguments, sign=1)


def _decrement(target: Map, arguments: Arguments) -> Result:
    return _count(target, arguments, sign=-1)


def _count(target: Map, arguments: Arguments, *, sign: int) -> Result:
    key = find(target, arguments[0])
    delta = arguments[1] if len(arguments) > 1 else None
    value = added(None if key is None else target.items[key], delta, sign=sign)
    insert(target, storable(arguments[0]), value)
    return particle_of(value)


def _clear(target: Map, arguments: Arguments) -> Result:
    target.items = {}
    return NOTHING


def _set_type(target: Map, arguments: Arguments) -> Result:
    target.flags = map_flags(integer(arguments[0]))
    return NOTHING


def map_flags(flags: int) -> int:
    """The flags of a map that is made with those of a policy."""
    return flags & (ORDERED | VALUE_ORDERED)


def _size(target: Map, arguments: Arguments) -> Result:
    return integer_result(len(target.items))


CHANGES: dict[int, Change] = {
    64: Change(_set_type, (1, 1), creates=True),
    65: Change(_add, (2, 3), creates=True, flags_at=2),
    66: Change(_add_items, (1, 2), creates=True, flags_at=1),
    67: Change(_put, (2, 4), creates=True, flags_at=2),
    68: Change(_put_items, (1, 3), creates=True, flags_at=1),
    69: Change(_replace, (2, 2), creates=True),
    70: Change(_replace_items, (1, 1), creates=True),
    73: Change(_increment, (1, 3), creates=True, flags_at=2),
    74: Change(_decrement, (1, 3), creates=True, flags_at=2),
    75: Change(_clear, (0, 0)),
}
"""How a map is changed, by operation code."""

READS: dict[int, Read] = {96: Read(_size, (0, 0))}
"""How a map is read, by operation code; beside the selectors."""

SELECTORS: dict[int, Selector] = {
    97: selection.BY_KEY,
    98: selection.BY_INDEX,
    99: selection.BY_VALUE,
    100: selection.BY_RANK,
    102: selection.ALL_BY_VALUE,
    103: selection.BY_KEY_INTERVAL,
    104: selection.BY_INDEX_RANGE,
    105: selection.BY_VALUE_INTERVAL,
    106: selection.BY_RANK_RANGE,
    107: selection.BY_KEY_LIST,
    108: selection.BY_VALUE_LIST,
    109: selection.BY_KEY_RELATIVE,
    110: selection.BY_VALUE_RELATIVE,
}
"""How items are selected to be read, by operation code."""

REMOVERS: dict[int, Selector] = {
    76: selection.BY_KEY,
    77: selection.BY_INDEX,
    78: selection.BY_VALUE,
    79: selection.BY_RANK,
    81: selection.BY_KEY_LIST,
    82: selection.ALL_BY_VALUE,
    83: selection.BY_VALUE_LIST,
    84: selection.BY_KEY_INTERVAL,
    85: selection.BY_INDEX_RANGE,
    86: selection.BY_VALUE_INTERVAL,
    87: selection.BY_RANK_RANGE,
    88: selection.BY_KEY_RELATIVE,
    89: selection.BY_VALUE_RELATIVE,
}
"""How items are selected to be removed, by operation code."""
