import contextlib
import math
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire.codes import EPOCH_S, OpCode, Particle, ResultCode
from geotrain.wire.messages import encode_op, operation
from geotrain.wire.particles import Value, decode_value
from sim.cluster.expression import expressions
from sim.cluster.expression.expression_values import UNKNOWN as UNKNOWN_VALUE
from sim.cluster.expression.expression_values import Node, encoded
from sim.cluster.expression.expressions import compiled, filter_of
from sim.cluster.records import make_record, set_name_of
from sim.cluster.values.drafts import Draft
from sim.cluster.values.refused import Refused

DIGEST = bytes(range(20))
BINS: dict[str, Value] = {
    "i": 41,
    "f": 0.5,
    "s": "é",
    "b": b"\x04",
    "t": True,
    "l": [1, 2, [3]],
    "m": {"a": 1, "b": 2},
}
RECORD = make_record(
    set_name_of("test", b"demo"),
    DIGEST,
    b"\x03k1",
    3,
    1_700_000_000_123,
    {name.encode(): operation(OpCode.READ, name, value).raw for name, value in BINS.items()},
)
NOW_MS = 1_700_000_001_000
TRUE, FALSE, UNKNOWN = True, False, [0]
INT, STR, LIST, MAP, BLOB, FLOAT = range(2, 8)
terms = st.sampled_from([TRUE, FALSE, UNKNOWN])


def passes(expression: Any) -> bool:
    return filter_of(msgpack.packb(expression, use_bin_type=False))(RECORD, NOW_MS)


def value_now(expression: Any) -> Any:
    """The value of an expression, which is known, as a Python value."""
    value = compiled(msgpack.packb(expression, use_bin_type=False)).evaluate(RECORD, NOW_MS)
    assert value is not UNKNOWN_VALUE
    return decode_value(*encoded(value))


def is_unknown(expression: Any) -> bool:
    return compiled(msgpack.packb(expression, use_bin_type=False)).evaluate(RECORD, NOW_MS) is UNKNOWN_VALUE


def value_of(term: Any) -> bool | None:
    return None if term == UNKNOWN else term


@given(terms=st.lists(terms, min_size=1, max_size=4))
def test_and_or_and_not_follow_kleenes_logic(terms: list[Any]) -> None:
    values = [value_of(term) for term in terms]
    conjunction = False if False in values else None if None in values else True
    disjunction = True if True in values else None if None in values else False
    for code, expected in ((16, conjunction), (17, disjunction)):
        assert passes([code, *terms]) is (expected is True)
        assert passes([18, [code, *terms]]) is (expected is False)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ([1, [81, INT, b"i"], 41], True),
        ([1, [81, STR, b"s"], b"\x03\xc3\xa9"], True),
        ([1, [81, BLOB, b"b"], b"\x04\x04"], True),
        ([1, [81, INT, b"s"], 41], False),
        ([1, [82, b"i"], 1], True),
        ([1, [82, b"absent"], 0], True),
        ([1, [80, STR], b"\x03k1"], True),
        ([1, [80, INT], 1], False),
        ([1, [70], b"\x03demo"], True),
        ([1, [64, 7], int.from_bytes(DIGEST[16:], "little") % 7], True),
        ([1, [66], 1_700_000_000_123_000_000], True),
        ([1, [67], 877], True),
        ([71], True),
        ([72], False),
        ([1, [23, [81, INT, b"i"], 0], 1], False),
        ([1, [23, -7, 2], -3], True),
        ([1, [26, -7, 2], -1], True),
        ([1, [20, (1 << 63) - 1, 1], -(1 << 63)], True),
        ([125, b"x", [81, INT, b"i"], [1, [124, b"x"], 41]], True),
        ([123, UNKNOWN, True, True], False),
        ([19, True, False, False], True),
        ([19, True, True], False),
    ],
)
def test_expressions_have_the_value_that_a_server_gives_them(expression: Any, expected: bool) -> None:
    assert passes(expression) is expected


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param([1, [81, INT, b"i"], b"\x0341"], id="compares different types"),
        pytest.param([1, 1], id="one operand"),
        pytest.param([16, [81, INT, b"i"]], id="a number is no condition"),
        pytest.param([66], id="a filter must be true or false"),
        pytest.param([124, b"x"], id="variable without a definition"),
        pytest.param([1, [24, 1.0], 1.0], id="a power of nothing"),
        pytest.param([1, [36, 1, 2, 3], 1], id="two shifts at once"),
        pytest.param([71, 1], id="metadata of something"),
        pytest.param([64, 0], id="modulo zero"),
        pytest.param([1, b"\x09a", 1], id="string of no type"),
        pytest.param("text", id="not an expression"),
        pytest.param({1: 2}, id="map"),
        pytest.param([], id="empty"),
    ],
)
def test_what_is_no_filter_is_a_wrong_parameter(expression: Any) -> None:
    with pytest.raises(Refused) as refusal:
        passes(expression)
    assert refusal.value.code == ResultCode.PARAMETER


