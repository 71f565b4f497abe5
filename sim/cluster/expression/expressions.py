"""Expressions: from their bytes to a function of a record. Pure. What can't be known filters out."""

import math
import operator
import struct
from collections.abc import Callable
from functools import lru_cache, reduce, wraps
from typing import Any, TypeVar

from geotrain.wire.codes import Particle, ProtocolError, ResultCode
from sim.cluster.expression import expression_calls
from sim.cluster.expression import expression_numbers as numbers
from sim.cluster.expression.expression_records import OF_RECORDS, Arguments
from sim.cluster.expression.expression_values import (
    ANY,
    BOOL,
    FLOAT,
    INT,
    PARTICLES,
    UNKNOWN,
    Evaluate,
    Node,
    Packed,
    Subject,
    constant,
    name_in,
    value_in,
)
from sim.cluster.values.elements import has_unordered_map, integer, order_key, split, wrap
from sim.cluster.values.refused import Refused

Filter = Callable[[Subject, int], bool]
"""Whether a record passes, at a time in milliseconds."""

Variables = dict[bytes, Node]
Build = Callable[[Arguments, Variables], Node]


_MAX_CACHED_BYTES = 64 * 1024
_Compiled = TypeVar("_Compiled")


def _cached(compile_: Callable[[bytes], _Compiled]) -> Callable[[bytes], _Compiled]:
    """Keep what was compiled last, but nothing that takes much memory."""
    cached = lru_cache(maxsize=256)(compile_)

    @wraps(compile_)
    def cached_if_small(data: bytes) -> _Compiled:
        return cached(data) if len(data) <= _MAX_CACHED_BYTES else compile_(data)

    return cached_if_small


@_cached
def filter_of(data: bytes) -> Filter:
    """The filter that a field or row carries. Raises Refused for one that can't be built."""
    node = compiled(data)
    evaluate = node.evaluate
    if node.type not in (BOOL, ANY):
        raise Refused(ResultCode.PARAMETER)
    return lambda record, now_ms: evaluate(record, now_ms) is True


@_cached
def compiled(data: bytes) -> Node:
    """An expression of any type. Raises Refused for one that can't be built."""
    try:
        kind, evaluate = _compile(data, {})
    except (ProtocolError, TypeError, ValueError, IndexError, KeyError, RecursionError):
        raise Refused(ResultCode.PARAMETER) from None

    def safely(record: Subject, now_ms: int) -> Any:
        try:
            return evaluate(record, now_ms)
        except (ProtocolError, RecursionError, struct.error, TypeError):  # a bin is not what its type says
            return UNKNOWN

    return Node(kind, safely)


def _compile(packed: bytes, variables: Variables) -> Node:
    kind, value = value_in(packed)
    if PARTICLES[kind] != Particle.LIST:
        return constant(kind, value)
    code, *arguments = split(packed)
    build = _BUILDERS.get(integer(code))
    if build is None:
        raise Refused(ResultCode.UNSUPPORTED)
    return build(arguments, variables)


def _calls(build: Callable[[Arguments, expression_calls.Compile], Node]) -> Build:
    return lambda arguments, variables: build(arguments, lambda packed: _compile(packed, variables))


def _of_record(build: Callable[[Arguments], Node]) -> Build:
    return lambda arguments, variables: build(arguments)


def _unknown(arguments: Arguments, variables: Variables) -> Node:
    return constant(ANY, UNKNOWN)


def _compare(compare: Callable[[Any, Any], bool]) -> Build:
    def build(arguments: Arguments, variables: Variables) -> Node:
        (left_type, left), (right_type, right) = (_compile(argument, variables) for argument in arguments)
        if ANY not in (left_type, right_type) and left_type != right_type:
            raise Refused(ResultCode.PARAMETER)

        def evaluate(record: Subject, now_ms: int) -> Any:
            a, b = left(record, now_ms), right(record, now_ms)
            if a is UNKNOWN or b is UNKNOWN:
                return UNKNOWN
            if isinstance(a, Packed):
                if has_unordered_map(a.data) or has_unordered_map(b.data):
                    return UNKNOWN
                a, b = order_key(a.data), order_key(b.data)
            elif a is None:
                a = b = 0  # nothing equals nothing
            return compare(a, b)

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

    def evaluate(record: Subject, now_ms: int) -> Any:
        result: Any = not decisive
        for term in terms:
            value = term(record, now_ms)
            if value is decisive:
                return decisive
            if value is UNKNOWN:
                result = UNKNOWN
        return result

    return Node(BOOL, evaluate)


def _calculate(
    function: Callable[..., Any], types: tuple[int, ...], result: int | None = None, *, num_operands: int | None = None
) -> Build:
    """A function of operands of one type; its value is unknown where an operand is, or where it has none."""

    def build(arguments: Arguments, variables: Variables) -> Node:
        kind, terms = _operands(arguments, variables, *types)
        if num_operands not in (None, len(terms)):
            raise Refused(ResultCode.PARAMETER)

        def evaluate(record: Subject, now_ms: int) -> Any:
            values = [term(record, now_ms) for term in terms]
            if any(value is UNKNOWN for value in values):
                return UNKNOWN
            try:
                value = function(*values)
            except (ArithmeticError, ValueError):
                return UNKNOWN
            return wrap(value) if type(value) is int else value

        return Node(kind if result is None else result, evaluate)

    return build


