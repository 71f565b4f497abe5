import contextlib
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire.codes import OpCode, ResultCode
from geotrain.wire.messages import operation
from geotrain.wire.particles import Value
from sim.cluster.expressions import filter_of
from sim.cluster.operations import Refused
from sim.cluster.records import make_record, set_name_of

DIGEST = bytes(range(20))
BINS: dict[str, Value] = {"i": 41, "f": 0.5, "s": "é", "b": b"\x04", "t": True, "l": [1]}
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
INT, STR, BLOB = 2, 3, 6
terms = st.sampled_from([TRUE, FALSE, UNKNOWN])


def passes(expression: Any) -> bool:
    return filter_of(msgpack.packb(expression, use_bin_type=False))(RECORD, NOW_MS)


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


@pytest.mark.parametrize("expression", [[7, 0, b"\x03.*", [70]], [127, 1, 0, [], [81, 4, b"l"]], [1, [81, 4, b"l"], 1]])
def test_expressions_that_are_not_simulated_say_unsupported(expression: Any) -> None:
    with pytest.raises(Refused) as refusal:
        passes(expression)
    assert refusal.value.code == ResultCode.UNSUPPORTED


@given(data=st.binary(max_size=60))
def test_garbage_is_refused_and_never_crashes(data: bytes) -> None:
    with contextlib.suppress(Refused):
        filter_of(data)(RECORD, NOW_MS)


@pytest.mark.parametrize("depth", [400, 1000, 5000])
def test_a_filter_nested_beyond_measure_is_refused(depth: int) -> None:
    with pytest.raises(Refused):
        filter_of(b"\x92\x12" * depth + b"\xc3")
