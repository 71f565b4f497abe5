"""Expressions that call operations: on lists, maps and bits, and regular expressions. Pure."""

import ctypes
import math
import re
import weakref
from collections.abc import Callable
from typing import Any

from geotrain.wire.codes import Particle, ResultCode
from geotrain.wire.packing import unpack_raw
from sim.cluster.expression.expression_values import (
    ANY,
    BLOB,
    BOOL,
    LIST,
    MAP,
    NIL,
    STR,
    TYPES,
    UNKNOWN,
    Node,
    Packed,
    Subject,
    constant,
    decoded,
    element,
    encoded,
    value_in,
)
from sim.cluster.values import bits, nested
from sim.cluster.values.changes import Result
from sim.cluster.values.elements import List, integer, is_list, order_key, split, unpack_list, unpack_map
from sim.cluster.values.refused import Refused

Compile = Callable[[bytes], Node]
"""Compiles an expression among the arguments of another."""

_ON_LISTS_AND_MAPS, _ON_BITS, _ON_SKETCHES = range(3)
_CHANGES = 0x40  # a flag of the system: the value of the expression is what the operation makes of its bin


def call(arguments: list[bytes], compiled: Compile) -> Node:
    """An operation on a bin, or on the value of an expression. Raises Refused or ProtocolError."""
    kind, system = integer(arguments[0]), integer(arguments[1])
    _, _, packed, subject = arguments
    steps, (code, *parts) = [], split(packed)
    if integer(code) == nested.CONTEXT:
        context, operation = parts
        steps, (code, *parts) = nested.path_of(context), split(operation)
    if system & ~_CHANGES == _ON_SKETCHES or integer(code) in nested.BY_PATH:
        raise Refused(ResultCode.UNSUPPORTED)
    parameters = [compiled(part) if is_list(part) else part for part in parts]
    target = compiled(subject)
    if target.type not in _SUBJECTS[system & ~_CHANGES] or kind not in TYPES.values():
        raise Refused(ResultCode.PARAMETER)
    perform = _PERFORM[system]

    def evaluate(record: Subject, now_ms: int) -> Any:
        values = [_evaluated(parameter, record, now_ms) for parameter in parameters]
        bin_value = target.evaluate(record, now_ms)
        if bin_value is UNKNOWN or any(value is UNKNOWN for value in values):
            return UNKNOWN
        try:
            particle, data = perform(*encoded(bin_value), steps, code, values)
        except Refused:
            return UNKNOWN
        return decoded(particle, data) if TYPES.get(particle) == kind else UNKNOWN

    return Node(kind, evaluate)


def _evaluated(parameter: Node | bytes, record: Subject, now_ms: int) -> Any:
    if isinstance(parameter, bytes):
        return parameter
    value = parameter.evaluate(record, now_ms)
    return UNKNOWN if value is UNKNOWN else element(value)


def _read(particle: int, data: bytes, steps: list[nested.Step], code: bytes, arguments: list[bytes]) -> Result:
    return nested.read_parts(particle, data, steps, integer(code), arguments)


def _change(particle: int, data: bytes, steps: list[nested.Step], code: bytes, arguments: list[bytes]) -> Result:
    return nested.modify_parts(particle, data, steps, integer(code), arguments)[0]


def _read_bits(particle: int, data: bytes, steps: list[nested.Step], code: bytes, arguments: list[bytes]) -> Result:
    return bits.read(data, List([code, *arguments]).pack())


def _change_bits(particle: int, data: bytes, steps: list[nested.Step], code: bytes, arguments: list[bytes]) -> Result:
    changed = bits.modify(None if particle == Particle.NIL else data, List([code, *arguments]).pack())
    return (Particle.NIL, b"") if changed is None else (Particle.BLOB, changed)


_SUBJECTS = {_ON_LISTS_AND_MAPS: (LIST, MAP, NIL, ANY), _ON_BITS: (BLOB, NIL, ANY)}
_PERFORM = {
    _ON_LISTS_AND_MAPS: _read,
    _ON_LISTS_AND_MAPS | _CHANGES: _change,
    _ON_BITS: _read_bits,
    _ON_BITS | _CHANGES: _change_bits,
}


def in_list(arguments: list[bytes], compiled: Compile) -> Node:
    """Whether a value is among the elements of a list."""
    wanted, target = map(compiled, arguments)
    if target.type not in (LIST, ANY):
        raise Refused(ResultCode.PARAMETER)

    def evaluate(record: Subject, now_ms: int) -> Any:
        value, items = wanted.evaluate(record, now_ms), target.evaluate(record, now_ms)
        if value is UNKNOWN or items is UNKNOWN:
            return UNKNOWN
        key = order_key(element(value))
        return any(order_key(item) == key for item in unpack_list(items.data).items)

    return Node(BOOL, evaluate)


def map_keys(arguments: list[bytes], compiled: Compile) -> Node:
    """The keys of a map, as a list."""
    return _parts_of_map(arguments, compiled, lambda packed: list(unpack_map(packed).items))


def map_values(arguments: list[bytes], compiled: Compile) -> Node:
    """The values of a map in the order of their keys, as a list."""
    return _parts_of_map(arguments, compiled, lambda packed: unpack_map(packed).values)


