"""List and map operations as they travel: an operation, perhaps in a context that leads into nested lists and maps.

Pure. A context is a path of steps, each an index, rank, key or value, with flags to create what is missing.
"""

from collections.abc import Callable

from geotrain.wire.codes import Particle, ProtocolError, ResultCode
from sim.cluster.values import lists, maps, selection
from sim.cluster.values.changes import NOTHING, Arguments, Result, check_number
from sim.cluster.values.elements import (
    NIL,
    ORDERED,
    VALUE_ORDERED,
    Container,
    List,
    Map,
    integer,
    is_list,
    is_map,
    order_key,
    particle_of,
    sorted_items,
    split,
    unpack_list,
    unpack_map,
)
from sim.cluster.values.refused import Refused

CONTEXT = 0xFF
BY_PATH = frozenset({0xFD, 0xFE})  # operations on all elements that a path with filters leads to
_FIRST_OF_MAPS = 64
_SORT = 13

_INDEX, _RANK, _KEY, _VALUE = range(4)  # the kinds of steps
_KIND, _OF_LIST, _OF_MAP, _CREATE, _UNBOUNDED = 0x0F, 0x10, 0x20, 0xC0, 0x80
_LIST_FLAGS = {0x40: 0, 0x80: 0, 0xC0: ORDERED}  # of what a step creates, by its flags
_MAP_FLAGS = {0x40: 0, 0x80: ORDERED, 0xC0: ORDERED | VALUE_ORDERED}

Step = tuple[int, bytes]
Leaf = Callable[[bytes | None], bytes | None]
"""What becomes of the element at the end of a path; None is none, before and after."""


class _Unchanged(Exception):
    """An operation that changes nothing, not even by creating what leads to it."""


def read(particle: int, value: bytes, packed: bytes) -> Result:
    """Perform a reading operation on the value of a bin. Raises Refused."""
    return read_parts(particle, value, *_parts(packed))


def modify(particle: int, value: bytes, packed: bytes) -> tuple[Result, Result]:
    """Perform a changing operation. Returns the bin's new value, which is NIL if there is none, and the answer."""
    return modify_parts(particle, value, *_parts(packed))


def _parts(packed: bytes) -> tuple[list[Step], int, Arguments]:
    """The path, code and arguments of an operation. Raises Refused."""
    try:
        if packed[:1] == b"\0":  # the code in two bytes and then the arguments, as older clients have it
            return [], int.from_bytes(packed[:2], "big"), split(packed[2:]) if len(packed) > 2 else []
        code, *arguments = split(packed)
        steps: list[Step] = []
        if integer(code) == CONTEXT:
            context, operation = arguments
            steps = path_of(context)
            code, *arguments = split(operation)
        if integer(code) in BY_PATH:
            raise Refused(ResultCode.UNSUPPORTED)
        return steps, integer(code), arguments
    except (ProtocolError, ValueError, RecursionError):
        raise Refused(ResultCode.PARAMETER) from None


def path_of(packed: bytes) -> list[Step]:
    """The steps of a context. Raises Refused or ProtocolError."""
    parts = split(packed)
    if not parts or len(parts) % 2:
        raise Refused(ResultCode.PARAMETER)
    return list(zip(map(integer, parts[::2]), parts[1::2], strict=True))


def read_parts(particle: int, value: bytes, steps: list[Step], code: int, arguments: Arguments) -> Result:
    """Perform a reading operation whose parts are known. Raises Refused."""
    try:
        target = _target(code, _followed(particle, value, steps), particle if not steps else None)
        table = lists if isinstance(target, List) else maps
        if selector := table.SELECTORS.get(code):
            return selection.answer(target, selector, arguments)[1]
        if code not in table.READS:
            raise Refused(ResultCode.PARAMETER)
        check_number(arguments, table.READS[code].num_arguments)
        result: Result = table.READS[code].read(target, arguments)
        return result
    except (ProtocolError, RecursionError):
        raise Refused(ResultCode.PARAMETER) from None


def element_at(particle: int, value: bytes, steps: list[Step]) -> Result:
    """What a path leads to in the value of a bin. Raises Refused where there is nothing, or ProtocolError."""
    return particle_of(_followed(particle, value, steps))


def _followed(particle: int, value: bytes, steps: list[Step]) -> bytes:
    if steps and particle not in (Particle.LIST, Particle.MAP):
        raise Refused(ResultCode.PARAMETER)
    for step in steps:
        container = _container(value)
        value = container.values[_position(container, step)]
    return value


def modify_parts(
    particle: int, value: bytes, steps: list[Step], code: int, arguments: Arguments
) -> tuple[Result, Result]:
    """Perform a changing operation whose parts are known. Raises Refused."""
    result = NOTHING

    def change(element: bytes | None) -> bytes | None:
        nonlocal result
        changed, result = _changed(code, arguments, element, particle if not steps else None)
        return changed

    present = None if particle == Particle.NIL else value
    if steps and particle not in (Particle.NIL, Particle.LIST, Particle.MAP):
        raise Refused(ResultCode.PARAMETER)
    try:
        changed = _descend(present, steps, change)
    except _Unchanged:
        return (particle, value), result
    except (ProtocolError, RecursionError):
        raise Refused(ResultCode.PARAMETER) from None
    assert changed is not None
    return (Particle.LIST if is_list(changed) else Particle.MAP, changed), result


