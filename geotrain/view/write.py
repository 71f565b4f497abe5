"""Writes the rows of a table into a set of the view, by batches. Knows nothing of what the columns mean."""

import math
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Condition, Event
from typing import Any

import pyarrow as pa
from aerospike_helpers import expressions
from aerospike_helpers.batch.records import BatchRecords, Write

from geotrain.errors import ViewError
from geotrain.view.keyed import FILTERED_OUT, AerospikeError, Key, Records
from geotrain.view.pacing import Window
from geotrain.view.records import canonical, operations, storable
from geotrain.view.refusals import reason
from geotrain.view.retry import OVERLOADED, RETRYABLE, pauses

ROWS_PER_BATCH = 1000
BYTES_PER_BATCH = 4 * 1024 * 1024
# The client lets other threads run while it waits for the cluster; in the 0.1 s over an ocean it can encode 8 batches.
FIRST_BATCHES_IN_FLIGHT = 2
MAX_BATCHES_IN_FLIGHT = 8
MAX_NAMED_KEYS = 100

NO_RESPONSE = -15


@dataclass(slots=True)
class Unwritten:
    """Rows that were not seen to be written, for one reason; `keys` of the first `MAX_NAMED_KEYS`."""

    reason: str
    remedy: str
    num_rows: int = 0
    keys: list[Key] = field(default_factory=list)

    def add(self, num_rows: int, keys: Collection[Key]) -> None:
        self.num_rows += num_rows
        self.keys = [*self.keys, *keys][:MAX_NAMED_KEYS]


def _in_doubt() -> Unwritten:
    return Unwritten("sent, not answered, and not there when read back", "write them again, when the cluster answers")


@dataclass(slots=True)
class WriteResult:
    """What became of the rows of a table.

    written: rows that the view holds now. retried: attempts beyond the first, of all rows. skipped: rows for which the
    view held a newer one, or one as new. refused: result code -> rows. in_doubt: rows that may still be applied.
    """

    written: int = 0
    retried: int = 0
    skipped: int = 0
    refused: dict[int, Unwritten] = field(default_factory=dict)
    in_doubt: Unwritten = field(default_factory=_in_doubt)

    @property
    def unwritten(self) -> list[Unwritten]:
        return [rows for rows in (*self.refused.values(), self.in_doubt) if rows.num_rows]

    @property
    def num_rows(self) -> int:
        return self.written + self.skipped + sum(rows.num_rows for rows in self.unwritten)

    def refuse(self, code: int, num_rows: int, keys: Collection[Key]) -> None:
        self.refused.setdefault(code, Unwritten(*reason(code))).add(num_rows, keys)

    def add(self, other: "WriteResult") -> None:
        self.written += other.written
        self.retried += other.retried
        self.skipped += other.skipped
        for code, rows in other.refused.items():
            self.refuse(code, rows.num_rows, rows.keys)
        self.in_doubt.add(other.in_doubt.num_rows, other.in_doubt.keys)


class RowsUnwritten(ViewError):
    """Some rows were not seen to be written; `result` says which, and what became of the others."""

    def __init__(self, set_name: str, result: WriteResult) -> None:
        groups = [f"{rows.num_rows} ({rows.reason}; {rows.keys[0]!r} is one)" for rows in result.unwritten]
        super().__init__(
            f"writing set {set_name}: of {result.num_rows} rows these were not seen to be written: {', '.join(groups)}",
            "; ".join(rows.remedy for rows in result.unwritten),
        )
        self.result = result


