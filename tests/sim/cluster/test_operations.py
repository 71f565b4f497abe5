"""Operations on the bins of a record, whatever clients may put into them."""

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.wire import packing
from geotrain.wire.codes import OpCode, Particle, ResultCode
from geotrain.wire.messages import Operation, decode_ops, encode_op, operation
from geotrain.wire.particles import Opaque, Value
from sim.cluster.records import make_record, set_name_of
from sim.cluster.values import operations
from sim.cluster.values.drafts import Draft
from sim.cluster.values.operations import check, read_all
from sim.cluster.values.refused import Refused

BINS: dict[str, Value] = {
    "i": 41,
    "f": 0.5,
    "s": "text",
    "b": b"\x04\x05",
    "l": [1, [2], "a", None],
    "m": {"a": 1, "b": [1]},
    "L": Opaque(Particle.LIST, b"\xdd\xff\xff\xff\xff"),  # what is no list and no map, whatever its type says
    "M": Opaque(Particle.MAP, b"\x81\xa1"),
    "I": Opaque(Particle.INTEGER, b"\x01"),
}
RECORD = make_record(
    set_name_of("test", b"demo"),
    bytes(range(20)),
    b"\x03k1",
    3,
    1_700_000_000_000,
    {name.encode(): operation(OpCode.READ, name, value).raw for name, value in BINS.items()},
)

codes = st.sampled_from(sorted(operations.OPERATIONS))
names = st.sampled_from([*BINS, "new"])
parts = st.recursive(
    st.integers(-3, 130) | st.binary(max_size=4) | st.none() | st.booleans() | st.sampled_from([b"\x03a", b"i", b"l"]),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=10,
)
arguments = st.lists(parts, max_size=5).map(lambda value: msgpack.packb(value, use_bin_type=False))
values = st.binary(max_size=12) | arguments
ops = st.builds(
    lambda code, name, particle, value: Operation(
        code, particle, name.encode(), encode_op(code, name.encode(), particle, value)
    ),
    codes,
    names,
    st.sampled_from([Particle.BLOB, Particle.INTEGER, Particle.FLOAT, Particle.STRING, Particle.LIST, Particle.NIL]),
    values,
)


@settings(max_examples=400)
@given(asked=st.lists(ops, min_size=1, max_size=4), respond_all=st.booleans())
def test_whatever_operations_are_asked_they_are_performed_or_refused(asked: list[Operation], respond_all: bool) -> None:
    draft = Draft(RECORD.bins(), digest=RECORD.digest, set_name=b"demo")
    with contextlib.suppress(Refused):
        check(asked, replaces=False)
        answers = decode_all(b"".join(operations.apply(draft, asked, respond_all=respond_all)))
        answering = [op for op in asked if op.code != OpCode.TOUCH]
        assert len(answers) == len(answering) if respond_all else len(answers) <= len(answering)
    for name, raw in draft.items():
        (op,), end = decode_ops(raw, 0, 1)
        assert (op.code, op.name, end) == (OpCode.READ, name, len(raw))


def decode_all(answers: bytes) -> list[Operation]:
    found: list[Operation] = []
    at = 0
    while at < len(answers):
        (op,), at = decode_ops(answers, at, 1)
        found.append(op)
    return found


def op_of(code: int, name: str, *packed: Any) -> Operation:
    value = packing.pack(list(packed))
    return Operation(code, Particle.BLOB, name.encode(), encode_op(code, name.encode(), Particle.BLOB, value))


def test_reading_operations_read_and_leave_out_what_is_not_there() -> None:
    asked = [
        op_of(OpCode.CDT_READ, "l", 16),
        op_of(OpCode.CDT_READ, "absent", 16),
        op_of(OpCode.BITS_READ, "b", 51, 0, 8),
    ]
    found = read_all(RECORD, asked, 0, respond_all=False)
    assert [op.name for op in decode_all(b"".join(found))] == [b"l", b"b"]
    assert [op.name for op in decode_all(b"".join(read_all(RECORD, asked, 0, respond_all=True)))] == [
        b"l",
        b"absent",
        b"b",
    ]


