"""Particles: one value of a bin, as bytes and as a Python value. Refuses to know what a bin is for."""

import struct
from typing import NamedTuple

from geotrain.wire import packing
from geotrain.wire.codes import Particle, ProtocolError

_INT = struct.Struct(">q")
_FLOAT = struct.Struct(">d")


class Opaque(NamedTuple):
    """A value of a type that geotrain does not read (GeoJSON, HyperLogLog, ...): carried unchanged."""

    particle: int
    data: bytes


Value = None | bool | int | float | str | bytes | list["Value"] | dict["Value", "Value"] | Opaque


def encode_value(value: Value) -> tuple[int, bytes]:
    """The particle type and the bytes of a Python value. Raises TypeError for a type with no particle."""
    match value:
        case None:
            return Particle.NIL, b""
        case Opaque(particle, data):
            return particle, data
        case bool():
            return Particle.BOOL, b"\1" if value else b"\0"
        case int():
            return Particle.INTEGER, _INT.pack(value)
        case float():
            return Particle.FLOAT, _FLOAT.pack(value)
        case str():
            return Particle.STRING, value.encode()
        case bytes():
            return Particle.BLOB, value
        case list():
            return Particle.LIST, packing.pack(value)
        case dict():
            return Particle.MAP, packing.pack(value)
    raise TypeError(f"a {type(value).__name__} can't be the value of a bin")


def decode_value(particle: int, data: bytes) -> Value:
    """The Python value of a particle. Raises ProtocolError."""
    try:
        match particle:
            case Particle.NIL:
                return None
            case Particle.BOOL:
                return data != b"\0"
            case Particle.INTEGER:
                return int(_INT.unpack(data)[0])
            case Particle.FLOAT:
                return float(_FLOAT.unpack(data)[0])
            case Particle.STRING:
                return data.decode()
            case Particle.BLOB:
                return data
            case Particle.LIST | Particle.MAP:
                value: Value = packing.unpack(data)
                return value
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"a particle of type {particle} is malformed: {error}") from None
    return Opaque(particle, data)
