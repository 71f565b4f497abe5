"""Scans a set of the view into Arrow columns, below a cut. Knows nothing of what the columns mean."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from aerospike_helpers import expressions

from geotrain.errors import DataError
from geotrain.view.connect import AerospikeError, View, refusal
from geotrain.view.cut import (
    Cut,
    Digests,
    Fingerprints,
    Generations,
    Rows,
    among,
    fingerprints,
    partitions,
)
from geotrain.wire.partitions import NUM_PARTITIONS

# A record of the client is a dozen Python objects, so a set is read in slices and each becomes columns at once.
NUM_SLICES = 16

DIGEST = "__digest"
GENERATION = "__generation"

# Word of a column's type -> its Arrow type, and the type that the client makes of such a bin. A timestamp is an integer
# in the view: microseconds since the Unix epoch.
COLUMN_TYPES: dict[str, tuple[pa.DataType, type]] = {
    "int64": (pa.int64(), int),
    "float64": (pa.float64(), float),
    "string": (pa.string(), str),
    "bool": (pa.bool_(), bool),
    "timestamp": (pa.timestamp("us"), int),
}
TYPE_WORDS = {python_type: word for word, (_, python_type) in COLUMN_TYPES.items() if word != "timestamp"}


@dataclass(frozen=True)
class ScannedSet:
    """A set as one site read it: the declared columns, `__digest` and `__generation`, in the order of the digests."""

    table: pa.Table

    @cached_property
    def digests(self) -> Digests:
        column = self.table.column(DIGEST).combine_chunks()
        values = column.buffers()[1] or b""
        return np.frombuffer(values, np.uint8, 20 * len(column), 20 * column.offset).reshape(-1, 20)

    @cached_property
    def generations(self) -> Generations:
        return np.asarray(self.table.column(GENERATION).to_numpy(), np.uint32)

    def fingerprints(self) -> Fingerprints:
        return fingerprints(self.digests, self.generations)

    def rows_in(self, listed: Sequence[int]) -> Rows:
        """Returns which rows were read in the listed partitions."""
        inside = np.isin(partitions(self.digests), np.asarray(listed))
        return Rows(self.digests[inside], self.generations[inside])

    def without(self, dropped: Digests) -> "ScannedSet":
        return ScannedSet(self.table.filter(pa.array(~among(self.digests, dropped))))


def scan(view: View, set_name: str, columns: Mapping[str, str], cut: Cut | None) -> ScannedSet:
    """Reads the rows of a set whose last update is in the cut (all rows: None), from this site's rack.

    columns: bin name -> type word (`COLUMN_TYPES`). A bin that a record lacks is null; one of another type raises
    DataError. A set that nobody has written is empty.
    """
    for name, word in columns.items():
        if word not in COLUMN_TYPES:
            known = ", ".join(COLUMN_TYPES)
            raise DataError(f"set {set_name}: column {name} has the unknown type {word!r}", f"use one of: {known}")
    policy: dict[str, Any] = {}
    if cut is not None:
        policy["expressions"] = expressions.LE(expressions.LastUpdateTime(), cut.until_ns).compile()
    size = NUM_PARTITIONS // NUM_SLICES
    tables = []
    for begin in range(0, NUM_PARTITIONS, size):
        with _no_garbage_collection():
            policy["partition_filter"] = {"begin": begin, "count": size}
            tables.append(_read(view, set_name, columns, policy))
    table = pa.concat_tables(tables).combine_chunks()
    return ScannedSet(table.take(pa.array(_order(ScannedSet(table).digests))))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # A slice is many thousand objects without a cycle; to look for one, again and again, is a third of a scan.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read(view: View, set_name: str, columns: Mapping[str, str], policy: dict[str, Any]) -> pa.Table:
    query = view.client.query(view.config.namespace, set_name)
    query.select(*columns)
    try:
        records = query.results(policy)
    except AerospikeError as error:
        raise refusal(f"scanning set {set_name}", error.code, error.msg) from error
    # Comprehensions over (key, meta, bins), and no call a record: this is where a scan spends its time.
    bins = [record[2] for record in records]
    arrays = {name: _column(set_name, name, word, [row.get(name) for row in bins]) for name, word in columns.items()}
    digests = b"".join([record[0][3] for record in records])
    arrays[DIGEST] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(20), len(records), [None, pa.py_buffer(digests)])
    arrays[GENERATION] = pa.array([record[1]["gen"] for record in records], pa.int32())
    return pa.table(arrays)


def _column(set_name: str, name: str, word: str, values: list[Any]) -> pa.Array:
    arrow_type, python_type = COLUMN_TYPES[word]
    for found in set(map(type, values)) - {python_type, type(None)}:
        held = TYPE_WORDS.get(found, found.__name__)
        raise DataError(
            f"set {set_name}: column {name} is declared {word}, but a record holds {held}",
            f"correct the declared type, or write {name} as {word} everywhere",
        )
    return pa.array(values, arrow_type)


def _order(digests: Digests) -> np.ndarray:
    first, second = np.ascontiguousarray(digests[:, :16]).view(">u8").T
    return np.lexsort((np.ascontiguousarray(digests[:, 16:]).view(">u4")[:, 0], second, first))
