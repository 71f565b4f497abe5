"""Types of columns: their words in configuration, their Arrow types, and which values have them.

Knows neither records nor sockets.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

import pyarrow as pa

from geotrain.errors import DataError
from geotrain.wire.codes import MAX_BIN_NAME_BYTES, Particle
from geotrain.wire.particles import Opaque, Value

# A timestamp is an integer in the view: microseconds since the Unix epoch.
SCALARS: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "binary": pa.binary(),
    "timestamp": pa.timestamp("us"),
}
WORDS = {arrow_type: word for word, arrow_type in SCALARS.items()}
KNOWN = f"{', '.join(SCALARS)}, list<...>, map<..., ...>"

_PYTHON_TYPES = {"int64": int, "float64": float, "bool": bool, "string": str, "binary": bytes, "timestamp": int}
_PARTICLES = {
    "int64": Particle.INTEGER,
    "timestamp": Particle.INTEGER,
    "float64": Particle.FLOAT,
    "bool": Particle.BOOL,
    "string": Particle.STRING,
    "binary": Particle.BLOB,
}
_PARTICLE_WORDS = {particle: word for word, particle in _PARTICLES.items() if word != "timestamp"} | {
    Particle.LIST: "a list",
    Particle.MAP: "a map",
    Particle.HLL: "a HyperLogLog",
    Particle.GEOJSON: "GeoJSON",
}
MAX_INT64 = 2**63 - 1  # of an int64
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LIST = re.compile(r"list<(.+)>")
_MAP = re.compile(r"map<\s*(\w+)\s*,(.+)>")


def arrow_type(word: str) -> pa.DataType:
    """Returns the Arrow type that a word names, as in `list<int64>` or `map<string, float64>`. Raises ValueError."""
    word = word.strip()
    if word in SCALARS:
        return SCALARS[word]
    if match := _LIST.fullmatch(word):
        return pa.list_(arrow_type(match[1]))
    if (match := _MAP.fullmatch(word)) and match[1] in SCALARS:
        return pa.map_(SCALARS[match[1]], arrow_type(match[2]))
    raise ValueError(f"unknown type {word!r}")


def declared_types(set_name: str, columns: Mapping[str, str], reserved: Collection[str] = ()) -> dict[str, pa.DataType]:
    """Returns the Arrow types of declared columns. Raises DataError, also for names that no bin may have."""
    if not isinstance(columns, Mapping):
        raise DataError(f"set {set_name}: columns is {columns!r}", 'give names with types, like {"seats": "int64"}')
    types = {}
    for name, word in columns.items():
        try:
            types[name] = arrow_type(word)
        except (AttributeError, ValueError):  # the word may be none
            what = f"set {set_name}: column {name} has the unknown type {word!r}"
            raise DataError(what, f"use one of: {KNOWN}") from None
        if not 0 < len(name.encode()) <= MAX_BIN_NAME_BYTES or name in reserved:
            raise DataError(f"set {set_name}: column {name} can't be a bin", "bins have names of 1 to 15 bytes")
    return types


def type_word(of: pa.DataType) -> str:
    """Returns the word of an Arrow type: the inverse of `arrow_type`."""
    if pa.types.is_list(of):
        return f"list<{type_word(of.value_type)}>"
    if pa.types.is_map(of):
        return f"map<{type_word(of.key_type)}, {type_word(of.item_type)}>"
    return WORDS[of]


def particle_of(of: pa.DataType) -> int:
    """Returns the type that a column's values have on the wire."""
    if pa.types.is_list(of):
        return Particle.LIST
    return Particle.MAP if pa.types.is_map(of) else _PARTICLES[WORDS[of]]


def particle_word(particle: int) -> str:
    """Returns what to call a type of the wire in an error."""
    return _PARTICLE_WORDS.get(particle, f"a value of type {particle}")


def infer(records: Iterable[Mapping[str, Value]]) -> dict[str, str]:
    """Returns a type word for each bin of the records, in the order of their first appearance.

    Raises ValueError with the bin's name where one has several types, or one that no column has.
    """
    found: dict[str, pa.DataType] = {}
    for bins in records:
        for name, value in bins.items():
            try:
                found[name] = _common(found.get(name, pa.null()), _type_of(value))
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
    words = {}
    for name, of in found.items():
        try:
            words[name] = type_word(of)
        except KeyError:
            raise ValueError(f"{name} holds empty lists or maps only") from None
    return words


def as_stored(value: Any) -> Any:
    """Returns a value, or a structure of them, with datetimes as the view has them; without a zone they are UTC."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=value.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)
    return type(value)(map(as_stored, value)) if isinstance(value, list | tuple) else value


def to_arrow(values: Iterable[Any], of: pa.DataType) -> tuple[pa.Array, int]:
    """Returns Python values as an Arrow array, and how many are not of the type, at any depth: those are null."""
    values = list(values)
    if of in WORDS and set(map(type, values)) <= {_PYTHON_TYPES[WORDS[of]], type(None)}:
        with suppress(OverflowError):  # an integer beyond 64 bits: it is found below
            return pa.array(values, of), 0
    shaped: list[Any] = []
    num_mismatches = 0
    for value in values:
        try:
            shaped.append(_shaped(value, of))
        except ValueError:
            shaped.append(None)
            num_mismatches += 1
    return pa.array(shaped, of), num_mismatches


def _shaped(value: Any, of: pa.DataType) -> Any:
    """A Python value as Arrow takes it for a type. Raises ValueError where it is of another."""
    if value is None:
        return None
    if pa.types.is_list(of) and isinstance(value, list):
        return [_shaped(item, of.value_type) for item in value]
    if pa.types.is_map(of) and isinstance(value, dict) and None not in value:
        return [(_shaped(key, of.key_type), _shaped(item, of.item_type)) for key, item in value.items()]
    # Not isinstance: True is no integer. What a list holds may be an integer beyond 64 bits.
    if (
        of in WORDS
        and type(value) is _PYTHON_TYPES[WORDS[of]]
        and (type(value) is not int or -MAX_INT64 - 1 <= value <= MAX_INT64)
    ):
        return value
    raise ValueError


def _type_of(value: Value) -> pa.DataType:
    match value:
        case None:
            return pa.null()
        case Opaque(particle, _):
            raise ValueError(f"holds {particle_word(particle)}, which no column can")
        case list():
            return pa.list_(reduce(_common, map(_type_of, value), pa.null()))
        case dict() if not value:
            return pa.null()  # Arrow has no map whose keys are of no type
        case dict():
            keys = reduce(_common, map(_type_of, value), pa.null())
            return pa.map_(keys, reduce(_common, map(_type_of, value.values()), pa.null()))
    return next(SCALARS[word] for word, python_type in _PYTHON_TYPES.items() if type(value) is python_type)


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that has the values of both; null is that of no value at all. Raises ValueError."""
    if pa.types.is_null(one) or one == other:
        return other
    if pa.types.is_null(other):
        return one
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(_common(one.value_type, other.value_type))
    if pa.types.is_map(one) and pa.types.is_map(other):
        return pa.map_(_common(one.key_type, other.key_type), _common(one.item_type, other.item_type))
    raise ValueError(f"holds {_name(one)} and {_name(other)}")


def _name(of: pa.DataType) -> str:
    return WORDS.get(of, "a map" if pa.types.is_map(of) else "a list")
