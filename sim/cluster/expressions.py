"""Filter expressions: from their bytes to a function of a record. Pure. What can't be known filters out."""

import math
import operator
from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Any, NamedTuple

from geotrain.wire.codes import Particle, ProtocolError, ResultCode
from geotrain.wire.messages import OP_OVERHEAD
from geotrain.wire.packing import unpack_raw, untype
from geotrain.wire.particles import decode_value
from sim.cluster.operations import Refused
from sim.cluster.records import Record

Filter = Callable[[Record, int], bool]
"""Whether a record passes, at a time in milliseconds."""

NIL, BOOL, INT, STR, LIST, MAP, BLOB, FLOAT = range(8)
ANY = -1
UNKNOWN = object()
"""The value of a bin that is missing or of another type, and of everything made of it."""

_PARTICLES = {
    BOOL: Particle.BOOL,
    INT: Particle.INTEGER,
    STR: Particle.STRING,
    BLOB: Particle.BLOB,
    FLOAT: Particle.FLOAT,
}
_NS_PER_MS = 1_000_000
_NEVER = -1

Evaluate = Callable[[Record, int], Any]


class Node(NamedTuple):
    """A compiled expression: the type of its value, and how to find it in a record at a time."""

    type: int
    evaluate: Evaluate


Arguments = list[Any]
Variables = dict[bytes, Node]
Build = Callable[[Arguments, Variables], Node]


@lru_cache(maxsize=256)
def filter_of(data: bytes) -> Filter:
    """The filter that a field or row carries. Raises Refused for one that can't be built."""
    try:
        node = _compile(unpack_raw(data), {})
    except (ProtocolError, TypeError, ValueError, IndexError, KeyError, RecursionError):
        raise Refused(ResultCode.PARAMETER) from None
    evaluate = node.evaluate
    if node.type not in (BOOL, ANY):
        raise Refused(ResultCode.PARAMETER)
    return lambda record, now_ms: evaluate(record, now_ms) is True


def _compile(packed: Any, variables: Variables) -> Node:
    match packed:
        case [int(code), *arguments]:
            if code not in _BUILDERS:
                raise Refused(ResultCode.UNSUPPORTED)
            return _BUILDERS[code](arguments, variables)
        case None:
            return _constant(NIL, None)
        case bool():
            return _constant(BOOL, packed)
        case int():
            return _constant(INT, packed)
        case float():
            return _constant(FLOAT, packed)
        case bytes():
            value = untype(packed)
            return _constant(STR if isinstance(value, str) else BLOB, value)
    raise Refused(ResultCode.PARAMETER)


def _constant(kind: int, value: Any) -> Node:
    return Node(kind, lambda record, now_ms: value)


def _unknown(arguments: Arguments, variables: Variables) -> Node:
    return _constant(ANY, UNKNOWN)


def _compare(compare: Callable[[Any, Any], bool]) -> Build:
    def build(arguments: Arguments, variables: Variables) -> Node:
        (left_type, left), (right_type, right) = (_compile(argument, variables) for argument in arguments)
        if ANY not in (left_type, right_type) and left_type != right_type:
            raise Refused(ResultCode.PARAMETER)

        def evaluate(record: Record, now_ms: int) -> Any:
            a, b = left(record, now_ms), right(record, now_ms)
            return UNKNOWN if a is UNKNOWN or b is UNKNOWN else compare(a, b)

        return Node(BOOL, evaluate)

    return build


def _operands(arguments: Arguments, variables: Variables, *types: int) -> tuple[int, list[Evaluate]]:
    """Compile operands of one type, which must be among `types`."""
    nodes = [_compile(argument, variables) for argument in arguments]
    found = {node.type for node in nodes} - {ANY}
    if not nodes or len(found) > 1 or not found <= set(types):
        raise Refused(ResultCode.PARAMETER)
    return found.pop() if found else types[0], [node.evaluate for node in nodes]


def _and(arguments: Arguments, variables: Variables) -> Node:
    return _until(arguments, variables, decisive=False)


def _or(arguments: Arguments, variables: Variables) -> Node:
    return _until(arguments, variables, decisive=True)


def _until(arguments: Arguments, variables: Variables, *, decisive: bool) -> Node:
    """Three-valued AND and OR: one decisive value decides; else one unknown makes the whole unknown."""
    _, terms = _operands(arguments, variables, BOOL)

    def evaluate(record: Record, now_ms: int) -> Any:
        result: Any = not decisive
        for term in terms:
            value = term(record, now_ms)
            if value is decisive:
                return decisive
            if value is UNKNOWN:
                result = UNKNOWN
        return result

    return Node(BOOL, evaluate)


def _calculate(function: Callable[..., Any], types: tuple[int, ...], result: int | None = None) -> Build:
    """A function of operands of one type; its value is unknown where an operand is, or where it has none."""

    def build(arguments: Arguments, variables: Variables) -> Node:
        kind, terms = _operands(arguments, variables, *types)

        def evaluate(record: Record, now_ms: int) -> Any:
            values = [term(record, now_ms) for term in terms]
            if any(value is UNKNOWN for value in values):
                return UNKNOWN
            try:
                value = function(*values)
            except (ArithmeticError, ValueError):
                return UNKNOWN
            return _wrap(value) if type(value) is int else value

        return Node(kind if result is None else result, evaluate)

    return build


