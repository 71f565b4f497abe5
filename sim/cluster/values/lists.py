"""What each operation does to a list: tables from operation code to function. Pure."""

from itertools import pairwise

from geotrain.wire.codes import ResultCode
from sim.cluster.values import selection
from sim.cluster.values.changes import NOTHING, Arguments, Change, Read, Result, flag, integer_result
from sim.cluster.values.elements import NIL, ORDERED, List, added, integer, order_key, particle_of, split, storable
from sim.cluster.values.refused import Refused

UNIQUE, BOUNDED, NO_FAIL, PARTIAL = 0x01, 0x02, 0x04, 0x08
DESCENDING, DROP_DUPLICATES = 0x01, 0x02
MAX_ITEMS = 1 << 23  # more than a record of the largest size can hold


def _append(target: List, arguments: Arguments) -> Result:
    return _add(target, [arguments[0]], flag(arguments, 2))


def _append_items(target: List, arguments: Arguments) -> Result:
    return _add(target, split(arguments[0]), flag(arguments, 2))


def _add(target: List, items: list[bytes], flags: int) -> Result:
    target.items += _admitted(target, items, flags)
    _sort(target)
    return integer_result(len(target.items))


def _insert(target: List, arguments: Arguments) -> Result:
    return _insert_at(target, integer(arguments[0]), [arguments[1]], flag(arguments, 2))


def _insert_items(target: List, arguments: Arguments) -> Result:
    return _insert_at(target, integer(arguments[0]), split(arguments[1]), flag(arguments, 2))


def _insert_at(target: List, index: int, items: list[bytes], flags: int) -> Result:
    size = len(target.items)
    index = index + size if index < 0 else index
    if target.flags & ORDERED or not 0 <= index < MAX_ITEMS:
        raise Refused(ResultCode.OP_NOT_APPLICABLE)
    if flags & BOUNDED and index > size:
        if not flags & NO_FAIL:
            raise Refused(ResultCode.OP_NOT_APPLICABLE)
    elif items := _admitted(target, items, flags):
        target.items += [NIL] * (index - size)
        target.items[index:index] = items
    return integer_result(len(target.items))


def _admitted(target: List, items: list[bytes], flags: int) -> list[bytes]:
    """Those items that may be added under the flags. Raises Refused."""
    for item in items:
        storable(item)
    if not flags & UNIQUE:
        return items
    seen = {order_key(item) for item in target.items}
    admitted, is_repeated, is_present = [], False, False
    added_keys = set()
    for item, key in ((item, order_key(item)) for item in items):
        is_present |= key in seen
        is_repeated |= key in added_keys
        if key not in seen and key not in added_keys:
            admitted.append(item)
        added_keys.add(key)
    if not (is_present or is_repeated) or (flags & NO_FAIL and flags & PARTIAL):
        return admitted
    if flags & NO_FAIL:
        return []
    raise Refused(ResultCode.OP_NOT_APPLICABLE if is_repeated else ResultCode.ELEMENT_EXISTS)


def _sort(target: List) -> None:
    if target.flags & ORDERED:
        target.items.sort(key=order_key)


def _set(target: List, arguments: Arguments) -> Result:
    _set_at(target, integer(arguments[0]), arguments[1], flag(arguments, 2))
    return NOTHING


def _set_at(target: List, index: int, item: bytes, flags: int) -> None:
    if target.flags & ORDERED:
        raise Refused(ResultCode.OP_NOT_APPLICABLE)
    if index >= len(target.items):
        _insert_at(target, index, [item], flags)
        return
    index = selection.place(index, len(target.items))
    others = List(target.items[:index] + target.items[index + 1 :])
    if _admitted(others, [item], flags):
        target.items[index] = item


def _increment(target: List, arguments: Arguments) -> Result:
    index, size = integer(arguments[0]), len(target.items)
    index = index + size if index < 0 else index
    if not 0 <= index < MAX_ITEMS or (target.flags & ORDERED and index > size):
        raise Refused(ResultCode.OP_NOT_APPLICABLE)
    present = target.items[index] if index < size else None
    item = added(present, arguments[1] if len(arguments) > 1 else None)
    if target.flags & ORDERED:
        del target.items[index : index + 1]
        _add(target, [item], flag(arguments, 3))
    else:
        _set_at(target, index, item, flag(arguments, 3))
    return particle_of(item)


