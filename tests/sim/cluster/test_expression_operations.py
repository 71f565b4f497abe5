from typing import Any

import msgpack
import pytest

from geotrain.wire.codes import OpCode, Particle, ResultCode
from geotrain.wire.messages import Operation, encode_op, operation
from sim.cluster.values import operations
from sim.cluster.values.drafts import Draft, draft_of
from sim.cluster.values.refused import Refused
from tests.sim.cluster.test_expressions import INT, NOW_MS, RECORD, UNKNOWN


def operate(code: int, name: str, expression: Any, flags: int = 0) -> tuple[Draft, list[bytes]]:
    """The bins after an expression operation, and its answers."""
    draft = draft_of(RECORD, NOW_MS)
    packed = msgpack.packb([expression, flags], use_bin_type=False)
    op = Operation(code, Particle.BLOB, name.encode(), encode_op(code, name.encode(), Particle.BLOB, packed))
    return draft, operations.apply(draft, [op], respond_all=False)


def test_an_expression_is_read_and_written_as_an_operation() -> None:
    _, (answer,) = operate(OpCode.EXPRESSION_READ, "any", [20, [81, INT, b"i"], 1])
    assert answer == encode_op(OpCode.EXPRESSION_READ, b"any", Particle.INTEGER, (42).to_bytes(8, "big"))
    draft, answers = operate(OpCode.EXPRESSION_MODIFY, "new", [20, [81, INT, b"i"], 1])
    assert answers == []
    assert draft[b"new"] == operation(OpCode.READ, "new", 42).raw


@pytest.mark.parametrize(
    ("name", "expression", "flags", "code"),
    [
        ("i", 1, operations.CREATE_ONLY, ResultCode.BIN_EXISTS),
        ("new", 1, operations.UPDATE_ONLY, ResultCode.BIN_NOT_FOUND),
        ("i", None, 0, ResultCode.OP_NOT_APPLICABLE),
        ("i", UNKNOWN, 0, ResultCode.OP_NOT_APPLICABLE),
        ("i", [81, INT, b"absent"], operations.POLICY_NO_FAIL, ResultCode.OP_NOT_APPLICABLE),
        ("i", [1, 2], 0, ResultCode.PARAMETER),
    ],
)
def test_a_bin_is_not_written_against_the_flags(name: str, expression: Any, flags: int, code: ResultCode) -> None:
    with pytest.raises(Refused) as refusal:
        operate(OpCode.EXPRESSION_MODIFY, name, expression, flags)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("name", "expression", "flags"),
    [
        ("i", 1, operations.CREATE_ONLY | operations.POLICY_NO_FAIL),
        ("new", 1, operations.UPDATE_ONLY | operations.POLICY_NO_FAIL),
        ("i", UNKNOWN, operations.EVALUATE_NO_FAIL),
    ],
)
def test_a_write_that_may_not_fail_leaves_the_bin_as_it_was(name: str, expression: Any, flags: int) -> None:
    draft, _ = operate(OpCode.EXPRESSION_MODIFY, name, expression, flags)
    assert dict(draft) == RECORD.bins()


def test_nothing_removes_a_bin_where_that_is_allowed() -> None:
    draft, _ = operate(OpCode.EXPRESSION_MODIFY, "i", None, operations.ALLOW_DELETE)
    assert b"i" not in draft