def _parts_of_map(arguments: list[bytes], compiled: Compile, parts: Callable[[bytes], list[bytes]]) -> Node:
    (target,) = map(compiled, arguments)
    if target.type not in (MAP, ANY):
        raise Refused(ResultCode.PARAMETER)

    def evaluate(record: Subject, now_ms: int) -> Any:
        value = target.evaluate(record, now_ms)
        return UNKNOWN if value is UNKNOWN else Packed(Particle.LIST, List(parts(value.data)).pack())

    return Node(LIST, evaluate)


def quote(arguments: list[bytes], compiled: Compile) -> Node:
    """A list that is meant as it is, and not as an expression."""
    (packed,) = arguments
    kind, value = value_in(packed)
    if kind != LIST:
        raise Refused(ResultCode.PARAMETER)
    return constant(LIST, value)


def matches_regex(arguments: list[bytes], compiled: Compile) -> Node:
    """Whether a string matches a POSIX regular expression."""
    flags, pattern, subject = integer(arguments[0]), unpack_raw(arguments[1]), compiled(arguments[2])
    if subject.type not in (STR, ANY) or not isinstance(pattern, bytes):
        raise Refused(ResultCode.PARAMETER)
    if not _is_modest(pattern):
        raise Refused(ResultCode.PARAMETER)
    regex = regex_of(pattern, flags)

    def evaluate(record: Subject, now_ms: int) -> Any:
        value = subject.evaluate(record, now_ms)
        text = b"" if value is UNKNOWN else value.encode(errors="surrogateescape")
        return UNKNOWN if value is UNKNOWN or len(text) > _MAX_TEXT_BYTES else regex.matches(text)

    return Node(BOOL, evaluate)


_C = ctypes.CDLL(None)  # a server matches with its C library, and so does this
_EXTENDED = 1  # REG_EXTENDED
_REGEX_BYTES = 256  # no library's compiled expression is as large
_MAX_PATTERN_BYTES = 1024
_MAX_TEXT_BYTES = 4096  # the worst pattern takes some 0.4 s and 60 MB for that many
_MAX_GROUPS = 100  # the library calls itself for each that is in another, until its stack is full
_MAX_COPIES = 255  # as many as POSIX asks for
_MAX_EXPANDED_BYTES = 64 * 1024  # each becomes some 300 bytes of the compiled expression
_REPEATS = re.compile(rb"\{(\d*)(,?)(\d*)|(?<=[)}+*?])\\?\+")
"""What makes the library copy the part before it: bounds, and `+` where that part is more than a character."""

_REFERENCE = re.compile(rb"(?<!\\)(?:\\\\)*\\[1-9]")
"""What makes the library try one way after the other: that a group comes again. Without it, it tries all at once."""


def _is_modest(pattern: bytes) -> bool:
    """Whether a pattern is compiled with little memory and stack, and matched in little time."""
    if _REFERENCE.search(pattern):
        return False
    if len(pattern) > _MAX_PATTERN_BYTES or pattern.count(b"(") > _MAX_GROUPS:
        return False
    num_copies = _num_copies(pattern)
    return num_copies <= _MAX_COPIES and num_copies * len(pattern) <= _MAX_EXPANDED_BYTES


def _num_copies(pattern: bytes) -> int:
    """How often the library may copy a part of the pattern, if all its repeats are nested; never too few."""
    return math.prod(map(_num_copies_by, _REPEATS.finditer(pattern)))


def _num_copies_by(repeat: re.Match[bytes]) -> int:
    if repeat[0].endswith(b"+"):
        return 2
    low, comma, high = repeat.groups()
    return max(1, int(low or 0) + bool(comma and not high), int(high or 0))


class _Regex:
    """A compiled regular expression. Raises Refused for one that is none."""

    def __init__(self, pattern: bytes, flags: int) -> None:
        self._compiled = ctypes.create_string_buffer(_REGEX_BYTES)
        if _C.regcomp(self._compiled, ctypes.c_char_p(pattern), ctypes.c_int(flags & 0xF)) != 0:
            raise Refused(ResultCode.PARAMETER)
        weakref.finalize(self, _C.regfree, self._compiled)

    def matches(self, text: bytes) -> bool:
        """Whether it is found in the text."""
        return bool(_C.regexec(self._compiled, ctypes.c_char_p(text), 0, None, 0) == 0)


class _Anywhere:
    """An expression that is found where a pattern is, anywhere in a text. Raises Refused.

    It begins with all that may go before it, so that the library does not begin anew at every byte of a text. But in
    the middle of a pattern the library takes ^ for the beginning of a line, too, whatever the flags say.
    """

    def __init__(self, pattern: bytes, flags: int) -> None:
        opening, closing = (b"(", b")") if flags & _EXTENDED else (rb"\(", rb"\)")
        self._plain = _Regex(pattern, flags)
        if _is_regex(opening + pattern, flags):  # a parenthesis in it that closes nothing would close ours
            raise Refused(ResultCode.PARAMETER)
        self._begun = _Regex(b"^.*" + opening + pattern + closing, flags)
        self._has_ends = b"^" in pattern or b"$" in pattern

    def matches(self, text: bytes) -> bool:
        """Whether it is found in the text."""
        return (self._plain if self._has_ends and b"\n" in text else self._begun).matches(text)


def regex_of(pattern: bytes, flags: int) -> _Anywhere:
    """What finds a pattern. Raises Refused."""
    return _Anywhere(pattern.partition(b"\0")[0], flags)  # where it ends in C


def _is_regex(pattern: bytes, flags: int) -> bool:
    try:
        _Regex(pattern, flags)
    except Refused:
        return False
    return True