def _wrap(value: int) -> int:
    """Integers of a server have 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _subtract(first: Any, *others: Any) -> Any:
    return first - sum(others) if others else -first


def _divide(first: Any, *others: Any) -> Any:
    divisor = math.prod(others) if others else first
    dividend = first if others else 1
    if isinstance(dividend, float):
        return dividend / divisor
    return _quotient(dividend, divisor)


def _quotient(dividend: int, divisor: int) -> int:
    """Integer division rounds toward zero, as in C."""
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


def _modulo(dividend: int, divisor: int) -> int:
    return dividend - divisor * _quotient(dividend, divisor)


def _exclusive(*values: bool) -> bool:
    return sum(values) == 1


def _metadata(kind: int, evaluate: Evaluate) -> Build:
    return lambda arguments, variables: Node(kind, evaluate)


def _digest_modulo(arguments: Arguments, variables: Variables) -> Node:
    (divisor,) = arguments
    if divisor <= 0:
        raise Refused(ResultCode.PARAMETER)
    return Node(INT, lambda record, now_ms: int.from_bytes(record.digest[16:], "little") % divisor)


def _key(arguments: Arguments, variables: Variables) -> Node:
    (kind,) = arguments
    particle = _PARTICLES[kind]

    def evaluate(record: Record, now_ms: int) -> Any:
        key = record.key
        return decode_value(particle, key[1:]) if key[:1] == bytes([particle]) else UNKNOWN

    return Node(kind, evaluate)


def _bin(arguments: Arguments, variables: Variables) -> Node:
    kind, name = arguments
    if kind not in _PARTICLES:
        raise Refused(ResultCode.UNSUPPORTED)
    particle = _PARTICLES[kind]
    value_at = OP_OVERHEAD + len(name)

    def evaluate(record: Record, now_ms: int) -> Any:
        op = record.bin(name)
        return UNKNOWN if op is None or op[5] != particle else decode_value(particle, op[value_at:])

    return Node(kind, evaluate)


def _bin_type(arguments: Arguments, variables: Variables) -> Node:
    (name,) = arguments

    def evaluate(record: Record, now_ms: int) -> Any:
        op = record.bin(name)
        return int(Particle.NIL) if op is None else op[5]

    return Node(INT, evaluate)


def _condition(arguments: Arguments, variables: Variables) -> Node:
    *pairs, default = (_compile(argument, variables) for argument in arguments)
    tests, actions = pairs[::2], [*pairs[1::2], default]
    types = {action.type for action in actions} - {ANY}
    if len(tests) != len(actions) - 1 or len(types) > 1 or any(test.type not in (BOOL, ANY) for test in tests):
        raise Refused(ResultCode.PARAMETER)

    def evaluate(record: Record, now_ms: int) -> Any:
        for test, action in zip(tests, actions, strict=False):
            value = test.evaluate(record, now_ms)
            if value is not False:
                return UNKNOWN if value is UNKNOWN else action.evaluate(record, now_ms)
        return default.evaluate(record, now_ms)

    return Node(types.pop() if types else ANY, evaluate)


def _let(arguments: Arguments, variables: Variables) -> Node:
    *definitions, body = arguments
    scope = dict(variables)
    for name, packed in zip(definitions[::2], definitions[1::2], strict=True):
        scope[name] = _compile(packed, scope)
    return _compile(body, scope)


def _variable(arguments: Arguments, variables: Variables) -> Node:
    (name,) = arguments
    return variables[name]


_NUMBERS = (INT, FLOAT)
_BUILDERS: dict[int, Build] = {
    0: _unknown,
    1: _compare(operator.eq),
    2: _compare(operator.ne),
    3: _compare(operator.gt),
    4: _compare(operator.ge),
    5: _compare(operator.lt),
    6: _compare(operator.le),
    16: _and,
    17: _or,
    18: _calculate(operator.not_, (BOOL,)),
    19: _calculate(_exclusive, (BOOL,)),
    20: _calculate(lambda *values: sum(values), _NUMBERS),
    21: _calculate(_subtract, _NUMBERS),
    22: _calculate(lambda *values: math.prod(values), _NUMBERS),
    23: _calculate(_divide, _NUMBERS),
    24: _calculate(math.pow, (FLOAT,)),
    25: _calculate(math.log, (FLOAT,)),
    26: _calculate(_modulo, (INT,)),
    27: _calculate(abs, _NUMBERS),
    28: _calculate(lambda value: float(math.floor(value)), (FLOAT,)),
    29: _calculate(lambda value: float(math.ceil(value)), (FLOAT,)),
    30: _calculate(int, (FLOAT,), INT),
    31: _calculate(float, (INT,), FLOAT),
    32: _calculate(lambda *values: reduce(operator.and_, values), (INT,)),
    33: _calculate(lambda *values: reduce(operator.or_, values), (INT,)),
    34: _calculate(lambda *values: reduce(operator.xor, values), (INT,)),
    35: _calculate(operator.invert, (INT,)),
    50: _calculate(lambda *values: min(values), _NUMBERS),
    51: _calculate(lambda *values: max(values), _NUMBERS),
    64: _digest_modulo,
    65: _metadata(INT, lambda record, now_ms: len(record.row)),
    66: _metadata(INT, lambda record, now_ms: record.last_update_ms * _NS_PER_MS),
    67: _metadata(INT, lambda record, now_ms: now_ms - record.last_update_ms),
    68: _metadata(INT, lambda record, now_ms: _NEVER),
    69: _metadata(INT, lambda record, now_ms: _NEVER),
    70: _metadata(STR, lambda record, now_ms: record.set_name.decode()),
    71: _metadata(BOOL, lambda record, now_ms: bool(record.key)),
    72: _metadata(BOOL, lambda record, now_ms: False),
    73: _metadata(INT, lambda record, now_ms: len(record.row)),
    74: _metadata(INT, lambda record, now_ms: len(record.row)),
    80: _key,
    81: _bin,
    82: _bin_type,
    123: _condition,
    124: _variable,
    125: _let,
}
"""How each expression is compiled, by its code."""
