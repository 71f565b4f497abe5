"""A set as one site read it at a cut, whole in memory, in an order that all sites share. Makes no call by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from geotrain.view.cut import Digests, Fingerprints, Generations, Rows, among, partitions
from geotrain.view.layout import DIGEST, GENERATION
from geotrain.view.scan import Scan
from geotrain.wire.fingerprints import fingerprints


@dataclass(frozen=True)
class ScannedSet:
    """The rows, in the order of their digests. table: the columns, `__digest` and `__generation`."""

    table: pa.Table

    @classmethod
    def read(cls, scan: Scan) -> "ScannedSet":
        """Reads a scan, whose metadata has `__digest` and `__generation`, to its end."""
        return cls(scan.reader().read_all().combine_chunks()).in_order()

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

    def in_order(self) -> "ScannedSet":
        """Returns the rows in the order of their digests."""
        first, second = np.ascontiguousarray(self.digests[:, :16]).view(">u8").T
        third = np.ascontiguousarray(self.digests[:, 16:]).view(">u4")[:, 0]
        return ScannedSet(self.table.take(pa.array(np.lexsort((third, second, first)))))

    def without(self, dropped: Digests) -> "ScannedSet":
        return ScannedSet(self.table.filter(pa.array(~among(self.digests, dropped))))
