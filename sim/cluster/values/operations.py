"""What each operation does to the bins of a record: a table from operation code to function. Pure."""

import struct
from collections.abc import Callable
from functools import lru_cache

from geotrain.wire.codes import MAX_BIN_NAME_BYTES, OpCode, Particle, ProtocolError, ResultCode
from geotrain.wire.messages import OP_OVERHEAD, Operation, encode_op
from sim.cluster.expression.expression_values import TYPES, UNKNOWN, encoded
from sim.cluster.expression.expressions import compiled
from sim.cluster.records import Bins, Record
from sim.cluster.values import bits, nested
from sim.cluster.values.changes import Result
from sim.cluster.values.drafts import Draft, draft_of
from sim.cluster.values.elements import integer, split
from sim.cluster.values.refused import Refused

_INT = struct.Struct(">q")
_FLOAT = struct.Struct(">d")
_READ_CODE = bytes([OpCode.READ])
_BLOBS_OF_LANGUAGES = range(7, 13)  # objects as the clients of some languages serialise them


Operate = Callable[[Draft, Operation], bytes | None]
"""Changes the bins, or returns the bin that it read, as the operation that carries it in a reply."""


def write(bins: Bins, op: Operation) -> None:
    """Set a bin; a value of no type removes it."""
    if op.particle == Particle.NIL:
        bins.pop(op.name, None)
    else:
        raw = op.raw
        bins[op.name] = raw[:4] + _READ_CODE + raw[5:]


def read(bins: Bins, op: Operation) -> bytes | None:
    """One bin, or nothing where it is absent."""
    return bins.get(op.name)


def increment(bins: Bins, op: Operation) -> None:
    """Add to a number. Integers wrap at 64 bits."""
    if _created(bins, op):
        return
    if op.particle not in (Particle.INTEGER, Particle.FLOAT) or len(op.value) != _INT.size:
        raise Refused(ResultCode.BIN_TYPE)
    present = _value(bins, op)
    if op.particle == Particle.INTEGER:
        total = _INT.unpack(present)[0] + _INT.unpack(op.value)[0]
        value = (total & (1 << 64) - 1).to_bytes(8, "big")
    else:
        value = _FLOAT.pack(_FLOAT.unpack(present)[0] + _FLOAT.unpack(op.value)[0])
    bins[op.name] = encode_op(OpCode.READ, op.name, op.particle, value)


def append(bins: Bins, op: Operation) -> None:
    """Put a string or blob behind what is there."""
    if not _created(bins, op):
        _extend(bins, op, (_text(bins, op), op.value))


def prepend(bins: Bins, op: Operation) -> None:
    """Put a string or blob before what is there."""
    if not _created(bins, op):
        _extend(bins, op, (op.value, _text(bins, op)))


def touch(bins: Bins, op: Operation) -> None:
    """Change nothing; the record's generation and last update change with any write."""


def delete_all(bins: Bins, op: Operation) -> None:
    """Remove every bin."""
    bins.clear()


def read_nested(bins: Bins, op: Operation) -> bytes | None:
    """Read from a list or map."""
    present = bins.get(op.name)
    return None if present is None else _answer(op, nested.read(*_particle(present, op), op.value))


def modify_nested(bins: Bins, op: Operation) -> bytes | None:
    """Change a list or map, and perhaps make one."""
    present = bins.get(op.name)
    before = (int(Particle.NIL), b"") if present is None else _particle(present, op)
    (particle, value), result = nested.modify(*before, op.value)
    if particle != Particle.NIL:
        bins[op.name] = encode_op(OpCode.READ, op.name, particle, value)
    return _answer(op, result)


def read_bits(bins: Bins, op: Operation) -> bytes | None:
    """Read from the bits of a blob."""
    blob = _blob(bins, op)
    return None if blob is None else _answer(op, bits.read(blob, op.value))


