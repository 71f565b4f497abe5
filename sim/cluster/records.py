"""Records in their wire form: the row that a scan sends is the record, and everything else is cut out of it."""

from itertools import accumulate, pairwise
from typing import NamedTuple
from weakref import WeakValueDictionary

from geotrain.wire.codes import Field
from geotrain.wire.messages import HEADER_BYTES, encode_field, pack_header

Bins = dict[bytes, bytes]
"""Bins by name, each as the operation that carries it in a reply, in the order in which the record holds them."""


class Shape:
    """The names and sizes of a record's bins. Records of one shape share it, so it costs a record nothing."""

    __slots__ = ("__weakref__", "bounds", "num_bytes")

    def __init__(self, names: tuple[bytes, ...], sizes: tuple[int, ...]) -> None:
        ends = list(accumulate(sizes, initial=0))
        self.num_bytes = ends[-1]
        self.bounds = dict(zip(names, pairwise(ends), strict=True))
        """Where each bin lies among the record's operations."""


_shapes: WeakValueDictionary[tuple[tuple[bytes, ...], tuple[int, ...]], Shape] = WeakValueDictionary()


def shape_of(bins: Bins) -> Shape:
    """The one shape for bins of these names and sizes."""
    key = (tuple(bins), tuple(map(len, bins.values())))
    shape = _shapes.get(key)
    if shape is None:
        shape = _shapes[key] = Shape(*key)
    return shape


class SetName(NamedTuple):
    """A set, with the fields that its records carry in a row."""

    name: bytes
    before_digest: bytes
    after_digest: bytes
    num_fields: int


def set_name_of(namespace: str, name: bytes) -> SetName:
    """The set `name` of a namespace; an empty name is the records without a set."""
    before = encode_field(Field.NAMESPACE, namespace.encode()) + encode_field(Field.DIGEST, bytes(20))[:5]
    after = encode_field(Field.SET, name) if name else b""
    return SetName(name, before, after, 3 if name else 2)


class Record(NamedTuple):
    """One version of a record, never changed: all nodes that hold a copy share it."""

    digest: bytes
    set_name: bytes
    key: bytes
    """Type byte and value of the user's key, or nothing where the writer did not send it."""
    generation: int
    last_update_ms: int
    shape: Shape
    row: bytes
    """The whole message with which a query sends this record."""

    @property
    def num_bins(self) -> int:
        """How many bins the record has."""
        return len(self.shape.bounds)

    @property
    def ops(self) -> bytes:
        """All bins, as they travel."""
        return self.row[-self.shape.num_bytes :]

    @property
    def fields(self) -> bytes:
        """Namespace, digest, set and key, as they travel."""
        return self.row[HEADER_BYTES : -self.shape.num_bytes]

    def bin(self, name: bytes) -> bytes | None:
        """One bin as the operation that carries it, or None."""
        bounds = self.shape.bounds.get(name)
        if bounds is None:
            return None
        start = len(self.row) - self.shape.num_bytes
        return self.row[start + bounds[0] : start + bounds[1]]

    def bins(self) -> Bins:
        """All bins by name."""
        ops = self.ops
        return {name: ops[start:end] for name, (start, end) in self.shape.bounds.items()}


def make_record(owner: SetName, digest: bytes, key: bytes, generation: int, last_update_ms: int, bins: Bins) -> Record:
    """A record from its bins, of which there is at least one."""
    row = b"".join(
        (
            pack_header(HEADER_BYTES, 0, 0, 0, 0, 0, generation, 0, 0, owner.num_fields + bool(key), len(bins)),
            owner.before_digest,
            digest,
            owner.after_digest,
            encode_field(Field.KEY, key) if key else b"",
            *bins.values(),
        )
    )
    return Record(digest, owner.name, key, generation, last_update_ms, shape_of(bins), row)
