"""Keeps local rows on disk in the order of the Aerospike partitions of their keys. Knows no view and no Ray.

Where the hash of a key has put a record, a local row with the same key lies in the same place: the two meet without a
shuffle. To sort the rows is work that need not be done again while files, columns and key stay what they are.
"""

import logging
import os
import tempfile
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from geotrain.errors import GeotrainError
from geotrain.view.cut import partitions
from geotrain.wire.digests import digests
from geotrain.wire.partitions import NUM_PARTITIONS

logger = logging.getLogger(__name__)

STARTS = b"partition_starts"
CHECKSUM_BYTES = 4  # at the end of a file, of what comes before
SUFFIX, UNFINISHED = ".arrow", ".unfinished"
UNFINISHED_S = 3600  # after so long without a write, its writer was killed


@dataclass(frozen=True, slots=True)
class Buckets:
    """Local rows in the order of their partitions, mapped from a file. starts: (4097,), where each partition begins."""

    rows: pa.Table
    starts: NDArray[np.int64]

    @classmethod
    def mapped(cls, path: Path) -> "Buckets":
        """Raises OSError where there is no such file, ArrowInvalid where it is not what was written."""
        with pa.memory_map(str(path)) as file:
            whole = file.read_buffer()
        rows, checksum = whole[:-CHECKSUM_BYTES], whole[-CHECKSUM_BYTES:].to_pybytes()
        if _checksum(rows) != checksum:
            raise pa.ArrowInvalid("its bytes are not those that were written")
        table = pa.ipc.open_file(rows).read_all()
        starts = np.frombuffer((table.schema.metadata or {}).get(STARTS, b""), np.int64)
        if len(starts) != NUM_PARTITIONS + 1 or starts[-1] != table.num_rows:
            raise pa.ArrowInvalid("its rows are not those that were written")
        return cls(table.replace_schema_metadata(), starts)

    def part(self, listed: range) -> pa.Table:
        """The rows of some partitions that follow each other."""
        start, stop = self.starts[listed.start], self.starts[listed.stop]
        return self.rows.slice(start, stop - start)


@dataclass(frozen=True, slots=True)
class BucketFile:
    """The file in which the rows of one version of a local dataset lie by the partitions of a set.

    folder: where it is kept. dataset, version: of the rows; any other version's file is outdated. column: the key.
    """

    folder: Path
    dataset: str
    version: str
    set_name: str
    column: str

    @property
    def path(self) -> Path:
        return self.folder / f"{self._stem}-{self.version[:32]}{SUFFIX}"

    @property
    def _stem(self) -> str:
        # What was bucketed, whichever its version; hashed, as names of sets and columns may hold anything.
        return sha256(repr((self.dataset, self.set_name, self.column)).encode()).hexdigest()[:32]

    def open(self, rows: pl.DataFrame) -> Buckets:
        """Return the rows by partition, from the file where it is there. Rows without a key are in partition 0.

        A file that can't be read is written anew. Raises GeotrainError where the folder can't be written to.
        """
        try:
            return Buckets.mapped(self.path)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:  # Arrow's own are of these two kinds
            logger.warning("%s can't be read, and is written anew: %s", self.path, error)
        try:
            return self._write(self._sorted(rows))
        except OSError as error:
            raise GeotrainError(
                f"site.cache_dir: {self.folder} can't be written to: {error}",
                "Make room there, or choose another folder.",
            ) from error

    def _sorted(self, rows: pl.DataFrame) -> pa.Table:
        keys = rows[self.column]
        placed = np.zeros(len(rows), np.int64)
        has_key = keys.is_not_null().to_numpy()
        placed[has_key] = partitions(digests(self.set_name, keys.drop_nulls().to_arrow()))
        order = np.argsort(placed, kind="stable")
        starts = np.zeros(NUM_PARTITIONS + 1, np.int64)
        np.cumsum(np.bincount(placed, minlength=NUM_PARTITIONS), out=starts[1:])
        return rows[order].to_arrow().replace_schema_metadata({STARTS: starts.tobytes()})

    def _write(self, table: pa.Table) -> Buckets:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_unfinished()
        # Whoever reads the file finds all of it: it gets its name when it is whole.
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=UNFINISHED, delete=False) as file:
            try:
                with pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table)
                file.flush()
                with pa.memory_map(file.name) as written:
                    file.write(_checksum(written.read_buffer()))
                file.flush()
                os.fsync(file.fileno())
                buckets = Buckets.mapped(Path(file.name))  # under its own name another agent may find it outdated
                os.replace(file.name, self.path)
            except BaseException:
                os.unlink(file.name)
                raise
        for outdated in self.folder.glob(f"{self._stem}-*{SUFFIX}"):
            if outdated != self.path:
                outdated.unlink(missing_ok=True)
        return buckets

    def _remove_unfinished(self) -> None:
        """Remove what writers have left that were killed."""
        for left in self.folder.glob(f"*{UNFINISHED}"):
            with suppress(FileNotFoundError):  # its writer ended, or another agent was quicker
                if time.time() - left.stat().st_mtime > UNFINISHED_S:
                    left.unlink()


def _checksum(data: pa.Buffer) -> bytes:
    return zlib.crc32(data).to_bytes(CHECKSUM_BYTES, "big")
