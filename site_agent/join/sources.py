"""Sets of the view as sources of a join, read by Ray tasks, each a range of partitions. Knows no local rows."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from geotrain.errors import DataError
from geotrain.tasks.config import ViewSetConfig
from geotrain.view.config import ViewConfig
from geotrain.view.cut import Cut, Digests, Fingerprints, Rows, partitions
from geotrain.view.scan import Scan
from geotrain.view.scanned import ScannedSet
from geotrain.wire.digests import digests
from geotrain.wire.partitions import NUM_PARTITIONS
from site_agent.join.fetch import fetch
from site_agent.join.matching import NOWHERE, find

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PartRead:
    """What reading a range of partitions gave, but for the rows.

    num_bytes: of the Arrow table. seconds: that one task took. num_present: by column, values that are not null.
    """

    num_rows: int
    num_bytes: int
    seconds: float
    fingerprints: Fingerprints
    num_present: dict[str, int]

    def add(self, other: "PartRead") -> "PartRead":
        return PartRead(
            self.num_rows + other.num_rows,
            self.num_bytes + other.num_bytes,
            self.seconds + other.seconds,
            self.fingerprints + other.fingerprints,
            {name: count + other.num_present[name] for name, count in self.num_present.items()},
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a set's partitions that is still to be read, where it is needed.

    by_key: its rows are to meet others by partition, so the declared key must be what the records are stored by.
    """

    view: ViewConfig
    set_name: str
    view_set: ViewSetConfig
    cut: Cut | None = None
    partitions: range = range(NUM_PARTITIONS)
    metadata: tuple[str, ...] = ()
    by_key: bool = False

    def read(self, known: pa.ChunkedArray | None = None) -> tuple[pa.Table, PartRead]:
        """Read the rows below the cut. known: keys that lie in these partitions. Raises DataError, ViewError."""
        start_s = time.perf_counter()
        scan = Scan(
            self.view,
            self.set_name,
            self.view_set.columns,
            cut=self.cut,
            partitions=self.partitions,
            metadata=self.metadata,
            fingerprint=bool(self.metadata),
        )
        table = scan.reader().read_all()
        if self.by_key:
            self.check_key(table, known)
        seconds = time.perf_counter() - start_s
        present = {name: table.num_rows - table[name].null_count for name in self.view_set.columns}
        return table, PartRead(table.num_rows, table.nbytes, seconds, scan.fingerprints, present)

    def check_key(self, table: pa.Table, known: pa.ChunkedArray | None) -> None:
        """Raise DataError where a row lies elsewhere than its key says: it would silently match nothing.

        known: keys that lie in these partitions.
        """
        assert self.view_set.key is not None  # the task's checks saw to it
        keys = table[self.view_set.key].combine_chunks().drop_null()
        if known is not None and known.type == keys.type == pa.int64():  # to find them is faster than to hash them
            places, _ = find(known.drop_null().to_numpy(), keys.to_numpy())
            keys = keys.filter(pa.array(places == NOWHERE))
        if not np.isin(partitions(digests(self.set_name, keys)), self.partitions).all():
            raise not_its_key(self.set_name, self.view_set.key)


def ranges(num_parts: int) -> list[range]:
    """All partitions, cut into ranges of about the same length."""
    bounds = [NUM_PARTITIONS * i // num_parts for i in range(num_parts + 1)]
    return [range(start, stop) for start, stop in pairwise(bounds)]


def not_its_key(set_name: str, column: str) -> DataError:
    """The declared key is a column like any other: a join by it would find nothing, or the wrong records."""
    return DataError(
        f"set {set_name}: the records are not stored by the column {column}",
        f"Name the column that is their key in task.view.{set_name}.key, or none.",
    )


def check_columns(set_name: str, read: PartRead, cut: Cut | None) -> None:
    """Raise DataError where no record of a set has a column: its name must be wrong."""
    absent = [name for name, count in read.num_present.items() if not count]
    if not read.num_rows and cut is not None:
        logger.warning("set %s: no record of it is in the cut", set_name)
    elif absent:
        raise DataError(
            f"set {set_name}: no record has the column {', '.join(absent)}", f"Mend task.view.{set_name}.columns."
        )


@ray.remote(num_returns=2)
def _read(part: Part) -> tuple[pa.Table, PartRead]:
    return part.read()


@ray.remote
def _rows_in(block: pa.Table, listed: Sequence[int]) -> Rows:
    return ScannedSet(block).rows_in(listed)


@ray.remote
def _without(block: pa.Table, dropped: Digests) -> pa.Table:
    return ScannedSet(block).without(dropped).table


@dataclass(frozen=True, slots=True)
class ReadSet:
    """A set that was read: its rows as blocks in Ray's object store, one a range of partitions, and what was read."""

    blocks: list[ray.ObjectRef]
    read: PartRead

    @classmethod
    def of(cls, part: Part, num_parts: int) -> "ReadSet":
        """Read a whole set, as `part` says, in `num_parts` tasks."""
        refs: list[Any] = [_read.remote(replace(part, partitions=some)) for some in ranges(num_parts)]
        blocks, figures = zip(*refs, strict=True)
        read = reduce(PartRead.add, fetch(list(figures)))
        check_columns(part.set_name, read, part.cut)
        return cls(list(blocks), read)

    @property
    def num_rows(self) -> int:
        return self.read.num_rows

    def fingerprints(self) -> Fingerprints:
        return self.read.fingerprints

    def rows_in(self, listed: Sequence[int]) -> Rows:
        """Which rows were read in the listed partitions; of a set that was read with its metadata."""
        found: list[Rows] = fetch([_rows_in.remote(self.blocks[i], some) for i, some in self._by_block(listed).items()])
        parts = [Rows.none(), *found]
        digests_, generations = zip(*((rows.digests, rows.generations) for rows in parts), strict=True)
        return Rows(np.concatenate(digests_), np.concatenate(generations))

    def without(self, dropped: Digests) -> "ReadSet":
        """The set but for the rows of these digests; what was read stays what it was."""
        blocks = list(self.blocks)
        for i in self._by_block(np.unique(partitions(dropped)).tolist()):
            blocks[i] = _without.remote(blocks[i], dropped)
        return ReadSet(blocks, self.read)

    def _by_block(self, listed: Sequence[int]) -> dict[int, list[int]]:
        """The listed partitions by the block that has them."""
        wanted = {i: sorted(set(listed) & set(some)) for i, some in enumerate(ranges(len(self.blocks)))}
        return {i: some for i, some in wanted.items() if some}