def test_an_answer_has_the_code_of_its_operation() -> None:
    (answer,) = read_all(RECORD, [op_of(OpCode.CDT_READ, "l", 16)], 0, respond_all=False)
    assert answer == encode_op(OpCode.CDT_READ, b"l", Particle.INTEGER, (4).to_bytes(8, "big"))


@pytest.mark.parametrize(
    ("code", "result"), [(OpCode.CDT_MODIFY, ResultCode.PARAMETER), (OpCode.HLL_READ, ResultCode.UNSUPPORTED)]
)
def test_a_read_takes_reading_operations_only(code: int, result: ResultCode) -> None:
    with pytest.raises(Refused) as refusal:
        read_all(RECORD, [op_of(code, "l", 16)], 0, respond_all=False)
    assert refusal.value.code == result


@pytest.mark.parametrize("code", [OpCode.CDT_MODIFY, OpCode.BITS_MODIFY, OpCode.INCREMENT])
def test_what_needs_the_bins_that_are_there_can_not_replace_the_record(code: int) -> None:
    with pytest.raises(Refused) as refusal:
        check([op_of(code, "l", 1, 1)], replaces=True)
    assert refusal.value.code == ResultCode.PARAMETER


def test_a_later_operation_sees_what_an_earlier_one_did() -> None:
    draft = Draft({})
    asked = [op_of(OpCode.CDT_MODIFY, "x", 1, 7), op_of(OpCode.CDT_READ, "x", 16), op_of(OpCode.CDT_MODIFY, "x", 5, 0)]
    answers = decode_all(b"".join(operations.apply(draft, asked, respond_all=True)))
    assert [int.from_bytes(op.value, "big") for op in answers] == [1, 1, 7]
    assert draft == {b"x": operation(OpCode.READ, "x", []).raw}


CHANGES = [OpCode.INCREMENT, OpCode.APPEND, OpCode.PREPEND]


@pytest.mark.parametrize("code", CHANGES)
@pytest.mark.parametrize("value", [7, 1.5, "a", b"a", [1], {1: 1}])
def test_a_change_of_an_absent_bin_makes_it_of_any_type(code: int, value: Value) -> None:
    draft = Draft({})
    operations.apply(draft, [operation(code, "x", value)], respond_all=False)
    assert draft == {b"x": operation(OpCode.READ, "x", value).raw}


@pytest.mark.parametrize("code", CHANGES)
@pytest.mark.parametrize(("value", "result"), [(None, ResultCode.PARAMETER), ([1], ResultCode.BIN_TYPE)])
def test_a_change_of_a_present_bin_is_refused_where_the_types_do_not_fit(
    code: int, value: Value, result: ResultCode
) -> None:
    for present in (7, "a"):
        draft = Draft({b"x": operation(OpCode.READ, "x", present).raw})
        with pytest.raises(Refused) as refusal:
            operations.apply(draft, [operation(code, "x", value)], respond_all=False)
        assert refusal.value.code == result


@pytest.mark.parametrize(
    ("particle", "value", "is_taken"),
    [
        (Particle.INTEGER, bytes(3), False),
        (Particle.FLOAT, bytes(9), False),
        (99, bytes(8), False),
        (Particle.INTEGER, bytes(8), True),
        (Particle.FLOAT, bytes(8), True),
        (Particle.NIL, b"", True),
        (9, b"pickled", True),
    ],
)
def test_only_values_of_a_known_type_and_size_are_written(particle: int, value: bytes, is_taken: bool) -> None:
    op = Operation(OpCode.WRITE, particle, b"a", encode_op(OpCode.WRITE, b"a", particle, value))
    refused = pytest.raises(Refused, match=ResultCode.PARAMETER.name)
    with contextlib.nullcontext() if is_taken else refused:
        check([op], replaces=False)
