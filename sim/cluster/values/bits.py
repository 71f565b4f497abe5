"""Operations on the bits of a blob: a table from operation code to function. Pure.

A blob is a number of 8 bits for each of its bytes, the first bit the highest; an operation works on a window of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from geotrain.wire.codes import Particle, ProtocolError, ResultCode
from geotrain.wire.packing import unpack_raw, untype
from sim.cluster.values.changes import Result, integer_result
from sim.cluster.values.elements import wrap
from sim.cluster.values.refused import Refused

CREATE_ONLY, UPDATE_ONLY, NO_FAIL, PARTIAL = 1, 2, 4, 8
FROM_FRONT, GROW_ONLY, SHRINK_ONLY = 1, 2, 4
SIGNED, SATURATE, WRAP = 1, 2, 4
MAX_BYTES = 8 << 20  # of any record
_MAX_INTEGER_BITS = 64


class Window(NamedTuple):
    """Some bits of a blob, as an unsigned number, and how many they are."""

    bits: int
    size: int

    @property
    def mask(self) -> int:
        """All ones."""
        return (1 << self.size) - 1


class Overflow(Exception):
    """A sum that does not fit, and is not to be made to."""


def _set(window: Window, value: int) -> int:
    return value


def _or(window: Window, value: int) -> int:
    return window.bits | value


def _xor(window: Window, value: int) -> int:
    return window.bits ^ value


def _and(window: Window, value: int) -> int:
    return window.bits & value


def _not(window: Window) -> int:
    return ~window.bits


def _left(window: Window, shift: int) -> int:
    return window.bits << shift if shift < window.size else 0


def _right(window: Window, shift: int) -> int:
    return window.bits >> shift


def _add(window: Window, value: int, flags: int = 0) -> int:
    return _sum(window, value & window.mask, flags, sign=1)


def _subtract(window: Window, value: int, flags: int = 0) -> int:
    return _sum(window, value & window.mask, flags, sign=-1)


def _sum(window: Window, value: int, flags: int, *, sign: int) -> int:
    low, high = 0, window.mask
    bits = window.bits
    if flags & SIGNED:
        low, high = -(high + 1) // 2, high // 2
        bits, value = signed(bits, window.size), signed(value, window.size)
    total = bits + sign * value
    if low <= total <= high or flags & WRAP:
        return total
    if flags & SATURATE:
        return low if total < low else high
    raise Overflow


def signed(bits: int, size: int) -> int:
    """The signed number in `size` bits."""
    return bits - (1 << size) if bits >> (size - 1) else bits


class Modification(NamedTuple):
    """An operation that overwrites a window. Its arguments are offset, size, perhaps a value, and flags."""

    change: Callable[..., int]
    value: str = ""
    """What its value is: bits (a blob), number or nothing."""
    is_integer: bool = False
    """Whether the window holds an integer, and so is not cut short by the end of the blob."""
    has_number_flags: bool = False


_MODIFICATIONS: dict[int, Modification] = {
    3: Modification(_set, "bits"),
    4: Modification(_or, "bits"),
    5: Modification(_xor, "bits"),
    6: Modification(_and, "bits"),
    7: Modification(_not),
    8: Modification(_left, "number"),
    9: Modification(_right, "number"),
    10: Modification(_add, "number", is_integer=True, has_number_flags=True),
    11: Modification(_subtract, "number", is_integer=True, has_number_flags=True),
    12: Modification(_set, "number", is_integer=True),
}


def _get(window: Window) -> Result:
    num_bytes = -(-window.size // 8)
    return Particle.BLOB, (window.bits << (num_bytes * 8 - window.size)).to_bytes(num_bytes, "big")


def _count(window: Window) -> Result:
    return integer_result(window.bits.bit_count())


def _scan_left(window: Window, value: bool) -> Result:
    bits = window.bits if value else window.bits ^ window.mask
    return integer_result(window.size - bits.bit_length() if bits else -1)


def _scan_right(window: Window, value: bool) -> Result:
    bits = window.bits if value else window.bits ^ window.mask
    return integer_result(window.size - (bits & -bits).bit_length() if bits else -1)


def _get_integer(window: Window, flags: int = 0) -> Result:
    if window.size > _MAX_INTEGER_BITS or flags & ~SIGNED:
        raise Refused(ResultCode.PARAMETER)
    return integer_result(signed(window.bits, window.size) if flags & SIGNED else wrap(window.bits))


_READS: dict[int, tuple[Callable[..., Result], tuple[type, ...], int]] = {
    50: (_get, (), 0),
    51: (_count, (), 0),
    52: (_scan_left, (bool,), 1),
    53: (_scan_right, (bool,), 1),
    54: (_get_integer, (int,), 0),
}
"""How bits are read, by operation code: the function, the types of its arguments, how many must be there."""


def read(blob: bytes, packed: bytes) -> Result:
    """Perform a reading operation. Raises Refused."""
    code, *arguments = _unpacked(packed)
    if code not in _READS:
        raise Refused(ResultCode.PARAMETER)
    function, types, num_needed = _READS[code]
    offset, size, *rest = _typed(arguments, (int, int, *types), 2 + num_needed)
    if size <= 0:
        raise Refused(ResultCode.PARAMETER)
    start = _start(blob, offset)
    if start + size > 8 * len(blob):
        raise Refused(ResultCode.OP_NOT_APPLICABLE)
    return function(_window(blob, start, size), *rest)


def modify(blob: bytes | None, packed: bytes) -> bytes | None:
    """The blob after a changing operation; None is no blob, before and after. Raises Refused."""
    code, *arguments = _unpacked(packed)
    if code in _WHOLE:
        changed = _WHOLE[code](blob, arguments)
    elif code in _MODIFICATIONS:
        changed = _overwrite(_MODIFICATIONS[code], blob, arguments)
    else:
        raise Refused(ResultCode.PARAMETER)
    if changed is not None and len(changed) > MAX_BYTES:
        raise Refused(ResultCode.TOO_BIG)
    return changed


def _unpacked(packed: bytes) -> list[Any]:
    try:
        parts = unpack_raw(packed)
    except ProtocolError:
        raise Refused(ResultCode.PARAMETER) from None
    if not isinstance(parts, list) or not parts or type(parts[0]) is not int:
        raise Refused(ResultCode.PARAMETER)
    return parts


def _typed(arguments: list[Any], types: tuple[type, ...], num_needed: int) -> list[Any]:
    """The arguments, if they are of these types. Raises Refused."""
    if not num_needed <= len(arguments) <= len(types):
        raise Refused(ResultCode.PARAMETER)
    if any(type(argument) is not kind for argument, kind in zip(arguments, types, strict=False)):
        raise Refused(ResultCode.PARAMETER)
    return arguments


def _start(blob: bytes, offset: int) -> int:
    """An offset in bits, counted from the end if negative. Raises Refused."""
    start = offset + 8 * len(blob) if offset < 0 else offset
    if start < 0:
        raise Refused(ResultCode.PARAMETER)
    return start


def _window(blob: bytes, start: int, size: int) -> Window:
    number = int.from_bytes(blob, "big") >> (8 * len(blob) - start - size)
    return Window(number & (1 << size) - 1, size)


def _fails(flags: int, code: ResultCode, blob: bytes | None) -> bytes | None:
    """The blob unchanged, if the policy is not to fail. Raises Refused."""
    if flags & NO_FAIL:
        return blob
    raise Refused(code)


def _checked(blob: bytes | None, flags: int, *, may_create: bool) -> ResultCode | None:
    """Why the policy flags forbid an operation, if they do."""
    if blob is not None and flags & CREATE_ONLY:
        return ResultCode.BIN_EXISTS
    if blob is None and (flags & UPDATE_ONLY or not may_create):
        return ResultCode.BIN_NOT_FOUND
    return None


def _resize(blob: bytes | None, arguments: list[Any]) -> bytes | None:
    size, flags, how = [*_typed(arguments, (int, int, int), 1), 0, 0][:3]
    if size < 0 or size > MAX_BYTES:
        raise Refused(ResultCode.PARAMETER)
    if refusal := _checked(blob, flags, may_create=True):
        return _fails(flags, refusal, blob)
    present = blob or b""
    missing = size - len(present)
    if (missing < 0 and how & GROW_ONLY) or (missing > 0 and how & SHRINK_ONLY):
        return _fails(flags, ResultCode.PARAMETER, blob)
    if how & FROM_FRONT:
        return bytes(missing) + present if missing >= 0 else present[-missing:]
    return present + bytes(missing) if missing >= 0 else present[:size]


def _insert(blob: bytes | None, arguments: list[Any]) -> bytes | None:
    offset, packed, flags = [*_typed(arguments, (int, bytes, int), 2), 0][:3]
    value = _blob(packed)
    if refusal := _checked(blob, flags, may_create=True):
        return _fails(flags, refusal, blob)
    present = blob or b""
    start = _start(present, 8 * offset) // 8
    if start > MAX_BYTES:
        raise Refused(ResultCode.TOO_BIG)
    return present[:start].ljust(start, b"\0") + value + present[start:]


def _remove(blob: bytes | None, arguments: list[Any]) -> bytes | None:
    offset, size, flags = [*_typed(arguments, (int, int, int), 2), 0][:3]
    if size <= 0:
        raise Refused(ResultCode.PARAMETER)
    if refusal := _checked(blob, flags, may_create=False):
        return _fails(flags, refusal, blob)
    assert blob is not None
    start = _start(blob, 8 * offset) // 8
    if start >= len(blob) or (start + size > len(blob) and not flags & PARTIAL):
        return _fails(flags, ResultCode.PARAMETER, blob)
    return blob[:start] + blob[start + size :]


def _blob(packed: bytes) -> bytes:
    try:
        value = untype(packed)
    except ProtocolError:
        raise Refused(ResultCode.PARAMETER) from None
    if not isinstance(value, bytes) or not value:
        raise Refused(ResultCode.PARAMETER)
    return value


def _overwrite(modification: Modification, blob: bytes | None, arguments: list[Any]) -> bytes | None:
    """Change a window of a blob. Raises Refused."""
    value_types = {"bits": (bytes,), "number": (int,), "": ()}[modification.value]
    flag_types = (int, int) if modification.has_number_flags else (int,)
    _typed(arguments, (int, int, *value_types, *flag_types), 2 + len(value_types))
    (offset, size), values = arguments[:2], arguments[2 : 2 + len(value_types)]
    flags, *number_flags = [*arguments[2 + len(value_types) :], 0, 0][: len(flag_types)]
    if size <= 0 or (modification.is_integer and size > _MAX_INTEGER_BITS):
        raise Refused(ResultCode.PARAMETER)
    if modification.value == "bits":
        values = [_leading_bits(_blob(values[0]), size)]
    elif not modification.is_integer and any(value < 0 for value in values):
        raise Refused(ResultCode.PARAMETER)
    if refusal := _checked(blob, flags, may_create=False):
        return _fails(flags, refusal, blob)
    assert blob is not None
    start, end = _start(blob, offset), 8 * len(blob)
    excess = max(start + size - end, 0)
    if start >= end or (excess and (modification.is_integer or not flags & PARTIAL)):
        return _fails(flags, ResultCode.OP_NOT_APPLICABLE, blob)
    if modification.value == "bits":
        values = [value >> excess for value in values]
    window = _window(blob, start, size - excess)
    try:
        changed = modification.change(window, *values, *number_flags) & window.mask
    except Overflow:
        return _fails(flags, ResultCode.OP_NOT_APPLICABLE, blob)
    number = int.from_bytes(blob, "big") ^ (window.bits ^ changed) << (end - start - window.size)
    return number.to_bytes(len(blob), "big")


def _leading_bits(value: bytes, size: int) -> int:
    if 8 * len(value) < size:
        raise Refused(ResultCode.PARAMETER)
    return int.from_bytes(value, "big") >> (8 * len(value) - size)


_WHOLE: dict[int, Callable[[bytes | None, list[Any]], bytes | None]] = {0: _resize, 1: _insert, 2: _remove}
"""Operations that change the size of a blob."""