LIST_BIN, MAP_BIN, BLOB_BIN = [81, LIST, b"l"], [81, MAP, b"m"], [81, BLOB, b"b"]
ON_LISTS_AND_MAPS, ON_BITS, ON_SKETCHES, CHANGING = 0, 1, 2, 0x40
VALUE, COUNT = 7, 5
ORDERED_MAP = [127, MAP, ON_LISTS_AND_MAPS | CHANGING, [67, b"\x03a", 1, 1], None]


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param([8, [81, 8, b"g"], 1], id="regions"),
        pytest.param([127, INT, ON_SKETCHES, [50], [81, 9, b"h"]], id="sketches"),
        pytest.param([127, LIST, ON_LISTS_AND_MAPS, [0xFE, [4, True], 1], LIST_BIN], id="paths"),
        pytest.param([122, INT, 0], id="loop variables"),
    ],
)
def test_expressions_that_are_not_simulated_say_unsupported(expression: Any) -> None:
    with pytest.raises(Refused) as refusal:
        passes(expression)
    assert refusal.value.code == ResultCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ([127, INT, ON_LISTS_AND_MAPS, [16], LIST_BIN], 3),
        ([127, INT, ON_LISTS_AND_MAPS, [19, VALUE, 1], LIST_BIN], 2),
        ([127, INT, ON_LISTS_AND_MAPS, [19, VALUE, [21, 2, 2]], LIST_BIN], 1),
        ([127, INT, ON_LISTS_AND_MAPS, [23, COUNT, [126, [1, 9]]], LIST_BIN], 1),
        ([127, INT, ON_LISTS_AND_MAPS, [0xFF, [0x10, 2], [16]], LIST_BIN], 1),
        ([127, LIST, ON_LISTS_AND_MAPS | CHANGING, [1, 9, 0, 0], LIST_BIN], [1, 2, [3], 9]),
        ([127, LIST, ON_LISTS_AND_MAPS | CHANGING, [0xFF, [0x10, 2], [1, 4]], LIST_BIN], [1, 2, [3, 4]]),
        ([127, LIST, ON_LISTS_AND_MAPS | CHANGING, [1, [81, STR, b"s"]], [126, []]], ["é"]),
        ([127, LIST, ON_LISTS_AND_MAPS | CHANGING, [1, 5], None], [5]),
        ([127, INT, ON_LISTS_AND_MAPS, [97, VALUE, b"\x03b"], MAP_BIN], 2),
        ([127, MAP, ON_LISTS_AND_MAPS | CHANGING, [67, b"\x03c", 3, 0], MAP_BIN], {"a": 1, "b": 2, "c": 3}),
        ([127, INT, ON_BITS, [51, 0, 8], BLOB_BIN], 1),
        ([127, BLOB, ON_BITS | CHANGING, [0, 2, 0], BLOB_BIN], b"\x04\0"),
        ([9, 2, LIST_BIN], True),
        ([9, 9, LIST_BIN], False),
        ([9, [126, [3]], LIST_BIN], True),
        ([101, MAP_BIN], ["a", "b"]),
        ([102, MAP_BIN], [1, 2]),
        ([7, 0, b"^.$", [81, STR, b"s"]], True),
        ([7, 3, b"DE(M|N)o", [70]], True),
        ([7, 1, b"x+", [70]], False),
        ([36, 1, 63], -(1 << 63)),
        ([37, -1, 63], 1),
        ([38, -8, 1], -4),
        ([39, -1], 64),
        ([40, 1, True], 63),
        ([40, 0, True], -1),
        ([41, 4, True], 61),
        ([41, -1, False], -1),
        ([125, b"x", 3, b"y", [20, [124, b"x"], 1], [22, [124, b"x"], [124, b"y"]]], 12),
        ([23, 1.0, 0.0], math.inf),
        ([68], -1),
        ([69], -1),
        ([82, b"m"], 19),
        ([1, ORDERED_MAP, ORDERED_MAP], True),
    ],
)
def test_expressions_call_operations_and_have_values_of_any_type(expression: Any, expected: Any) -> None:
    assert value_now(expression) == expected


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param([127, INT, ON_LISTS_AND_MAPS, [19, VALUE, 9], LIST_BIN], id="no such element"),
        pytest.param([127, STR, ON_LISTS_AND_MAPS, [19, VALUE, 0], LIST_BIN], id="an element of another type"),
        pytest.param([127, INT, ON_LISTS_AND_MAPS, [16], [81, LIST, b"absent"]], id="an absent bin"),
        pytest.param([127, INT, ON_LISTS_AND_MAPS, [96], LIST_BIN], id="an operation on maps"),
        pytest.param([127, INT, ON_BITS, [51, 0, 99], BLOB_BIN], id="bits past the end"),
        pytest.param([1, MAP_BIN, MAP_BIN], id="maps without an order are not compared"),
        pytest.param([1, MAP_BIN, ORDERED_MAP], id="a map without an order on the left"),
        pytest.param([1, ORDERED_MAP, MAP_BIN], id="a map without an order on the right"),
        pytest.param([9, UNKNOWN, LIST_BIN], id="something unknown in a list"),
        pytest.param([26, 1, 0], id="modulo zero"),
    ],
)
def test_what_can_not_be_known_is_unknown(expression: Any) -> None:
    assert is_unknown(expression)


