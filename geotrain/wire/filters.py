"""Filter expressions: which rows a server may leave out, as it reads them. Knows bins and times, and no columns."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from geotrain.wire.codes import MAX_BIN_NAME_BYTES, Particle

Condition = tuple[str, str, Any]
Where = Sequence[Condition] | Sequence[Sequence[Condition]]
Expression = list[Any]

_EQUAL, _NOT_EQUAL, _GREATER, _LESS_OR_EQUAL = 1, 2, 3, 6
_COMPARISONS = {"==": _EQUAL, "!=": _NOT_EQUAL, ">": _GREATER, ">=": 4, "<": 5, "<=": _LESS_OR_EQUAL}
_AND, _OR, _NOT, _LAST_UPDATE, _BIN, _BIN_TYPE = 16, 17, 18, 66, 81, 82
_BIN_TYPES = {Particle.BOOL: 1, Particle.INTEGER: 2, Particle.STRING: 3, Particle.BLOB: 6, Particle.FLOAT: 7}
_PARTICLES: dict[type, int] = {
    bool: Particle.BOOL,
    int: Particle.INTEGER,
    float: Particle.FLOAT,
    str: Particle.STRING,
    bytes: Particle.BLOB,
}
_WORDS = {particle: kind.__name__ for kind, particle in _PARTICLES.items()}


def encode_filter(
    where: Where | None,
    particles: Mapping[str, int] | None = None,
    *,
    after_ns: int | None = None,
    until_ns: int | None = None,
) -> bytes:
    """Returns the expression that is true for the rows wanted, or nothing where all are. Raises ValueError.

    where: conditions (bin, comparison, value) that must all hold, or a list of such lists, of which one must hold.
        Comparisons: == != < <= > >= in "not in". A row without the bin, or with another type in it, meets none of them.
    particles: the types of bins, where they are known; otherwise a bin has the type of the value.
    after_ns, until_ns: after_ns < last update <= until_ns, in nanoseconds since the Unix epoch.
    """
    parts: list[Expression] = []
    if after_ns is not None:
        parts.append([_GREATER, [_LAST_UPDATE], after_ns])
    if until_ns is not None:
        parts.append([_LESS_OR_EQUAL, [_LAST_UPDATE], until_ns])
    if where:
        parts.append(_joined(_OR, [_conjunction(conditions, particles or {}) for conditions in _alternatives(where)]))
    if not parts:
        return b""
    packed: bytes = msgpack.packb(_joined(_AND, parts), unicode_errors="surrogateescape")
    return packed


def encode_presence(name: str) -> bytes:
    """Returns the expression that is true for the rows that have a bin, whatever it holds."""
    packed: bytes = msgpack.packb([_NOT_EQUAL, [_BIN_TYPE, name], int(Particle.NIL)])
    return packed


def named_bins(where: Where | None) -> set[str]:
    """Returns the bins that conditions are about. Raises ValueError."""
    encode_filter(where)
    return {name for conditions in _alternatives(where) for name, _, _ in conditions} if where else set()


def _alternatives(where: Any) -> Any:
    return where if isinstance(next(iter(where)), list) else [where]


def _joined(operator: int, parts: list[Expression]) -> Expression:
    return [operator, *parts] if len(parts) > 1 else parts[0]


def _conjunction(conditions: Any, particles: Mapping[str, int]) -> Expression:
    if not isinstance(conditions, Sequence) or isinstance(conditions, str) or not conditions:
        raise ValueError(f"a filter is a list of conditions (bin, comparison, value), not {conditions!r}")
    return _joined(_AND, [_condition(condition, particles) for condition in conditions])


def _condition(condition: Any, particles: Mapping[str, int]) -> Expression:
    if not isinstance(condition, tuple | list) or len(condition) != 3 or not isinstance(condition[0], str):
        raise ValueError(f"a condition of a filter is (bin, comparison, value), not {condition!r}")
    name, comparison, value = condition
    if not 0 < len(name.encode()) <= MAX_BIN_NAME_BYTES:
        raise ValueError(f"a filter names the bin {name!r}; names have 1 to {MAX_BIN_NAME_BYTES} bytes")
    if comparison in _COMPARISONS:
        return _compared(_COMPARISONS[comparison], name, value, particles)
    if comparison not in ("in", "not in"):
        known = ", ".join([*_COMPARISONS, "in", "not in"])
        raise ValueError(f"the filter on {name} has the unknown comparison {comparison!r}; known are {known}")
    if not isinstance(value, Collection) or isinstance(value, str | bytes) or not value:
        raise ValueError(f"the filter on {name} needs a list of values after {comparison!r}, not {value!r}")
    found = _joined(_OR, [_compared(_EQUAL, name, each, particles) for each in value])
    return found if comparison == "in" else [_NOT, found]


def _compared(operator: int, name: str, value: Any, particles: Mapping[str, int]) -> Expression:
    value = value.item() if isinstance(value, np.generic) else value
    if type(value) not in _PARTICLES:
        raise ValueError(f"the filter on {name} compares with {value!r}; a bin is compared with {_known()}")
    held = particles.get(name, _PARTICLES[type(value)])
    if held == Particle.FLOAT and type(value) is int:
        value = float(value)
    if held != _PARTICLES[type(value)]:
        word = _WORDS.get(held, "list or map")
        raise ValueError(f"the filter on {name} compares with {value!r}, but {name} holds values of type {word}")
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"the filter on {name} compares with {value}, which has more than 64 bits")
    return [operator, [_BIN, _BIN_TYPES[held], name], _constant(value)]


def _constant(value: Any) -> Any:
    # Strings and blobs travel as strings of which the first byte is the type.
    match value:
        case str():
            return chr(Particle.STRING) + value
        case bytes():
            return chr(Particle.BLOB) + value.decode(errors="surrogateescape")
    return value


def _known() -> str:
    return ", ".join(_WORDS.values())
