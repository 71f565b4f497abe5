"""The elements of lists and maps: kept packed, as they travel, and unpacked only to be compared. Pure."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import msgpack

from geotrain.wire.codes import Particle, ProtocolError, ResultCode
from geotrain.wire.packing import Pairs, unpack_raw
from sim.cluster.values.refused import Refused

ORDERED = 0x01  # of a list: sorted by value; of a map: by key, as here every map is
VALUE_ORDERED = 0x02
PRESERVE_ORDER = 0x08  # a map that clients show as a list of pairs

NIL = b"\xc0"
_MARKER = b"\xc7\x00"  # an ext of no data whose type is the flags of the list or map that it opens
_WILDCARD, _INFINITY = b"\xd4\xff\x00", b"\xd4\xff\x01"  # which only comparisons know

_TYPES = {type(None): 1, bool: 2, int: 4, list: 7, Pairs: 8, float: 10, msgpack.ExtType: 12}
_STRING, _BYTES, _GEOJSON, _LAST = 6, 9, 11, 14
"""The order between types: nil, false, true, integer, string, list, map, blob, float, GeoJSON."""

_STRING_TYPES = {Particle.STRING: _STRING, Particle.GEOJSON: _GEOJSON}

Key = tuple[Any, ...]
"""What an element is compared by."""


@dataclass(slots=True)
class List:
    """A list of packed elements."""

    items: list[bytes]
    flags: int = 0

    @property
    def values(self) -> list[bytes]:
        """The elements in the order of their indexes."""
        return self.items

    def pack(self) -> bytes:
        """The list as it travels."""
        marker = [_MARKER + bytes([self.flags])] if self.flags else []
        header: bytes = msgpack.Packer().pack_array_header(len(self.items) + len(marker))
        return b"".join((header, *marker, *self.items))


@dataclass(slots=True)
class Map:
    """A map of packed keys and values, always in the order of its keys."""

    items: dict[bytes, bytes]
    flags: int = 0

    @property
    def values(self) -> list[bytes]:
        """The values in the order of their indexes."""
        return list(self.items.values())

    def pack(self) -> bytes:
        """The map as it travels."""
        marker = [_MARKER + bytes([self.flags]) + NIL] if self.flags else []
        header: bytes = msgpack.Packer().pack_map_header(len(self.items) + len(marker))
        return b"".join((header, *marker, *(part for item in self.items.items() for part in item)))


Container = List | Map


def unpack_list(packed: bytes) -> List:
    """The list in `packed`. Raises ProtocolError."""
    items = split(packed)
    if items and items[0].startswith(_MARKER):
        return List(items[1:], items[0][2] & ORDERED)
    return List(items)


def unpack_map(packed: bytes) -> Map:
    """The map in `packed`. Raises ProtocolError."""
    parts = _split(packed, msgpack.Unpacker.read_map_header, 2)
    flags = 0
    if parts and parts[0].startswith(_MARKER):
        flags = parts[0][2] & (ORDERED | VALUE_ORDERED)
        parts = parts[2:]
    return Map(sorted_items(dict(zip(parts[::2], parts[1::2], strict=True))), flags)


def sorted_items(items: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The items of a map in the order of its keys."""
    if len(items) < 2:
        return items
    return {key: items[key] for key in sorted(items, key=order_key)}


def split(packed: bytes) -> list[bytes]:
    """The elements of a list, each packed. Raises ProtocolError."""
    return _split(packed, msgpack.Unpacker.read_array_header, 1)


def _split(packed: bytes, read_header: Callable[[Any], int], parts_per_item: int) -> list[bytes]:
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
    unpacker.feed(packed)
    try:
        num_parts = read_header(unpacker) * parts_per_item
        bounds = [unpacker.tell()]
        for _ in range(num_parts):
            unpacker.skip()
            bounds.append(unpacker.tell())
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError(f"not a packed list or map: {error}") from None
    if bounds[-1] != len(packed):
        raise ProtocolError("bytes follow after a packed list or map")
    return [packed[start:end] for start, end in pairwise(bounds)]


def order_key(packed: bytes) -> Key:
    """What an element is compared by; elements are equal where their keys are. Raises ProtocolError."""
    head = packed[0]
    if head < 0x80:  # small integers and short strings, as most elements are, need no unpacking
        return _TYPES[int], head
    if 0xA0 < head < 0xC0 and len(packed) == head - 0x9F:
        return _STRING_TYPES.get(packed[1], _BYTES), packed[1:]
    if packed == _INFINITY:
        return (_LAST,)
    try:
        return _key(unpack_raw(packed))
    except RecursionError:
        raise ProtocolError("lists and maps are nested too deep") from None


