"""What expressions are about, and the values that they have. Pure."""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgpack

from geotrain.wire.codes import Particle, ProtocolError, ResultCode
from geotrain.wire.packing import unpack_raw
from sim.cluster.values.changes import Result
from sim.cluster.values.elements import particle_of, wrap
from sim.cluster.values.refused import Refused

NIL, BOOL, INT, STR, LIST, MAP, BLOB, FLOAT, GEOJSON, HLL = range(10)
ANY = -1

PARTICLES = {
    NIL: Particle.NIL,
    BOOL: Particle.BOOL,
    INT: Particle.INTEGER,
    STR: Particle.STRING,
    LIST: Particle.LIST,
    MAP: Particle.MAP,
    BLOB: Particle.BLOB,
    FLOAT: Particle.FLOAT,
    GEOJSON: Particle.GEOJSON,
    HLL: Particle.HLL,
}
TYPES = {particle: kind for kind, particle in PARTICLES.items()}

UNKNOWN = object()
"""The value of a bin that is missing or of another type, and of everything made of it."""


class Packed(NamedTuple):
    """A list or map, or a value that expressions only carry: as it travels."""

    particle: int
    data: bytes


class Subject(Protocol):
    """What an expression is about: a record, or one that is being written."""

    @property
    def digest(self) -> bytes: ...
    @property
    def set_name(self) -> bytes: ...
    @property
    def key(self) -> bytes: ...
    @property
    def last_update_ms(self) -> int: ...
    @property
    def void_time(self) -> int: ...
    @property
    def row(self) -> bytes: ...

    def bin(self, name: bytes) -> bytes | None:
        """One bin as the operation that carries it, or None."""


Evaluate = Callable[[Subject, int], Any]
"""The value for a record at a time in milliseconds: None, bool, int, float, str, bytes, Packed or UNKNOWN."""


class Node(NamedTuple):
    """A compiled expression: the type of its value, and how to find that."""

    type: int
    evaluate: Evaluate


def constant(kind: int, value: Any) -> Node:
    """An expression that always has the same value."""
    return Node(kind, lambda record, now_ms: value)


def decoded(particle: int, data: bytes) -> Any:
    """The value of a bin as expressions calculate with it; unknown where it is malformed."""
    match particle:
        case Particle.NIL:
            return None
        case Particle.BOOL:
            return data != b"\0"
        case Particle.INTEGER:
            return wrap(int.from_bytes(data, "big"))
        case Particle.FLOAT:
            return struct.unpack(">d", data)[0] if len(data) == struct.calcsize(">d") else UNKNOWN
        case Particle.STRING:
            return data.decode(errors="surrogateescape")
        case Particle.BLOB:
            return data
    return Packed(particle, data)


def encoded(value: Any) -> Result:
    """A value, but not UNKNOWN, as a bin holds it."""
    match value:
        case None:
            return Particle.NIL, b""
        case bool():
            return Particle.BOOL, bytes([value])
        case int():
            return Particle.INTEGER, struct.pack(">q", value)
        case float():
            return Particle.FLOAT, struct.pack(">d", value)
        case str():
            return Particle.STRING, value.encode(errors="surrogateescape")
        case bytes():
            return Particle.BLOB, value
    assert isinstance(value, Packed)
    return value.particle, value.data


def element(value: Any) -> bytes:
    """A value, but not UNKNOWN, as an element of a list or map."""
    particle, data = encoded(value)
    if particle in (Particle.LIST, Particle.MAP):
        return data
    if particle in (Particle.STRING, Particle.BLOB, Particle.HLL):
        value = bytes([particle]) + data
    elif particle == Particle.GEOJSON:
        value = bytes([particle]) + data[3 + 8 * int.from_bytes(data[1:3], "big") :]
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


def value_in(packed: bytes) -> tuple[int, Any]:
    """The type and the value of an element. Raises ProtocolError."""
    particle, data = particle_of(packed)
    if particle not in TYPES:
        raise ProtocolError(f"expressions know no values of type {particle}")
    return TYPES[particle], decoded(particle, data)


def name_in(packed: bytes) -> bytes:
    """The name of a bin or of a variable. Raises Refused where there is something else."""
    name = unpack_raw(packed)
    if not isinstance(name, bytes):
        raise Refused(ResultCode.PARAMETER)
    return name
