"""Secondary indexes: what they are defined on, and which records a query by index finds. Pure.

An index of the simulation keeps nothing: a query looks through its partitions, and answers in the order of a real one.
"""

import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from geotrain.wire.codes import Field, Particle, ProtocolError, ResultCode
from geotrain.wire.messages import HEADER_BYTES, OP_OVERHEAD, Message, encode_field
from geotrain.wire.particles import decode_value
from sim.cluster.expression.expression_values import UNKNOWN, encoded
from sim.cluster.expression.expressions import compiled
from sim.cluster.records import Record
from sim.cluster.values.changes import NOTHING, Result
from sim.cluster.values.nested import element_at, path_of
from sim.cluster.values.refused import Refused

TYPES = {"numeric": Particle.INTEGER, "integer": Particle.INTEGER, "string": Particle.STRING, "blob": Particle.BLOB}
"""The particles that can be indexed, by the names that definitions use; locations are not simulated."""

SOURCES = ("default", "list", "mapkeys", "mapvalues", "set")
"""What of a bin is indexed: its value, or the elements, keys or values in it; or only that the record is in the set,
which helps scans. Queries send the position."""

_INT = struct.Struct(">q")
_VALUE = struct.Struct("<q")
_UINT32 = struct.Struct(">I")
_NUM_FIELDS_AT = HEADER_BYTES - 4
_PYTHON_TYPES: dict[int, type] = {Particle.INTEGER: int, Particle.STRING: str, Particle.BLOB: bytes}


class Definition(NamedTuple):
    """What an index is on. `source` is a position in SOURCES."""

    set_name: bytes
    bin: bytes
    """Empty where an expression says what is indexed, or nothing but the set does."""
    particle: int
    source: int
    context: bytes = b""
    """The way from the bin to the part of it that is indexed, packed."""
    expression: bytes = b""

    @property
    def whole(self) -> int | None:
        """The particle of what the indexed values are in, or of the one that is indexed; None for the set."""
        return (self.particle, Particle.LIST, Particle.MAP, Particle.MAP, None)[self.source]

    def values(self, record: Record) -> Iterable[Any]:
        """The values under which the index has a record; none where its bin is of another type or malformed."""
        try:
            particle, data = self._indexed(record)
            if particle != self.whole:
                return ()
            found: Any = decode_value(particle, data)
        except (ProtocolError, Refused):
            return ()
        if self.source == 0:
            return (found,)
        elements = found.values() if SOURCES[self.source] == "mapvalues" else found
        kind = _PYTHON_TYPES[self.particle]
        return (element for element in elements if type(element) is kind)

    def _indexed(self, record: Record) -> Result:
        """The value of the expression or bin, or the part of it to which the context leads. Raises Refused."""
        if self.expression:
            value = compiled(self.expression).evaluate(record, 0)
            return NOTHING if value is UNKNOWN else encoded(value)
        op = record.bin(self.bin)
        if op is None:
            return NOTHING
        particle, data = op[5], op[OP_OVERHEAD + len(self.bin) :]
        return element_at(particle, data, path_of(self.context)) if self.context else (particle, data)


_PLAIN_INTEGER = (Particle.INTEGER, 0, b"", b"")
"""All but the set and the bin of the most usual definition."""


