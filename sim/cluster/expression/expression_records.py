"""Expressions about a record itself: its bins, its key, and what is known of it besides. Pure."""

from collections.abc import Callable
from typing import Any

from geotrain.wire.codes import EPOCH_S, Particle, ProtocolError, ResultCode
from geotrain.wire.messages import OP_OVERHEAD
from sim.cluster.expression.expression_values import (
    BLOB,
    BOOL,
    INT,
    PARTICLES,
    STR,
    UNKNOWN,
    Evaluate,
    Node,
    Subject,
    decoded,
    name_in,
)
from sim.cluster.values.elements import integer
from sim.cluster.values.refused import Refused

_NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
_NEVER = -1
_UPDATED_UNTIL = bytes.fromhex("93 06 91 42")  # the last update is at most what follows

Arguments = list[bytes]
"""The arguments of an expression, each packed."""


def updated_until_ns(expression: bytes) -> int | None:
    """Until when a record must have been updated last, where an expression asks that and nothing else."""
    if not expression.startswith(_UPDATED_UNTIL):
        return None
    try:
        return integer(expression[len(_UPDATED_UNTIL) :])
    except (ProtocolError, Refused):
        return None


def _metadata(kind: int, evaluate: Evaluate) -> Callable[[Arguments], Node]:
    def build(arguments: Arguments) -> Node:
        if arguments:
            raise Refused(ResultCode.PARAMETER)
        return Node(kind, evaluate)

    return build


def _digest_modulo(arguments: Arguments) -> Node:
    (packed,) = arguments
    divisor = abs(integer(packed))
    if not divisor:
        raise Refused(ResultCode.PARAMETER)
    return Node(INT, lambda record, now_ms: int.from_bytes(record.digest[16:], "little") % divisor)


def _void_time(record: Subject, now_ms: int) -> int:
    return (record.void_time + EPOCH_S) * _NS_PER_S if record.void_time else _NEVER


def _ttl(record: Subject, now_ms: int) -> int:
    return max(record.void_time + EPOCH_S - now_ms // 1000, 0) if record.void_time else _NEVER


def _key(arguments: Arguments) -> Node:
    (kind,) = map(integer, arguments)
    if kind not in (INT, STR, BLOB):
        raise Refused(ResultCode.PARAMETER)
    particle = PARTICLES[kind]

    def evaluate(record: Subject, now_ms: int) -> Any:
        key = record.key
        return decoded(particle, key[1:]) if key[:1] == bytes([particle]) else UNKNOWN

    return Node(kind, evaluate)


def _bin(arguments: Arguments) -> Node:
    packed_kind, packed_name = arguments
    kind, name = integer(packed_kind), name_in(packed_name)
    particle = PARTICLES[kind]
    value_at = OP_OVERHEAD + len(name)

    def evaluate(record: Subject, now_ms: int) -> Any:
        op = record.bin(name)
        return UNKNOWN if op is None or op[5] != particle else decoded(particle, op[value_at:])

    return Node(kind, evaluate)


def _bin_type(arguments: Arguments) -> Node:
    (name,) = map(name_in, arguments)

    def evaluate(record: Subject, now_ms: int) -> Any:
        op = record.bin(name)
        return int(Particle.NIL) if op is None else op[5]

    return Node(INT, evaluate)


OF_RECORDS: dict[int, Callable[[Arguments], Node]] = {
    64: _digest_modulo,
    65: _metadata(INT, lambda record, now_ms: len(record.row)),
    66: _metadata(INT, lambda record, now_ms: record.last_update_ms * NS_PER_MS),
    67: _metadata(INT, lambda record, now_ms: max(now_ms - record.last_update_ms, 0)),
    68: _metadata(INT, _void_time),
    69: _metadata(INT, _ttl),
    70: _metadata(STR, lambda record, now_ms: record.set_name.decode()),
    71: _metadata(BOOL, lambda record, now_ms: bool(record.key)),
    72: _metadata(BOOL, lambda record, now_ms: False),
    73: _metadata(INT, lambda record, now_ms: len(record.row)),
    74: _metadata(INT, lambda record, now_ms: len(record.row)),
    80: _key,
    81: _bin,
    82: _bin_type,
}
"""How each of them is compiled, by its code."""