@pytest.mark.parametrize("expected", [True, False])
def test_lists_are_compared_by_their_elements(expected: bool) -> None:
    assert passes([1, LIST_BIN, [126, [1, 2, [3 if expected else 4]]]]) is expected
    assert passes([5, LIST_BIN, [126, [1, 2, [3, 0] if expected else [2]]]]) is expected


def test_a_variable_is_evaluated_once_however_often_it_is_used() -> None:
    expression: Any = 1
    for depth in range(60):
        expression = [125, b"v%d" % depth, expression, [20, [124, b"v%d" % depth], [124, b"v%d" % depth]]]
    assert value_now(expression) == 1 << 60


def test_a_variable_is_evaluated_anew_for_every_record() -> None:
    node = compiled(msgpack.packb([125, b"x", [81, INT, b"i"], [124, b"x"]]))
    drafts = [Draft({b"i": operation(OpCode.READ, "i", number).raw}) for number in (1, 2)]
    assert [node.evaluate(draft, NOW_MS) for draft in drafts] == [1, 2]


def test_a_record_that_expires_tells_when() -> None:
    void_time = NOW_MS // 1000 - EPOCH_S + 100
    record = RECORD._replace(void_time=void_time)
    assert compiled(b"\x91\x45").evaluate(record, NOW_MS) == 100
    assert compiled(b"\x91\x44").evaluate(record, NOW_MS) == (void_time + EPOCH_S) * 1_000_000_000


def test_a_bin_that_is_no_list_whatever_its_type_says_is_unknown() -> None:
    raw = encode_op(OpCode.READ, b"l", Particle.LIST, b"\xdd\xff\xff\xff\xff")
    draft = Draft({b"l": raw})
    assert compiled(msgpack.packb([1, LIST_BIN, [126, []]])).evaluate(draft, 0) is UNKNOWN_VALUE


scalars = st.integers(-3, 130) | st.binary(max_size=4) | st.none() | st.booleans()
shaped = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5), max_leaves=12)


@given(data=st.binary(max_size=60) | shaped.map(lambda value: msgpack.packb(value, use_bin_type=False)))
def test_garbage_is_refused_and_never_crashes(data: bytes) -> None:
    with contextlib.suppress(Refused):
        filter_of(data)(RECORD, NOW_MS)


@pytest.mark.parametrize("depth", [400, 1000, 5000])
def test_a_filter_nested_beyond_measure_is_refused(depth: int) -> None:
    with pytest.raises(Refused):
        filter_of(b"\x92\x12" * depth + b"\xc3")


@pytest.mark.parametrize(
    "pattern",
    [
        b"a" * 1025,
        b"(" * 101 + b")" * 101,
        b"((a{1,11}){1,11}){1,11}",
        b"((a{500}){2,}){0}",
        b"\\(a\\{1,1001\\}\\)",
        b"(" * 12 + b"a" + b"+)" * 12,
        b"a" + b"+" * 12,
        b"(" + b"a" * 200 + b"){1,1000}",
    ],
)
@pytest.mark.parametrize("flags", [0, 1])
def test_a_regular_expression_that_would_take_much_memory_or_stack_is_refused(pattern: bytes, flags: int) -> None:
    with pytest.raises(Refused) as refused:
        passes([7, flags, pattern, [81, STR, b"s"]])
    assert refused.value.code == ResultCode.PARAMETER


@pytest.mark.parametrize("pattern", [b"^.+$", b"^(.{0,255})$", b"^((((.+))))+$", b"[a-z]+|[0-9]+|" * 20 + b"."])
def test_a_regular_expression_within_measure_is_matched(pattern: bytes) -> None:
    assert passes([7, 1, pattern, [81, STR, b"s"]])


@pytest.mark.parametrize("error", [RecursionError, struct.error, TypeError])
def test_what_can_not_be_evaluated_is_unknown(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(record: Any, now_ms: int) -> Any:
        raise error

    monkeypatch.setitem(expressions._BUILDERS, 127, lambda arguments, variables: Node(INT, fail))
    assert is_unknown([127, error.__name__])


@pytest.mark.parametrize(("num_bytes", "is_kept"), [(60_000, True), (70_000, False)])
def test_a_large_expression_is_not_kept(num_bytes: int, is_kept: bool) -> None:
    packed = msgpack.packb([126, [bytes(num_bytes)]], use_bin_type=False)
    assert (compiled(packed) is compiled(packed)) is is_kept
