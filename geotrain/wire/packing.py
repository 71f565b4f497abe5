"""The dialect of msgpack inside lists, maps and expressions: strings and blobs carry a leading type byte.

Refuses to know what the values are for.
"""

from typing import Any

import msgpack

from geotrain.wire.codes import Particle, ProtocolError

_ORDER_MARKER_CODES = range(0x80)  # an ext of no data at the head of a list or map: its order flags
_TYPE_BYTES = {Particle.STRING: bytes([Particle.STRING]), Particle.BLOB: bytes([Particle.BLOB])}


def pack(value: Any) -> bytes:
    """A Python value in the dialect. Raises TypeError for a type that it can't carry."""
    packed: bytes = msgpack.packb(_typed(value), use_bin_type=False)
    return packed


def unpack(data: bytes) -> Any:
    """The Python value of `data`. Order markers of lists and maps are dropped. Raises ProtocolError."""
    try:
        return _untyped(unpack_raw(data))
    except RecursionError:
        raise ProtocolError("lists and maps are nested too deep") from None


def unpack_raw(data: bytes) -> Any:
    """The msgpack structure of `data` as it is: strings as bytes with their type bytes, if they have one.

    For expressions, where names of bins are strings without a type byte. Raises ProtocolError.
    """
    try:
        return msgpack.unpackb(data, raw=True, strict_map_key=False, object_pairs_hook=Pairs, use_list=True)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError(f"not msgpack: {error}") from None


def untype(data: bytes) -> str | bytes:
    """The string or blob in `data`, whose first byte is its type. Raises ProtocolError."""
    match data[:1]:
        case b"\x03":
            try:
                return data[1:].decode()
            except UnicodeDecodeError as error:
                raise ProtocolError(f"a string is not UTF-8: {error}") from None
        case b"\x04":
            return data[1:]
    raise ProtocolError(f"a string of type {data[:1].hex() or 'none'} is not known")


class Pairs(list[tuple[Any, Any]]):
    """A map as it travels, before it is known that its keys can be hashed."""


def _typed(value: Any) -> Any:
    match value:
        case str():
            return _TYPE_BYTES[Particle.STRING] + value.encode()
        case bytes():
            return _TYPE_BYTES[Particle.BLOB] + value
        case list():
            return [_typed(item) for item in value]
        case dict():
            return {_typed(key): _typed(item) for key, item in value.items()}
    return value


def _untyped(value: Any) -> Any:
    match value:
        case bytes():
            return untype(value)
        case Pairs():
            try:
                return {_untyped(key): _untyped(item) for key, item in value if not _is_order_marker(key)}
            except TypeError as error:
                raise ProtocolError(f"a map key is not of a scalar type: {error}") from None
        case list():
            return [_untyped(item) for item in value if not _is_order_marker(item)]
    return value


def _is_order_marker(value: Any) -> bool:
    return isinstance(value, msgpack.ExtType) and value.code in _ORDER_MARKER_CODES and not value.data