def _clear(target: List, arguments: Arguments) -> Result:
    target.items.clear()
    return NOTHING


def _set_type(target: List, arguments: Arguments) -> Result:
    target.flags = integer(arguments[0]) & ORDERED
    _sort(target)
    return NOTHING


def _sort_once(target: List, arguments: Arguments) -> Result:
    flags = flag(arguments, 0)
    if not target.flags & ORDERED:
        target.items.sort(key=order_key, reverse=bool(flags & DESCENDING))
    if flags & DROP_DUPLICATES:
        keys = [None, *map(order_key, target.items)]
        target.items = [item for item, (last, key) in zip(target.items, pairwise(keys), strict=True) if last != key]
    return NOTHING


def _pop(target: List, arguments: Arguments) -> Result:
    return _take(target, range(at := selection.place(integer(arguments[0]), len(target.items)), at + 1), is_multi=False)


def _pop_range(target: List, arguments: Arguments) -> Result:
    return _take(target, _span(target, arguments))


def _remove(target: List, arguments: Arguments) -> Result:
    _pop(target, arguments)
    return integer_result(1)


def _remove_range(target: List, arguments: Arguments) -> Result:
    chosen = _span(target, arguments)
    _take(target, chosen)
    return integer_result(len(chosen))


def _trim(target: List, arguments: Arguments) -> Result:
    kept, size = _span(target, arguments), len(target.items)
    target.items = target.items[kept.start : kept.stop]
    return integer_result(size - len(target.items))


def _span(target: List, arguments: Arguments) -> range:
    index, count = integer(arguments[0]), integer(arguments[1]) if len(arguments) > 1 else MAX_ITEMS
    return selection.span(index, count, len(target.items))


def _take(target: List, chosen: range, *, is_multi: bool = True) -> Result:
    result = selection.told(target, chosen, selection.Return.VALUE, is_multi=is_multi)
    del target.items[chosen.start : chosen.stop]
    return result


def _size(target: List, arguments: Arguments) -> Result:
    return integer_result(len(target.items))


def _get(target: List, arguments: Arguments) -> Result:
    return selection.told(
        target, [selection.place(integer(arguments[0]), len(target.items))], selection.Return.VALUE, is_multi=False
    )


def _get_range(target: List, arguments: Arguments) -> Result:
    return selection.told(target, _span(target, arguments), selection.Return.VALUE)


CHANGES: dict[int, Change] = {
    0: Change(_set_type, (1, 1), creates=True),
    1: Change(_append, (1, 3), creates=True, flags_at=1),
    2: Change(_append_items, (1, 3), creates=True, flags_at=1),
    3: Change(_insert, (2, 3), creates=True),
    4: Change(_insert_items, (2, 3), creates=True),
    5: Change(_pop, (1, 1)),
    6: Change(_pop_range, (1, 2)),
    7: Change(_remove, (1, 1)),
    8: Change(_remove_range, (1, 2)),
    9: Change(_set, (2, 3), creates=True),
    10: Change(_trim, (2, 2)),
    11: Change(_clear, (0, 0)),
    12: Change(_increment, (1, 4), creates=True, flags_at=2),
    13: Change(_sort_once, (0, 1)),
}
"""How a list is changed, by operation code."""

READS: dict[int, Read] = {
    16: Read(_size, (0, 0)),
    17: Read(_get, (1, 1)),
    18: Read(_get_range, (1, 2)),
}
"""How a list is read, by operation code; beside the selectors."""

_SELECTORS = [
    selection.BY_INDEX,
    selection.BY_VALUE,
    selection.BY_RANK,
    selection.ALL_BY_VALUE,
    selection.BY_VALUE_LIST,
    selection.BY_INDEX_RANGE,
    selection.BY_VALUE_INTERVAL,
    selection.BY_RANK_RANGE,
    selection.BY_VALUE_RELATIVE,
]
SELECTORS = dict(enumerate(_SELECTORS, start=19))
"""How elements are selected to be read, by operation code."""
REMOVERS = dict(enumerate(_SELECTORS, start=32))
"""How elements are selected to be removed, by operation code."""
