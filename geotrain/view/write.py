"""Writes the rows of a table into a set of the view, by batches. Knows nothing of what the columns mean."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import aerospike
import polars as pl
import polars.selectors as selectors
import pyarrow as pa
from aerospike_helpers import expressions
from aerospike_helpers.batch.records import BatchRecords, Write

from geotrain.errors import DataError, ViewError
from geotrain.view.connect import AerospikeError, Key, View, refusal
from geotrain.view.retry import RETRYABLE, pauses

ROWS_PER_BATCH = 1000
# The client lets other threads run while it waits for the cluster: one fills a batch while others wait.
NUM_THREADS = 4
MAX_BIN_NAME_BYTES = 15
WRITABLE = (pl.UInt8, pl.UInt16, pl.UInt32, pl.Float32, pl.Float64, pl.String, pl.Boolean, pl.Null)

NO_RESPONSE = -15
FILTERED_OUT = 27


@dataclass(slots=True)
class WriteResult:
    """What became of the rows of a table.

    written: rows that the view holds now. retried: attempts beyond the first, of all rows. skipped: rows for which the
    view held a newer one, or this one already. refused: key -> result code of rows that were not seen to be written;
    those with code 9 or below 0 are in doubt.
    """

    written: int = 0
    retried: int = 0
    skipped: int = 0
    refused: dict[Key, int] = field(default_factory=dict)

    def add(self, other: "WriteResult") -> None:
        self.written += other.written
        self.retried += other.retried
        self.skipped += other.skipped
        self.refused |= other.refused


class RowsRefused(ViewError):
    """Some rows could not be written; `result` says which, and what became of the others."""

    def __init__(self, set_name: str, result: WriteResult) -> None:
        (code, count), *_ = Counter(result.refused.values()).most_common()
        first = refusal(f"writing set {set_name}: {len(result.refused)} rows refused, {count} of them because", code)
        super().__init__(first.what, first.remedy)
        self.result = result


def write(
    view: View, table: pa.Table | pl.DataFrame, set_name: str, key: str, *, newer_by: str | None = None
) -> WriteResult:
    """Writes each row as one record: its columns become the bins, nulls none; a record that exists is replaced.

    key: the column, of strings or integers, that becomes the record's key (and is a bin too).
    newer_by: a column; where the view holds a record, it is replaced only if this bin is smaller there.
    Rows that the cluster can't take now are tried again for `ride_through_s`, those in doubt too: to write the same row
    twice does no harm where each key has one writer, or `newer_by` decides between several.
    Raises DataError for a table that can't be written, RowsRefused where rows were refused.
    """
    frame = pl.DataFrame(table)
    frame = frame.with_columns(selectors.datetime().dt.epoch("us"))
    _check(frame, set_name, key, newer_by)
    batches = _Batches(view, set_name, key, newer_by)
    result = WriteResult()
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for part in pool.map(batches.write, frame.iter_slices(ROWS_PER_BATCH)):
            result.add(part)
    if result.refused:
        raise RowsRefused(set_name, result)
    return result


@dataclass(slots=True)
class _Batches:
    """Writes batches of one table, from several threads."""

    view: View
    set_name: str
    key: str
    newer_by: str | None
    # The cluster stayed away for longer than one batch would wait: the others need not wait as long, one by one.
    gave_up: Event = field(default_factory=Event)

    def write(self, rows: pl.DataFrame) -> WriteResult:
        result = WriteResult()
        left = self._writes(rows)
        codes = dict.fromkeys(left, NO_RESPONSE)
        for pause_s in pauses(self.view.config.ride_through_s):
            if self.gave_up.is_set():
                break
            codes = dict(zip(left, self._send(list(left.values())), strict=True))
            for key, code in codes.items():
                if code not in RETRYABLE:
                    del left[key]
                    result.written += code == 0
                    result.skipped += code == FILTERED_OUT
                    if code not in (0, FILTERED_OUT):
                        result.refused[key] = code
            if not left:
                return result
            result.retried += len(left)
            time.sleep(pause_s)
        self.gave_up.set()
        result.refused |= {key: codes[key] for key in left}
        return result

    def _send(self, writes: list[Write]) -> list[int]:
        try:
            self.view.client.batch_write(BatchRecords(writes))
        except AerospikeError as error:
            return [error.code or NO_RESPONSE] * len(writes)
        return [write.result for write in writes]

    def _writes(self, rows: pl.DataFrame) -> dict[Key, Write]:
        writes = {}
        for key, row in zip(rows[self.key], rows.iter_rows(), strict=True):
            operations = [
                {"op": aerospike.OPERATOR_WRITE, "bin": name, "val": value}
                for name, value in zip(rows.columns, row, strict=True)
                if value is not None
            ]
            writes[key] = Write(self.view.key(self.set_name, key), operations)
        if self.newer_by:
            for write, value in zip(writes.values(), rows[self.newer_by], strict=True):
                write.policy = self._only_if_newer(value)
        return writes

    def _only_if_newer(self, value: int | float) -> dict[str, Any]:
        assert self.newer_by is not None
        held = (expressions.FloatBin if isinstance(value, float) else expressions.IntBin)(self.newer_by)
        return {"expressions": expressions.LT(held, value).compile()}


def _check(frame: pl.DataFrame, set_name: str, key: str, newer_by: str | None) -> None:
    def refuse(column: str, wrong: str, remedy: str) -> None:
        raise DataError(f"set {set_name}: column {column} {wrong}", remedy)

    for name in filter(None, (key, newer_by)):
        if name not in frame.columns:
            refuse(name, "is not in the table", f"name one of: {', '.join(frame.columns)}")
        if nulls := frame[name].null_count():
            refuse(name, f"is null in {nulls} rows", "drop those rows, or fill them in")
    for name, dtype in frame.schema.items():
        if not (dtype in WRITABLE or dtype.is_signed_integer()):
            refuse(name, f"has the type {dtype}", "cast it to int64, float64, string, bool or timestamp")
        if len(name.encode()) > MAX_BIN_NAME_BYTES:
            refuse(name, f"has a name longer than {MAX_BIN_NAME_BYTES} bytes", "give it a shorter one")
    if not (frame[key].dtype.is_integer() or frame[key].dtype == pl.String):
        refuse(key, f"has the type {frame[key].dtype}, and is the key", "use a column of strings or integers as key")
    if twice := frame.height - frame[key].n_unique():
        refuse(key, f"is the key and holds {twice} duplicates", "keep one row a key, or use another key")
    if newer_by and not frame[newer_by].dtype.is_numeric():
        refuse(newer_by, f"has the type {frame[newer_by].dtype}, and decides what is newer", "use a column of numbers")