class Entries:
    """How many entries an index has in a set. Counted as records change; what is there before has to be added."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self.num_records: defaultdict[int, int] = defaultdict(int)
        """How many records the index has, by partition."""
        self.num_entries: defaultdict[int, int] = defaultdict(int)
        self._uses: defaultdict[int, int] = defaultdict(int)

    @property
    def num_values(self) -> int:
        """Under how many different values the index has records."""
        return len(self._uses)

    def add(self, pid: int, record: Record) -> None:
        """Count a record in."""
        num_before = self.num_entries[pid]
        for value in self._definition.values(record):
            self._uses[order(value)] += 1
            self.num_entries[pid] += 1
        self.num_records[pid] += self.num_entries[pid] > num_before

    def remove(self, pid: int, record: Record) -> None:
        """Count a record out that has been counted in."""
        num_before = self.num_entries[pid]
        for value in self._definition.values(record):
            number = order(value)
            self.num_entries[pid] -= 1
            self._uses[number] -= 1
            if not self._uses[number]:
                del self._uses[number]
        self.num_records[pid] -= self.num_entries[pid] < num_before


class Lookup(NamedTuple):
    """A query by index: a definition, and the range of values that are looked for, both ends included."""

    definition: Definition
    begin: Any
    end: Any

    def key(self, record: Record) -> int | None:
        """The number under which the index orders a record that is looked for, or None for any other."""
        definition = self.definition
        if definition[2:] == _PLAIN_INTEGER:  # quickly
            op = record.bin(definition.bin)
            value_at = OP_OVERHEAD + len(definition.bin)
            if op is None or op[5] != Particle.INTEGER or len(op) != value_at + _INT.size:
                return None
            number: int = _INT.unpack_from(op, value_at)[0]
            return number if self.begin <= number <= self.end else None
        found = [value for value in self.definition.values(record) if self.begin <= value <= self.end]
        return order(min(found)) if found else None

    def select(self, records: Iterable[Record], after: bytes, after_key: int) -> list[Record]:
        """The records that are looked for, in the order of the index, behind a digest (none: from the beginning)."""
        keyed = [(key, record.digest, record) for record in records if (key := self.key(record)) is not None]
        if after:
            keyed = [entry for entry in keyed if entry[:2] > (after_key, after)]
        return [record for _, _, record in sorted(keyed)]

    def with_key(self, project: Callable[[Record], bytes]) -> Callable[[Record], bytes]:
        """Rows that also say where in the index they stand, so that a query can be resumed there."""

        def projected(record: Record) -> bytes:
            row, key = project(record), self.key(record)
            if not row or key is None:
                return b""
            num_fields = int.from_bytes(row[_NUM_FIELDS_AT : _NUM_FIELDS_AT + 2], "big") + 1
            header = row[:_NUM_FIELDS_AT] + num_fields.to_bytes(2, "big") + row[_NUM_FIELDS_AT + 2 : HEADER_BYTES]
            return header + encode_field(Field.BVALS, _VALUE.pack(key)) + row[HEADER_BYTES:]

        return projected


def order(value: Any) -> int:
    """The 64-bit number by which an index orders a value: integers are their own, all else is hashed."""
    if isinstance(value, int):
        return value
    data = value.encode() if isinstance(value, str) else value
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big", signed=True)


def lookup_of(indexes: Mapping[str, Definition], request: Message) -> Lookup | None:
    """What a query looks for by index, or None for one that doesn't use any. Raises Refused and ProtocolError."""
    fields = request.fields
    if Field.INDEX_RANGE not in fields:
        return None
    bin_name, particle, begin, end = _decode_range(fields[Field.INDEX_RANGE])
    source = int.from_bytes(fields.get(Field.INDEX_TYPE, b""), "big")
    if source >= len(SOURCES) or (particle != Particle.INTEGER and begin != end):
        raise Refused(ResultCode.PARAMETER)
    context, expression = fields.get(Field.INDEX_CONTEXT, b""), fields.get(Field.INDEX_EXPRESSION, b"")
    wanted = Definition(fields.get(Field.SET, b""), bin_name, particle, source, context, expression)
    if Field.INDEX_NAME in fields:
        found = indexes.get(fields[Field.INDEX_NAME].decode(errors="replace"))
        if found is None:
            raise Refused(ResultCode.INDEX_NOT_FOUND)
        if (found.set_name, found.particle, found.source) != (wanted.set_name, particle, source):
            raise Refused(ResultCode.PARAMETER)
        return Lookup(found, begin, end)
    if wanted not in indexes.values():
        raise Refused(ResultCode.INDEX_NOT_FOUND)
    return Lookup(wanted, begin, end)


def keys_of(fields: Mapping[int, bytes]) -> list[int]:
    """Where in the index a resumed query goes on, for each of the digests behind which it does."""
    data = fields.get(Field.BVALS, b"")
    return [key for (key,) in _VALUE.iter_unpack(data[: len(data) // _VALUE.size * _VALUE.size])]


def _decode_range(data: bytes) -> tuple[bytes, int, Any, Any]:
    """The bin, the particle, and the first and last value of a range. Raises Refused and ProtocolError."""
    try:
        num_ranges, name_size = data[0], data[1]
        name, particle = data[2 : 2 + name_size], data[2 + name_size]
        at = 3 + name_size
        ends = []
        for _ in range(2):
            (size,) = _UINT32.unpack_from(data, at)
            ends.append(data[at + 4 : at + 4 + size])
            at += 4 + size
    except (IndexError, struct.error):
        raise ProtocolError("an index range is cut short") from None
    if num_ranges != 1 or at != len(data):
        raise ProtocolError("not one index range")
    if particle not in _PYTHON_TYPES:
        raise Refused(ResultCode.UNSUPPORTED)
    begin, end = (decode_value(particle, raw) for raw in ends)
    return name, particle, begin, end
