"""Keeps the records of features that live up to date: whoever writes rows of a source writes them here, too.

A write to a record is one atomic operation of the server, which puts events and removes what can no longer count. Knows
no joins, and nothing of what asks.
"""

import time
from itertools import islice
from typing import Any

import aerospike
import pyarrow as pa
from aerospike_helpers.batch.records import BatchRecords, Write
from aerospike_helpers.operations import map_operations

from geotrain.errors import DataError
from geotrain.serving.features import EVENTS, Change, LiveFeatures, live_features
from geotrain.tasks.config import TaskConfig
from geotrain.view.connect import View
from geotrain.view.keyed import AerospikeError
from geotrain.view.records import storable
from geotrain.view.retry import RETRYABLE, pauses
from geotrain.view.write import NO_RESPONSE, RowsUnwritten, WriteResult

LATE_S = 600.0
RECORDS_PER_BATCH = 500
MAP = {"map_order": aerospike.MAP_KEY_ORDERED}
# Declared type -> the type of the column that is to be stored.
STORED = {
    "int64": pa.int64(),
    "timestamp": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.large_string(),
}
# The view's batches replace records; these change them.
KEEP_BINS = {"exists": aerospike.POLICY_EXISTS_IGNORE}


class LiveWriter:
    """Writes rows of one set of the view into the records of every feature that takes from it.

    late_s: how far rows may come behind the newest of their keys, and how far back values may be asked for. For every
    time from (newest - late_s) on, a value is what a join over all rows written so far gives, in whatever order they
    came and however often; a row that is later than that may be missing from it.
    """

    def __init__(self, view: View, task: TaskConfig, source: str, *, late_s: float = LATE_S) -> None:
        declared = {features.set_name: features for features in live_features(task, (source,))}
        self._view = view
        self._source = source
        self._features = list(declared.values())
        self._late_us = round(late_s * 1_000_000)
        self._types = task.view[source].columns

    def write(self, table: Any, key: str) -> WriteResult:
        """Writes rows as `geotrain.view.write` takes them; key: the column by which the source is stored, of any type.

        A row that comes again, changed or not, takes the place of the one before, as in the source; but its keys must
        be the same. Each row has one writer, which writes what becomes of it in order. Records that the cluster can't
        take now are tried again for `ride_through_s`: to repeat a write does no harm, in doubt or not. A backlog is
        written in one call, or in order of time: only newer rows make a record smaller.

        Raises DataError for a table that can't be written, before anything is; RowsUnwritten where records were not.
        The counts are of records, of which a row changes one by each way of looking it up.
        """
        rows = self._rows(table, key)
        writes = (
            self._write(features, record, change)
            for features in self._features
            for record, change in features.changes(rows, self._late_us).items()
        )
        result = WriteResult()
        while batch := list(islice(writes, RECORDS_PER_BATCH)):
            self._send(batch, result)
        if result.unwritten:
            raise RowsUnwritten(self._source, result)
        return result

    def _rows(self, table: Any, key: str) -> list[tuple[Any, dict[str, Any]]]:
        stored = storable(table, self._source, key, None)
        needed = dict.fromkeys(
            name
            for features in self._features
            for name in (features.known_at, *(theirs for _, theirs in features.by), *features.columns)
        )
        for name in needed:
            if name not in stored.column_names:
                raise DataError(f"set {self._source}: column {name} is not in the table", "add it: a feature needs it")
            if stored[name].type != STORED[self._types[name]]:
                raise DataError(
                    f"set {self._source}: column {name} is declared {self._types[name]}, and holds {stored[name].type}",
                    "correct the declared type, or the table",
                )
        keys = stored[key].to_pylist()
        return list(zip(keys, stored.select(list(needed)).to_pylist(), strict=True))

    def _write(self, features: LiveFeatures, record: str, change: Change) -> Write:
        operations = [
            map_operations.map_put_items(EVENTS, dict(change.events), MAP),
            # All but those from the bound on, and the newest few before it.
            map_operations.map_remove_by_value_rank_range_relative(
                EVENTS, [change.keep_from_us], -change.num_spare, aerospike.MAP_RETURN_NONE, inverted=True
            ),
        ]
        return Write(self._view.key(features.set_name, record), operations, policy=KEEP_BINS)

    def _send(self, writes: list[Write], result: WriteResult) -> None:
        """Sends a batch until all of it is written, or refused for good, or the cluster does not recover."""
        for pause_s in pauses(self._view.config.ride_through_s):
            try:
                self._view.client.batch_write(BatchRecords(writes))
            except AerospikeError as error:
                for write in writes:
                    write.result = error.code or NO_RESPONSE
            left = [write for write in writes if write.result in RETRYABLE]
            for write in writes:
                if write.result == 0:
                    result.written += 1
                elif write.result not in RETRYABLE:
                    result.refuse(write.result, 1, [write.key[2]])
            if not left:
                return
            result.retried += len(left)
            writes = left
            time.sleep(pause_s)
        for write in writes:
            result.refuse(write.result, 1, [write.key[2]])
