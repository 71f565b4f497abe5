"""What each operation does to the bins of a record: a table from operation code to function. Pure."""

import struct
from collections.abc import Callable
from functools import lru_cache

from geotrain.wire.codes import MAX_BIN_NAME_BYTES, OpCode, Particle, ResultCode
from geotrain.wire.messages import OP_OVERHEAD, Operation, encode_op
from sim.cluster.records import Bins

_INT = struct.Struct(">q")
_FLOAT = struct.Struct(">d")
_READ_CODE = bytes([OpCode.READ])


class Refused(Exception):
    """A command that ends with a result code other than OK."""

    def __init__(self, code: ResultCode) -> None:
        super().__init__(code.name)
        self.code = code


Operate = Callable[[Bins, Operation], bytes | None]
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
    """Add to a number; an absent bin counts as zero. Integers wrap at 64 bits."""
    if op.particle not in (Particle.INTEGER, Particle.FLOAT) or len(op.value) != _INT.size:
        raise Refused(ResultCode.BIN_TYPE)
    present = _value(bins, op)
    if present is None:
        value = op.value
    elif op.particle == Particle.INTEGER:
        total = _INT.unpack(present)[0] + _INT.unpack(op.value)[0]
        value = (total & (1 << 64) - 1).to_bytes(8, "big")
    else:
        value = _FLOAT.pack(_FLOAT.unpack(present)[0] + _FLOAT.unpack(op.value)[0])
    bins[op.name] = encode_op(OpCode.READ, op.name, op.particle, value)


def append(bins: Bins, op: Operation) -> None:
    """Put a string or blob behind what is there."""
    _extend(bins, op, (_text(bins, op), op.value))


def prepend(bins: Bins, op: Operation) -> None:
    """Put a string or blob before what is there."""
    _extend(bins, op, (op.value, _text(bins, op)))


def touch(bins: Bins, op: Operation) -> None:
    """Change nothing; the record's generation and last update change with any write."""


def delete_all(bins: Bins, op: Operation) -> None:
    """Remove every bin."""
    bins.clear()


OPERATIONS: dict[int, Operate] = {
    OpCode.READ: read,
    OpCode.WRITE: write,
    OpCode.INCREMENT: increment,
    OpCode.APPEND: append,
    OpCode.PREPEND: prepend,
    OpCode.TOUCH: touch,
    OpCode.DELETE_ALL: delete_all,
}

MODIFIES = frozenset({OpCode.INCREMENT, OpCode.APPEND, OpCode.PREPEND, OpCode.TOUCH, OpCode.DELETE_ALL})
"""Operations that need what is there, so that they can't be part of a write that replaces the record."""


def apply(bins: Bins, ops: list[Operation], *, respond_all: bool) -> list[bytes]:
    """Perform the operations in order. Returns what they read, or an answer for each. Raises Refused."""
    answers: list[bytes] = []
    for op in ops:
        code, _, name, _ = op
        answer = OPERATIONS[code](bins, op)
        if answer is not None:
            answers.append(answer)
        elif code == OpCode.READ and not name:
            answers += bins.values()
        elif respond_all:
            answers.append(_acknowledgement(code, name))
    return answers


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
    return OpCode.TOUCH in asked


def _value(bins: Bins, op: Operation) -> bytes | None:
    """The bytes of the bin that `op` changes, or None. Raises Refused where it is of another type."""
    present = bins.get(op.name)
    if present is None:
        return None
    if present[5] != op.particle:
        raise Refused(ResultCode.BIN_TYPE)
    return present[OP_OVERHEAD + len(op.name) :]


def _text(bins: Bins, op: Operation) -> bytes:
    if op.particle not in (Particle.STRING, Particle.BLOB):
        raise Refused(ResultCode.BIN_TYPE)
    return _value(bins, op) or b""


def _extend(bins: Bins, op: Operation, parts: tuple[bytes, bytes]) -> None:
    bins[op.name] = encode_op(OpCode.READ, op.name, op.particle, b"".join(parts))