def _changed(code: int, arguments: Arguments, element: bytes | None, particle: int | None) -> tuple[bytes, Result]:
    """The list or map after the operation, and what that answers."""
    table = lists if code < _FIRST_OF_MAPS else maps
    change, remover = table.CHANGES.get(code), table.REMOVERS.get(code)
    if change is None and remover is None:
        raise Refused(ResultCode.PARAMETER)
    if change is not None:
        check_number(arguments, change.num_arguments)
    if element is not None:
        target = _target(code, element, particle)
    elif change is not None and change.creates:
        target = _made(code, change.flags_at, arguments)
    elif code == _SORT:
        raise Refused(ResultCode.BIN_TYPE)
    else:
        raise _Unchanged
    if change is not None:
        result = change.change(target, arguments)
    else:
        assert remover is not None
        positions, result = selection.answer(target, remover, arguments)
        _remove(target, set(positions))
    return target.pack(), result


def _made(code: int, flags_at: int, arguments: Arguments) -> Container:
    flags = integer(arguments[flags_at]) if len(arguments) > flags_at else 0
    if code < _FIRST_OF_MAPS:
        return List([], flags & ORDERED)
    return Map({}, maps.map_flags(flags))


def _remove(target: Container, positions: set[int]) -> None:
    if isinstance(target, List):
        target.items = [item for position, item in enumerate(target.items) if position not in positions]
    else:
        kept = (item for position, item in enumerate(target.items.items()) if position not in positions)
        target.items = dict(kept)


def _target(code: int, element: bytes, particle: int | None) -> Container:
    """The list or map that an operation of this code is for. Raises Refused where there is something else."""
    wants_list = code < _FIRST_OF_MAPS
    if particle is not None:
        fits = particle == (Particle.LIST if wants_list else Particle.MAP)
    else:
        fits = is_list(element) if wants_list else is_map(element)
    if not fits:
        raise Refused(ResultCode.BIN_TYPE)
    return unpack_list(element) if wants_list else unpack_map(element)


def _container(packed: bytes) -> Container:
    if is_list(packed):
        return unpack_list(packed)
    if is_map(packed):
        return unpack_map(packed)
    raise Refused(ResultCode.OP_NOT_APPLICABLE)


def _position(container: Container, step: Step) -> int:
    """The index of the element that a step leads to. Raises Refused where there is none."""
    position = _found(container, step)
    if position is None:
        raise Refused(ResultCode.OP_NOT_APPLICABLE)
    return position


def _found(container: Container, step: Step) -> int | None:
    flags, argument = step
    if flags & (_OF_MAP if isinstance(container, List) else _OF_LIST):
        raise Refused(ResultCode.OP_NOT_APPLICABLE)
    match flags & _KIND:
        case 0 | 1 as kind:
            index, size = integer(argument), len(container.items)
            if not -size <= index < size:
                return None
            return index % size if kind == _INDEX else selection.ranking(container)[index % size]
        case 2 if isinstance(container, Map):
            key = maps.find(container, argument)
            return None if key is None else list(container.items).index(key)
        case 3:
            return next(iter(selection.BY_VALUE.select(container, [argument])), None)
    raise Refused(ResultCode.OP_NOT_APPLICABLE)


def _descend(element: bytes | None, steps: list[Step], leaf: Leaf, *, is_new: bool = False) -> bytes | None:
    """Follow the steps into an element and change what is at their end. Returns the element as it is then.

    Inside of what is new, further steps create what they lead into unasked.
    """
    if not steps:
        return leaf(element)
    step, *further = steps
    creates = is_new or bool(step[0] & _CREATE)
    container = _created(step) if element is None else _container(element)
    position = _found(container, step)
    if position is not None:
        changed = _descend(container.values[position], further, leaf)
    elif creates:
        changed = _descend(None, further, leaf, is_new=True)
    else:
        raise Refused(ResultCode.OP_NOT_APPLICABLE)
    assert changed is not None
    _put(container, step, position, changed)
    return container.pack()


def _created(step: Step) -> Container:
    """The empty list or map that a step creates to lead into. Raises Refused."""
    flags = step[0]
    match flags & (_KIND | _OF_LIST | _OF_MAP):
        case 0x10:
            return List([], _LIST_FLAGS.get(flags & _CREATE, 0))
        case 0x22:
            return Map({}, _MAP_FLAGS.get(flags & _CREATE, 0))
    raise Refused(ResultCode.OP_NOT_APPLICABLE)


def _put(container: Container, step: Step, position: int | None, changed: bytes) -> None:
    """Put a changed element back to where it was, or a new one to where the step leads."""
    if isinstance(container, Map):
        key = step[1] if position is None else list(container.items)[position]
        container.items[key] = changed
        container.items = sorted_items(container.items)
        return
    if position is not None:
        container.items[position] = changed
    else:
        index, size = integer(step[1]), len(container.items)
        is_padded = step[0] & _CREATE == _UNBOUNDED and not container.flags & ORDERED
        if index < 0 and not (index == -1 and not size):
            raise Refused(ResultCode.OP_NOT_APPLICABLE)
        if (index > size and not is_padded and not container.flags & ORDERED) or index > lists.MAX_ITEMS:
            raise Refused(ResultCode.OP_NOT_APPLICABLE)
        container.items += [*[NIL] * (index - size if is_padded else 0), changed]
    if container.flags & ORDERED:
        container.items.sort(key=order_key)