def write(
    view: Records,
    table: Any,
    set_name: str,
    key: str,
    *,
    newer_by: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> WriteResult:
    """Writes each row as one record: its columns become the bins, nulls none; a record that exists is replaced.

    table: of Arrow, polars or pandas (whose NaN is a null, and whose index is no column).
    key: the column, of integers, strings or binary, that becomes the record's key (and is a bin too).
    newer_by: a column; where the view holds a record, it is replaced only if this bin is smaller there.
    progress: called with the number of rows whose fate is known, and of all, after each batch.
    Rows that the cluster can't take now are tried again, until it took none at all for `ride_through_s`; when it is
    slow, fewer batches are in flight. Rows in doubt are read back, and written again if they are not there: the same
    row twice does no harm where each key has one writer, or `newer_by` decides between several.
    Raises DataError for a table that can't be written, before anything is; RowsUnwritten where rows were not.
    """
    rows = storable(table, set_name, key, newer_by)
    size = max(1, min(ROWS_PER_BATCH, BYTES_PER_BATCH * rows.num_rows // max(rows.nbytes, 1)))
    writer = _Writer(view, set_name, key, newer_by)
    result = WriteResult()
    with ThreadPoolExecutor(MAX_BATCHES_IN_FLIGHT) as pool:
        try:
            for part in pool.map(writer.write, [rows.slice(start, size) for start in range(0, rows.num_rows, size)]):
                result.add(part)
                if progress:
                    progress(result.num_rows, rows.num_rows)
        finally:
            writer.stop()
    if result.unwritten:
        raise RowsUnwritten(set_name, result)
    return result


@dataclass(slots=True)
class _Writer:
    """Writes batches of one table, from several threads.

    settled_s: when the fate of a row last became known, on the monotonic clock.
    stopped: no row could be settled for as long as the cluster may take to recover; or nobody waits for the result.
    """

    view: Records
    set_name: str
    key: str
    newer_by: str | None
    settled_s: float = field(default_factory=time.monotonic)
    stopped: Event = field(default_factory=Event)
    room: Condition = field(default_factory=Condition)
    window: Window = field(default_factory=lambda: Window(limit=FIRST_BATCHES_IN_FLIGHT, most=MAX_BATCHES_IN_FLIGHT))

    def write(self, rows: pa.Table) -> WriteResult:
        result = WriteResult()
        left = self._writes(rows)
        doubtful: set[Key] = set()
        for attempt, pause_s in enumerate(pauses(math.inf)):
            if not self._send(left.values()):
                break
            result.retried += len(left) if attempt else 0
            if not any(write.result for write in left.values()):
                result.written += len(left)
                self.settled_s = time.monotonic()
                return result
            doubtful |= {key for key, write in left.items() if write.in_doubt}
            self._read_back({key: left[key] for key in doubtful & left.keys() if left[key].result != 0})
            num_left = len(left)
            left = {key: write for key, write in left.items() if not _settled(key, write, doubtful, result)}
            if len(left) < num_left:
                self.settled_s = time.monotonic()
            if not left:
                return result
            if time.monotonic() > self.settled_s + self.view.config.ride_through_s:
                break
            self.stopped.wait(pause_s)
        self.stop()
        for key, write in left.items():
            _give_up(key, write.result or NO_RESPONSE, doubtful, result)
        return result

    def stop(self) -> None:
        with self.room:
            self.stopped.set()
            self.room.notify_all()

    def _send(self, writes: Collection[Write]) -> bool:
        """Sends a batch when the window has room, and notes the outcome in its rows. Returns whether it was sent."""
        with self.room:
            self.room.wait_for(lambda: self.stopped.is_set() or self.window.has_room())
            if self.stopped.is_set():
                return False
            sent = self.window.sent()
        try:
            self.view.client.batch_write(BatchRecords(list(writes)))
        except AerospikeError as error:
            for write in writes:
                write.result, write.in_doubt = error.code or NO_RESPONSE, bool(error.in_doubt)
        finally:
            with self.room:
                self.window.answered(sent, overloaded=not OVERLOADED.isdisjoint([write.result for write in writes]))
                self.room.notify(2)  # the place that became free, and one by which the window may have grown
        return True

    def _read_back(self, writes: Mapping[Key, Write]) -> None:
        """Notes as written the rows in doubt that the view holds."""
        if not writes:
            return
        try:
            records = self.view.get_many(self.set_name, list(writes), reads="linearizable")
        except ViewError:
            return  # they stay in doubt, and are read back after the next attempt
        for write, record in zip(writes.values(), records, strict=True):
            if record and canonical(record.bins) == canonical({op["bin"]: op["val"] for op in write.ops}):
                write.result = 0

    def _writes(self, rows: pa.Table) -> dict[Key, Write]:
        keys = rows[self.key].to_pylist()
        writes = {
            key: Write(self.view.key(self.set_name, key), row) for key, row in zip(keys, operations(rows), strict=True)
        }
        if self.newer_by:
            for write, value in zip(writes.values(), rows[self.newer_by].to_pylist(), strict=True):
                write.policy = _only_if_newer(self.newer_by, value)
        return writes


def _only_if_newer(name: str, value: int | float) -> dict[str, Any]:
    held = (expressions.FloatBin if isinstance(value, float) else expressions.IntBin)(name)
    return {"expressions": expressions.LT(held, value).compile()}


def _settled(key: Key, write: Write, doubtful: Collection[Key], result: WriteResult) -> bool:
    """Counts a row whose fate is known. Returns whether it is."""
    if write.result == 0:
        result.written += 1
    elif write.result == FILTERED_OUT:
        result.skipped += 1
    elif write.result in RETRYABLE:
        return False
    else:
        _give_up(key, write.result, doubtful, result)
    return True


def _give_up(key: Key, code: int, doubtful: Collection[Key], result: WriteResult) -> None:
    if key in doubtful:
        result.in_doubt.add(1, [key])
    else:
        result.refuse(code, 1, [key])
