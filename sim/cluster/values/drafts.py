"""A record on which operations are performed: its bins as they change, and what expressions ask about it. Pure."""

from sim.cluster.records import Bins, Record


class Draft(Bins):
    """The bins of a record while operations are performed on them, and what expressions ask about the record."""

    __slots__ = ("digest", "key", "last_update_ms", "now_ms", "row", "set_name", "void_time")

    def __init__(
        self,
        bins: Bins,
        *,
        digest: bytes = b"",
        set_name: bytes = b"",
        key: bytes = b"",
        last_update_ms: int = 0,
        void_time: int = 0,
        row: bytes = b"",
        now_ms: int = 0,
    ) -> None:
        super().__init__(bins)
        self.digest = digest
        self.set_name = set_name
        self.key = key
        self.last_update_ms = last_update_ms
        self.void_time = void_time
        self.row = row
        self.now_ms = now_ms

    def bin(self, name: bytes) -> bytes | None:
        """One bin as the operation that carries it, or None."""
        return self.get(name)


def draft_of(record: Record, now_ms: int) -> Draft:
    """A record as operations read it."""
    return Draft(
        record.bins(),
        digest=record.digest,
        set_name=record.set_name,
        key=record.key,
        last_update_ms=record.last_update_ms,
        void_time=record.void_time,
        row=record.row,
        now_ms=now_ms,
    )
