"""Reads records by their keys into Arrow columns. Knows nothing of what the columns mean."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geotrain.errors import DataError
from geotrain.view.assignment import Assignment, Request
from geotrain.view.columns import declared_types
from geotrain.view.cut import Cut, partitions
from geotrain.view.keyed import Key, Records
from geotrain.view.layout import GENERATION, KEY, POSITION, Layout
from geotrain.view.nodes import UnknownSet
from geotrain.view.records import Unfit, as_keys
from geotrain.view.refusals import refusal
from geotrain.view.retry import RETRYABLE
from geotrain.view.rounds import read_rounds
from geotrain.view.streams import Outcome, Streams
from geotrain.wire import codes
from geotrain.wire.batches import encode_reads
from geotrain.wire.columnar import Decoder, Progress
from geotrain.wire.digests import digests
from geotrain.wire.filters import encode_filter

logger = logging.getLogger(__name__)

KEYS_PER_CHUNK = 4096  # servers take no more than 5000 at a time
NO_RACK = 0
NOWHERE = -1


def lookup(
    view: Records,
    set_name: str,
    keys: pa.Array | pa.ChunkedArray | Sequence[Key],
    columns: Mapping[str, str],
    *,
    cut: Cut | None = None,
) -> pa.Table:
    """Returns one row a key, in the order of the keys: the columns, and `__generation`.

    keys: integers, strings or bytes, all of one kind; one that comes again is read once.
    columns: bin name -> type word. A bin that a record lacks is null. Where there is no record, or none that is in the
    cut, the whole row is null, and only there is `__generation`.
    Read where `view.reads` says, tried again for `deadline_s`. Raises DataError where keys are null or mixed, where a
    record holds another type than a column declares, and where there is no such set; ViewError where records can't be
    read.
    """
    types = declared_types(set_name, columns, reserved=(KEY, GENERATION))
    # One index a key, into the distinct ones.
    encoded = _array(set_name, keys).dictionary_encode()
    reader = _Reader(view, set_name, Layout(types, (GENERATION, POSITION)), cut)
    hashed = digests(set_name, encoded.dictionary)
    found = pa.concat_tables(
        [reader.layout.schema.empty_table()]
        + [reader.read(hashed, start) for start in range(0, len(hashed), KEYS_PER_CHUNK)]
    )
    if len(hashed) and not len(found) and set_name not in (objects := view.nodes.objects()):
        raise UnknownSet(set_name, view.config.namespace, objects)
    row_of = np.full(len(hashed), NOWHERE)
    row_of[found[POSITION].to_numpy()] = np.arange(len(found))
    rows = row_of[encoded.indices.to_numpy()]
    table = found.drop_columns([POSITION]).take(pa.array(rows, mask=rows == NOWHERE))
    _warn_of_empty_columns(set_name, table)
    return table


class _Reader:
    """Reads records of a set by their digests."""

    def __init__(self, view: Records, set_name: str, layout: Layout, cut: Cut | None) -> None:
        self._config, self._nodes = view.config, view.nodes
        self._set_name = set_name
        self._filter = encode_filter(None, until_ns=cut.until_ns if cut else None)
        self._is_local = view.config.reads == "local"
        is_strong = view.consistency == "strong"
        self._read_mode = codes.INFO3_SC_READ_RELAX if self._is_local else codes.INFO3_SC_READ_TYPE if is_strong else 0
        self.layout = layout

    def read(self, hashed: NDArray[np.uint8], start: int) -> pa.Table:
        """Returns the records of the keys from `start` on that are there, in any order, with their keys' positions.

        One that came before its node failed comes again. hashed: (n, 20), the digests of all keys.
        """
        chunk = hashed[start : start + KEYS_PER_CHUNK]
        placed = partitions(chunk)

        def asked(request: Request) -> NDArray[np.bool_]:
            return np.isin(placed, request.partitions)

        def query(request: Request, num_running: int) -> bytes:
            positions = np.flatnonzero(asked(request))
            return encode_reads(
                self._config.namespace,
                self._set_name,
                chunk[positions],
                positions,
                bins=list(self.layout.bins),
                info3=self._read_mode,
                timeout_ms=round(self._config.deadline_s * 1000),
                expression=self._filter,
            )

        def decoder(request: Request) -> Decoder:
            decoder = Decoder(self.layout.bins, progress, positions=True, max_rows=len(chunk))
            decoder.begin_batch(np.where(asked(request), placed, NOWHERE))
            return decoder

        progress = Progress(fingerprints=np.empty(0, np.uint64))
        streams = Streams(
            nodes=self._nodes,
            doing=f"reading {len(chunk)} records of {self._set_name}",
            set_name=self._set_name,
            layout=self.layout,
            query=query,
            decoder=decoder,
            # A node that falls silent gets a third of the time, so that another copy can still answer.
            silence_s=self._config.deadline_s / 3,
            limit_s=self._config.deadline_s,
            is_strict=True,
        )
        assignment = Assignment(
            progress,
            np.unique(placed).tolist(),
            rack=self._config.rack if self._is_local else NO_RACK,
            connections_per_node=1,
            num_copies=None if self._is_local else 1,
        )

        def note(outcome: Outcome) -> None:
            for code in outcome.answer.refused.values():
                if code not in RETRYABLE:
                    raise refusal(streams.doing, code)

        batches = read_rounds(streams, assignment, self._nodes.recent_map(), self._config.deadline_s, note)
        found = pa.Table.from_batches(batches, self.layout.schema)
        at = found.schema.get_field_index(POSITION)
        return found.set_column(at, POSITION, pc.add(found[POSITION], pa.scalar(start, pa.uint32())))


def _array(set_name: str, keys: pa.Array | pa.ChunkedArray | Sequence[Key]) -> pa.Array:
    try:
        column = keys if isinstance(keys, pa.Array | pa.ChunkedArray) else pa.array(keys)
        column = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
        return as_keys(column).combine_chunks()
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"set {set_name}: the keys are not of one type ({error})", "make them all of one") from None
    except Unfit as error:
        raise DataError(f"set {set_name}: the column of keys {error.what}", error.remedy) from None


def _warn_of_empty_columns(set_name: str, table: pa.Table) -> None:
    num_found = table.num_rows - table[GENERATION].null_count
    for name, column in zip(table.column_names, table.columns, strict=True):
        if num_found and column.null_count == table.num_rows:
            logger.warning("set %s: none of the %d records found by key has the column %s", set_name, num_found, name)
