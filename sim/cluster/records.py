"""Records in their wire form: the row that a scan sends is the record, and everything else is cut out of it."""

from collections.abc import Iterable
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import NamedTuple
from weakref import WeakValueDictionary

from geotrain.wire.codes import EPOCH_S, Field, ResultCode
from geotrain.wire.messages import HEADER_BYTES, encode_field, pack_header
from sim.cluster.values.refused import Refused

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


MAX_SET_NAME_BYTES = 63
_RESERVED = set(":;")  # they separate sets in the answers to info requests
_NO_BINS = Shape((), ())


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


def check_set_name(name: bytes) -> None:
    """Raises Refused for what can't be the name of a set."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise Refused(ResultCode.PARAMETER) from None
    if len(name) > MAX_SET_NAME_BYTES or not text.isprintable() or set(text) & _RESERVED:
        raise Refused(ResultCode.PARAMETER)


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
    """The whole message with which a query sends this record. A tombstone has none, and so is never sent."""
    void_time: int = 0
    """When the record expires, in seconds since 2010; 0 is never."""

    @property
    def is_tombstone(self) -> bool:
        """Whether this is what a durable delete left."""
        return not self.row

    @property
    def num_bins(self) -> int:
        """How many bins the record has."""
        return len(self.shape.bounds)

    @property
    def ops(self) -> bytes:
        """All bins, as they travel."""
        return self.row[len(self.row) - self.shape.num_bytes :]

    @property
    def fields(self) -> bytes:
        """Namespace, digest, set and key, as they travel."""
        return self.row[HEADER_BYTES : len(self.row) - self.shape.num_bytes]

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


def make_record(
    owner: SetName, digest: bytes, key: bytes, generation: int, last_update_ms: int, bins: Bins, void_time: int = 0
) -> Record:
    """A record from its bins, of which there is at least one."""
    num_fields = owner.num_fields + bool(key)
    row = b"".join(
        (
            pack_header(HEADER_BYTES, 0, 0, 0, 0, 0, generation, void_time, 0, num_fields, len(bins)),
            owner.before_digest,
            digest,
            owner.after_digest,
            encode_field(Field.KEY, key) if key else b"",
            *bins.values(),
        )
    )
    return Record(digest, owner.name, key, generation, last_update_ms, shape_of(bins), row, void_time)


def make_tombstone(owner: SetName, digest: bytes, generation: int, last_update_ms: int) -> Record:
    """What a durable delete leaves, so that no old copy can bring the record back and its generations go on."""
    return Record(digest, owner.name, b"", generation, last_update_ms, _NO_BINS, b"")


class InOrder(NamedTuple):
    """Records in the order of their digests, without tombstones, and what spares a scan to look at each of them."""

    records: list[Record]
    rows: list[bytes]
    num_bytes: int
    """Of the rows."""
    shapes: frozenset[Shape]
    updated_ms: int
    """When the latest one was last updated."""
    first_void_time: int
    """When the first one expires, in seconds since 2010; 0 is never."""

    def select(self, after: bytes, now: int) -> "InOrder":
        """Those with a digest after this one that still live. now: in seconds since 2010."""
        if not after and not 0 < self.first_void_time < now:
            return self
        return in_order(record for record in self.records if after < record.digest and not 0 < record.void_time < now)


def in_order(records: Iterable[Record]) -> InOrder:
    """Some records as scans send them."""
    kept = sorted(filter(attrgetter("row"), records), key=attrgetter("digest"))
    if not kept:
        return InOrder([], [], 0, frozenset(), 0, 0)
    _, _, _, _, updated_ms, shapes, rows, void_times = zip(*kept, strict=True)  # one walk over records far apart
    return InOrder(
        records=kept,
        rows=list(rows),
        num_bytes=sum(map(len, rows)),
        shapes=frozenset(shapes),
        updated_ms=max(updated_ms),
        first_void_time=min(filter(None, void_times), default=0),
    )


def live(record: Record | None, now_ms: int) -> Record | None:
    """The record, if there is one and it is neither a tombstone nor expired."""
    if record is None or not record.row or (record.void_time and is_expired(record, now_ms)):
        return None
    return record


def is_expired(record: Record, now_ms: int) -> bool:
    """Whether the record's time is over."""
    return 0 < record.void_time < since_epoch(now_ms)


def since_epoch(now_ms: int) -> int:
    """A Unix time in milliseconds as a void-time: whole seconds since 2010."""
    return now_ms // 1000 - EPOCH_S