def modify_bits(bins: Bins, op: Operation) -> None:
    """Change the bits of a blob, and perhaps make one."""
    changed = bits.modify(_blob(bins, op), op.value)
    if changed is not None:
        bins[op.name] = encode_op(OpCode.READ, op.name, Particle.BLOB, changed)


def read_expression(bins: Draft, op: Operation) -> bytes | None:
    """The value of an expression."""
    packed, flags = _expression(op)
    value = _evaluated(bins, packed, flags)
    return None if value is UNKNOWN else _answer(op, encoded(value))


def write_expression(bins: Draft, op: Operation) -> None:
    """Set a bin to the value of an expression; no value removes the bin, if that is allowed."""
    packed, flags = _expression(op)
    is_present = op.name in bins
    refusal = None
    if is_present and flags & CREATE_ONLY:
        refusal = ResultCode.BIN_EXISTS
    elif not is_present and flags & UPDATE_ONLY:
        refusal = ResultCode.BIN_NOT_FOUND
    else:
        value = _evaluated(bins, packed, flags)
        if value is None and is_present and not flags & ALLOW_DELETE:
            refusal = ResultCode.OP_NOT_APPLICABLE
        elif value is None:
            bins.pop(op.name, None)
        elif value is not UNKNOWN:
            bins[op.name] = encode_op(OpCode.READ, op.name, *encoded(value))
    if refusal is not None and not flags & POLICY_NO_FAIL:
        raise Refused(refusal)


def _expression(op: Operation) -> tuple[bytes, int]:
    """The expression in an operation, packed, and the flags. Raises Refused."""
    try:
        packed, *flags = split(op.value)
        if len(flags) <= 1:
            return packed, sum(map(integer, flags))
    except (ProtocolError, ValueError):
        pass
    raise Refused(ResultCode.PARAMETER)


def _evaluated(bins: Draft, packed: bytes, flags: int) -> object:
    """The value of an expression, which is unknown only where the flags allow that. Raises Refused."""
    value = compiled(packed).evaluate(bins, bins.now_ms)
    if value is UNKNOWN and not flags & EVALUATE_NO_FAIL:
        raise Refused(ResultCode.OP_NOT_APPLICABLE)
    return value


def _answer(op: Operation, result: Result) -> bytes | None:
    particle, value = result
    return None if particle == Particle.NIL else encode_op(op.code, op.name, particle, value)


CREATE_ONLY, UPDATE_ONLY, ALLOW_DELETE, POLICY_NO_FAIL, EVALUATE_NO_FAIL = 1, 2, 4, 8, 16
"""The flags of expression operations."""

OPERATIONS: dict[int, Operate] = {
    OpCode.READ: read,
    OpCode.WRITE: write,
    OpCode.CDT_READ: read_nested,
    OpCode.CDT_MODIFY: modify_nested,
    OpCode.INCREMENT: increment,
    OpCode.EXPRESSION_READ: read_expression,
    OpCode.EXPRESSION_MODIFY: write_expression,
    OpCode.APPEND: append,
    OpCode.PREPEND: prepend,
    OpCode.TOUCH: touch,
    OpCode.BITS_READ: read_bits,
    OpCode.BITS_MODIFY: modify_bits,
    OpCode.DELETE_ALL: delete_all,
}

READS = frozenset({OpCode.READ, OpCode.CDT_READ, OpCode.EXPRESSION_READ, OpCode.BITS_READ})
"""Operations that change nothing, and so may be part of a read."""

MODIFIES = frozenset(
    {
        OpCode.CDT_MODIFY,
        OpCode.INCREMENT,
        OpCode.APPEND,
        OpCode.PREPEND,
        OpCode.TOUCH,
        OpCode.BITS_MODIFY,
        OpCode.DELETE_ALL,
    }
)
"""Operations that need what is there, so that they can't be part of a write that replaces the record."""


