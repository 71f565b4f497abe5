"""Transactions over several records: who has locked what, and what is written there until the transaction ends.

Partitions hold committed versions only, so everyone outside a transaction reads those. What a transaction has written
waits here, and is put in its place (rolled forward) or forgotten (rolled back). One table serves the whole cluster:
what of it a lost node would take along is not simulated.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from geotrain.wire import codes
from geotrain.wire.codes import Field, OpCode, ResultCode
from geotrain.wire.messages import OP_OVERHEAD, Operation, encode_field
from geotrain.wire.particles import decode_value
from sim.cluster.records import Record, since_epoch
from sim.cluster.values.refused import Refused

MONITORS = b"<ERO~MRT"
"""The set of the records with which clients keep track of their transactions."""

MAX_WRITES = 4096
TRANSACTION_S = 10
"""How long a transaction may last whose client doesn't say."""

ROLLS = codes.INFO4_ROLL_FORWARD | codes.INFO4_ROLL_BACK
_UINT64 = struct.Struct("<Q")
_UINT32 = struct.Struct("<I")
_VERSION_BYTES = 7
_LAST_UPDATE_MASK = (1 << 40) - 1
_ID_BIN, _FORWARD_BIN, _DIGESTS_BIN = b"id", b"fwd", b"keyds"

Place = tuple[bytes, bytes]
"""A record's set and digest."""


@dataclass(slots=True)
class Transaction:
    """A transaction that has written: until when it may, and the next version of each record that it has locked."""

    deadline: int
    """In seconds since 2010."""
    writes: dict[Place, Record | None] = field(default_factory=dict)


class Transactions:
    """All transactions that have written and not ended."""

    def __init__(self) -> None:
        self._open: dict[int, Transaction] = {}
        self._locks: dict[Place, int] = {}

    @property
    def num_writes(self) -> int:
        """How many records open transactions have written to."""
        return len(self._locks)

    def holder(self, place: Place) -> int:
        """The transaction that has locked a record, or 0."""
        return self._locks.get(place, 0)

    def written(self, place: Place) -> Record | None:
        """The next version of a locked record; a tombstone, or None, where it is deleted."""
        return self._open[self._locks[place]].writes[place]

    def write(self, transaction: int, deadline: int, place: Place, record: Record | None) -> None:
        """Lock a record, or keep its lock, and make this its next version."""
        self._locks[place] = transaction
        self._open.setdefault(transaction, Transaction(deadline)).writes[place] = record

    def release(self, transaction: int, place: Place) -> None:
        """Forget what the transaction has written to a record."""
        del self._locks[place]
        writes = self._open[transaction].writes
        del writes[place]
        if not writes:
            del self._open[transaction]

    def overdue(self, now_ms: int) -> dict[int, list[Place]]:
        """What the transactions hold whose time is over."""
        now = since_epoch(now_ms)
        return {number: list(each.writes) for number, each in self._open.items() if each.deadline < now}


def transaction_of(fields: Mapping[int, bytes]) -> int:
    """The transaction that a command is part of, or 0. Raises Refused."""
    data = fields.get(Field.TRANSACTION_ID)
    if data is None:
        return 0
    if len(data) != _UINT64.size:
        raise Refused(ResultCode.PARAMETER)
    return int(_UINT64.unpack(data)[0])


def deadline_of(fields: Mapping[int, bytes], now_ms: int) -> int:
    """Until when the transaction of a write may last, in seconds since 2010. Raises Refused once it is over."""
    data = fields.get(Field.TRANSACTION_DEADLINE, b"")
    if len(data) != _UINT32.size:
        raise Refused(ResultCode.PARAMETER)
    (deadline,) = _UINT32.unpack(data)
    if deadline < since_epoch(now_ms):
        raise Refused(ResultCode.TRANSACTION_EXPIRED)
    return int(deadline)


def version_of(record: Record | None) -> bytes:
    """The token by which a transaction recognizes the version of a record that it has read."""
    if record is None:
        return bytes(_VERSION_BYTES)
    token = (record.last_update_ms & _LAST_UPDATE_MASK) << 16 | record.generation
    return token.to_bytes(_VERSION_BYTES, "little")


def version_field(record: Record) -> bytes:
    """The field that tells a transaction which version it reads."""
    return encode_field(Field.RECORD_VERSION, version_of(record))


def deadline_field(monitor: Record) -> bytes:
    """The field that tells a client until when its transaction may last: as long as its monitor lives."""
    return encode_field(Field.TRANSACTION_DEADLINE, _UINT32.pack(monitor.void_time))


def check_version(fields: Mapping[int, bytes], committed: Record | None) -> None:
    """Refuse a command whose transaction has read another version than the committed one."""
    version = fields.get(Field.RECORD_VERSION)
    if version is not None and version != version_of(committed):
        raise Refused(ResultCode.VERSION_MISMATCH)


def check_monitor(monitor: Record | None, ops: Iterable[Operation]) -> None:
    """Refuse a write to a monitor that is not for its state. Raises Refused."""
    names = {op.name for op in ops if op.code in (OpCode.WRITE, OpCode.CDT_MODIFY)}
    if monitor is None:
        if _FORWARD_BIN in names:
            raise Refused(ResultCode.TRANSACTION_ABORTED)
        if _ID_BIN not in names:
            raise Refused(ResultCode.TRANSACTION_EXPIRED)
        return
    if _ID_BIN in names:
        raise Refused(ResultCode.MONITOR_EXISTS)
    if is_committed(monitor) and _DIGESTS_BIN in names:
        raise Refused(ResultCode.TRANSACTION_COMMITTED)


def check_size(monitor_bins: Mapping[bytes, bytes]) -> None:
    """Refuse a monitor that tracks more writes than a transaction may have."""
    op = monitor_bins.get(_DIGESTS_BIN)
    if op is None:
        return
    digests = decode_value(op[5], op[OP_OVERHEAD + len(_DIGESTS_BIN) :])
    if isinstance(digests, list) and len(digests) > MAX_WRITES:
        raise Refused(ResultCode.TOO_MANY_WRITES)


def is_committed(monitor: Record) -> bool:
    """Whether the client has decided that its transaction goes forward."""
    return monitor.bin(_FORWARD_BIN) is not None


def id_of(monitor: Record) -> int:
    """The transaction that a monitor belongs to."""
    op = monitor.bin(_ID_BIN)
    return int.from_bytes(op[OP_OVERHEAD + len(_ID_BIN) :], "big") if op is not None else 0