def _key(value: Any) -> Key:
    if isinstance(value, bytes):
        return _STRING_TYPES.get(value[0], _BYTES) if value else _BYTES, value
    kind = _TYPES[type(value)]
    match value:
        case None:
            return (kind,)
        case Pairs():  # before list, of which it is a kind
            pairs = sorted((_key(key), _key(item)) for key, item in value if not _is_marker(key))
            return kind, len(pairs), tuple(pairs)
        case list():
            return kind, tuple(_key(item) for item in value if not _is_marker(item))
        case msgpack.ExtType():
            return kind, value.data
    return kind, value


def _is_marker(value: Any) -> bool:
    return isinstance(value, msgpack.ExtType) and not value.data


class Sought(NamedTuple):
    """An element to compare others with. It may end in a wildcard, which equals whatever stands there."""

    key: Key
    num_compared: int | None = None
    """How many elements of a list count, where a wildcard follows them."""

    def view(self, key: Key) -> Key:
        """The part of another element's key that counts."""
        if self.num_compared is None:
            return key
        if not self.key:
            return ()
        return (key[0], key[1][: self.num_compared]) if key[0] == self.key[0] else key


def sought(packed: bytes) -> Sought:
    """An element to look for. Raises ProtocolError."""
    if packed == _WILDCARD:
        return Sought((), 0)
    if _WILDCARD[:2] not in packed or not is_list(packed):
        return Sought(order_key(packed))
    items = split(packed)
    num_compared = items.index(_WILDCARD) if _WILDCARD in items else None
    return Sought((_TYPES[list], tuple(map(order_key, items[:num_compared]))), num_compared)


def storable(packed: bytes) -> bytes:
    """The element, if it may be part of a record: no wildcard, no infinity. Raises ProtocolError."""
    if _WILDCARD[:2] in packed:
        unpack_raw(packed)
    return packed


def is_list(packed: bytes) -> bool:
    """Whether an element is a list."""
    return packed[0] & 0xF0 == 0x90 or packed[0] in (0xDC, 0xDD)


def is_map(packed: bytes) -> bool:
    """Whether an element is a map."""
    return packed[0] & 0xF0 == 0x80 or packed[0] in (0xDE, 0xDF)


def has_unordered_map(packed: bytes) -> bool:
    """Whether there is a map without an order in it: such maps can't be compared."""
    return _has_unordered_map(unpack_raw(packed))


def _has_unordered_map(value: Any) -> bool:
    match value:
        case Pairs():
            return not _is_marker(value[0][0]) or any(_has_unordered_map(item) for _, item in value) if value else False
        case list():
            return any(map(_has_unordered_map, value))
    return False


def integer(packed: bytes) -> int:
    """The integer in an element. Raises Refused."""
    value = unpack_raw(packed)
    if type(value) is not int:
        raise Refused(ResultCode.PARAMETER)
    return value


def pack_integer(value: int) -> bytes:
    """An integer as an element; it wraps at 64 bits."""
    packed: bytes = msgpack.packb(wrap(value))
    return packed


def added(present: bytes | None, packed: bytes | None, *, sign: int = 1) -> bytes:
    """A number, or nothing, plus another, or one; in the type of what is there. Raises Refused."""
    value = 0 if present is None else unpack_raw(present)
    delta = 1 if packed in (None, NIL) else unpack_raw(packed)
    if not {type(value), type(delta)} <= {int, float}:
        raise Refused(ResultCode.PARAMETER)
    delta *= sign
    if present is None or type(value) is type(delta):
        total = value + delta
    else:
        total = value + (int(delta) if type(value) is int else float(delta))
    return pack_integer(total) if type(total) is int else msgpack.packb(total)


def wrap(value: int) -> int:
    """Integers of a server have 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def particle_of(packed: bytes) -> tuple[int, bytes]:
    """An element as the value of a bin. Raises ProtocolError."""
    if is_list(packed):
        return Particle.LIST, packed
    if is_map(packed):
        return Particle.MAP, packed
    match unpack_raw(packed):
        case None:
            return Particle.NIL, b""
        case bool(value):
            return Particle.BOOL, bytes([value])
        case int(value):
            return Particle.INTEGER, struct.pack(">Q", value & (1 << 64) - 1)
        case float(value):
            return Particle.FLOAT, struct.pack(">d", value)
        case bytes(value) if value[:1] == bytes([Particle.GEOJSON]):
            return Particle.GEOJSON, b"\0\0\0" + value[1:]  # no flags, no cells: these are of use to an index only
        case bytes(value) if value:
            return value[0], value[1:]
    raise ProtocolError("an element of a type that no bin can hold")