def apply(bins: Draft, ops: list[Operation], *, respond_all: bool) -> list[bytes]:
    """Perform the operations in order. Returns what they read, or an answer for each. Raises Refused."""
    answers: list[bytes] = []
    for op in ops:
        code, _, name, _ = op
        answer = OPERATIONS[code](bins, op)
        if answer is not None:
            answers.append(answer)
        elif code == OpCode.READ and not name:
            answers += bins.values()
        elif respond_all and code != OpCode.TOUCH:
            answers.append(_acknowledgement(code, name))
    return answers


def read_all(record: Record, ops: list[Operation], now_ms: int, *, respond_all: bool) -> list[bytes]:
    """Perform reading operations in order. Returns what they read, or an answer for each. Raises Refused."""
    asked = {op.code for op in ops}
    if not asked <= READS:
        raise Refused(ResultCode.PARAMETER if asked <= OPERATIONS.keys() else ResultCode.UNSUPPORTED)
    return apply(draft_of(record, now_ms), ops, respond_all=respond_all)


@lru_cache(maxsize=4096)
def _acknowledgement(code: int, name: bytes) -> bytes:
    """The answer to an operation that reads nothing."""
    return encode_op(code, name)


def check(ops: list[Operation], *, replaces: bool) -> bool:
    """Refuse operations that can't be performed, before any is. Returns whether they need a record that is there.

    Raises Refused.
    """
    asked = {op.code for op in ops}
    if not asked <= OPERATIONS.keys():
        raise Refused(ResultCode.UNSUPPORTED)
    if max([len(op.name) for op in ops]) > MAX_BIN_NAME_BYTES:
        raise Refused(ResultCode.BIN_NAME)
    if replaces and (asked & MODIFIES or any(op.code == OpCode.WRITE and op.particle == Particle.NIL for op in ops)):
        raise Refused(ResultCode.PARAMETER)
    if not all(_can_be_stored(op) for op in ops if op.code == OpCode.WRITE):
        raise Refused(ResultCode.PARAMETER)
    return OpCode.TOUCH in asked


def _can_be_stored(op: Operation) -> bool:
    """Whether a value is of a type that there is, and a number has the size of one."""
    if op.particle in (Particle.INTEGER, Particle.FLOAT):
        return len(op.value) == _INT.size
    return op.particle in TYPES or op.particle in _BLOBS_OF_LANGUAGES


def _particle(present: bytes, op: Operation) -> tuple[int, bytes]:
    return present[5], present[OP_OVERHEAD + len(op.name) :]


def _blob(bins: Bins, op: Operation) -> bytes | None:
    """The blob in a bin, or None. Raises Refused where there is something else."""
    present = bins.get(op.name)
    if op.particle != Particle.BLOB or (present is not None and present[5] != Particle.BLOB):
        raise Refused(ResultCode.BIN_TYPE)
    return None if present is None else present[OP_OVERHEAD + len(op.name) :]


def _created(bins: Bins, op: Operation) -> bool:
    """Whether there was no bin to change, and so one is made of the operand, whatever its type. Raises Refused."""
    if op.particle == Particle.NIL or not _can_be_stored(op):
        raise Refused(ResultCode.PARAMETER)
    if op.name in bins:
        return False
    write(bins, op)
    return True


def _value(bins: Bins, op: Operation) -> bytes:
    """The bytes of the bin that `op` changes. Raises Refused where it is of another type."""
    present = bins[op.name]
    if present[5] != op.particle:
        raise Refused(ResultCode.BIN_TYPE)
    return present[OP_OVERHEAD + len(op.name) :]


def _text(bins: Bins, op: Operation) -> bytes:
    if op.particle not in (Particle.STRING, Particle.BLOB):
        raise Refused(ResultCode.BIN_TYPE)
    return _value(bins, op)


def _extend(bins: Bins, op: Operation, parts: tuple[bytes, bytes]) -> None:
    bins[op.name] = encode_op(OpCode.READ, op.name, op.particle, b"".join(parts))