def _scan(function: Callable[[int, bool], int]) -> Build:
    def build(arguments: Arguments, variables: Variables) -> Node:
        number, bit = (_compile(argument, variables) for argument in arguments)
        if number.type not in (INT, ANY) or bit.type not in (BOOL, ANY):
            raise Refused(ResultCode.PARAMETER)

        def evaluate(record: Subject, now_ms: int) -> Any:
            values = number.evaluate(record, now_ms), bit.evaluate(record, now_ms)
            return UNKNOWN if UNKNOWN in values else function(*values)

        return Node(INT, evaluate)

    return build


def _condition(arguments: Arguments, variables: Variables) -> Node:
    *pairs, default = (_compile(argument, variables) for argument in arguments)
    tests, actions = pairs[::2], [*pairs[1::2], default]
    types = {action.type for action in actions} - {ANY}
    if len(tests) != len(actions) - 1 or len(types) > 1 or any(test.type not in (BOOL, ANY) for test in tests):
        raise Refused(ResultCode.PARAMETER)

    def evaluate(record: Subject, now_ms: int) -> Any:
        for test, action in zip(tests, actions, strict=False):
            value = test.evaluate(record, now_ms)
            if value is not False:
                return UNKNOWN if value is UNKNOWN else action.evaluate(record, now_ms)
        return default.evaluate(record, now_ms)

    return Node(types.pop() if types else ANY, evaluate)


def _let(arguments: Arguments, variables: Variables) -> Node:
    *definitions, packed_body = arguments
    scope = dict(variables)
    values: list[Any] = []  # of the variables, while the body is evaluated
    terms = []
    for packed_name, packed in zip(definitions[::2], definitions[1::2], strict=True):
        name = name_in(packed_name)
        if name in scope:
            raise Refused(ResultCode.PARAMETER)
        node = _compile(packed, scope)
        terms.append(node.evaluate)
        scope[name] = Node(node.type, _from(values, len(terms) - 1))
    body = _compile(packed_body, scope)

    def evaluate(record: Subject, now_ms: int) -> Any:
        values.clear()
        for term in terms:
            values.append(term(record, now_ms))
        return body.evaluate(record, now_ms)

    return Node(body.type, evaluate)


def _from(values: list[Any], position: int) -> Evaluate:
    return lambda record, now_ms: values[position]


def _variable(arguments: Arguments, variables: Variables) -> Node:
    (name,) = map(name_in, arguments)
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
    7: _calls(expression_calls.matches_regex),
    9: _calls(expression_calls.in_list),
    16: _and,
    17: _or,
    18: _calculate(operator.not_, (BOOL,), num_operands=1),
    19: _calculate(numbers.exactly_one, (BOOL,)),
    20: _calculate(numbers.add, _NUMBERS),
    21: _calculate(numbers.subtract, _NUMBERS),
    22: _calculate(numbers.multiply, _NUMBERS),
    23: _calculate(numbers.divide, _NUMBERS),
    24: _calculate(math.pow, (FLOAT,), num_operands=2),
    25: _calculate(math.log, (FLOAT,), num_operands=2),
    26: _calculate(numbers.modulo, (INT,), num_operands=2),
    27: _calculate(abs, _NUMBERS, num_operands=1),
    28: _calculate(numbers.floor, (FLOAT,), num_operands=1),
    29: _calculate(numbers.ceiling, (FLOAT,), num_operands=1),
    30: _calculate(int, (FLOAT,), INT, num_operands=1),
    31: _calculate(float, (INT,), FLOAT, num_operands=1),
    32: _calculate(lambda *values: reduce(operator.and_, values), (INT,)),
    33: _calculate(lambda *values: reduce(operator.or_, values), (INT,)),
    34: _calculate(lambda *values: reduce(operator.xor, values), (INT,)),
    35: _calculate(operator.invert, (INT,), num_operands=1),
    36: _calculate(numbers.shift_left, (INT,), num_operands=2),
    37: _calculate(numbers.shift_right, (INT,), num_operands=2),
    38: _calculate(numbers.shift_right_signed, (INT,), num_operands=2),
    39: _calculate(numbers.count_ones, (INT,), num_operands=1),
    40: _scan(numbers.first_bit),
    41: _scan(numbers.last_bit),
    50: _calculate(lambda *values: min(values), _NUMBERS),
    51: _calculate(lambda *values: max(values), _NUMBERS),
    **{code: _of_record(build) for code, build in OF_RECORDS.items()},
    101: _calls(expression_calls.map_keys),
    102: _calls(expression_calls.map_values),
    123: _condition,
    124: _variable,
    125: _let,
    126: _calls(expression_calls.quote),
    127: _calls(expression_calls.call),
}
"""How each expression is compiled, by its code."""
