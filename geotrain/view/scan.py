"""Scans a set of the view from the wire into Arrow columns, each row once. Knows nothing of what the columns mean."""

import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from geotrain.errors import DataError
from geotrain.view.assignment import Assignment, Request
from geotrain.view.columns import as_stored, declared_types
from geotrain.view.config import ViewConfig
from geotrain.view.cut import Cut, Fingerprints
from geotrain.view.layout import KEY, METADATA, Layout
from geotrain.view.nodes import Nodes, UnknownSet
from geotrain.view.rounds import read_rounds
from geotrain.view.sample import has_bin, infer_columns, sample_particles
from geotrain.view.streams import Outcome, Streams
from geotrain.wire.columnar import Decoder, Progress
from geotrain.wire.filters import Where, encode_filter, named_bins
from geotrain.wire.partitions import NUM_PARTITIONS
from geotrain.wire.queries import encode_query

log = logging.getLogger(__name__)


class Scan:
    """One pass over the rows of a set, from this site's rack while its nodes have them.

    set_name: what is read. columns: bin name -> type word (`columns.KNOWN`), `__key` -> that of the stored keys; None:
    as a sample of the records says, which is warned of, so that it can be written down.
    where: conditions (bin, comparison, value) that must all hold, or a list of such lists of which one must; the
    servers apply them. A bin that is no column is taken to have the type that it has in a sample.
    cut: leaves out rows whose last update is later. changed_since: leaves out those whose last update is in that
    earlier cut. That does not tell which rows were deleted since: `changes.refresh` does.
    partitions: which of the 4096; None is all.
    metadata: columns besides, of `__digest`, `__generation` and `__ttl` (seconds left; null is for ever).
    on_mismatch: of a bin of another type, or a column that no record has, `error` makes a DataError; with `null` it is
    null, counted in `mismatches`, and warned of.
    batch_rows: of a batch at most. connections_per_node: how many streams a node is asked for at a time. Memory is
    bounded by their product. records_per_second: limit for the whole scan; 0 is none.
    fingerprint: whether `fingerprints` are made.

    A bin that a record lacks is null; a record that has none of the columns is not sent. Filled while it is read:
    num_rows, num_bytes (from the wire), mismatches. fingerprints: (4096,), when it is read to its end.
    """

    def __init__(
        self,
        config: ViewConfig,
        set_name: str,
        columns: Mapping[str, str] | None = None,
        *,
        where: Where | None = None,
        cut: Cut | None = None,
        changed_since: Cut | None = None,
        partitions: Sequence[int] | None = None,
        metadata: Sequence[str] = (),
        on_mismatch: str = "error",
        batch_rows: int = 65536,
        connections_per_node: int = 2,
        records_per_second: int = 0,
        fingerprint: bool = True,
    ) -> None:
        self._config = config
        self._set_name = set_name
        self._on_mismatch = on_mismatch
        self._batch_rows = batch_rows
        self._records_per_second = records_per_second
        self._check(metadata, partitions, connections_per_node)
        self._nodes = Nodes(config)
        self._layout = Layout(self._types(columns), metadata)
        self._selected = None if columns is None else list(self._layout.bins)
        self._unseen: set[str] = set()  # of the bins that `where` names
        self._filter = self._encode(where, changed_since, cut)
        self._progress = Progress() if fingerprint else Progress(fingerprints=np.empty(0, np.uint64))
        self._assignment = Assignment(
            self._progress, partitions, rack=config.rack, connections_per_node=connections_per_node
        )
        # A few partitions, or rows that some condition holds for, need not have every column.
        self._is_sparse = where is not None or changed_since is not None
        self._is_whole = not self._is_sparse and partitions is None
        self._num_present: Counter[str] = Counter()
        self._was_read = False
        self.schema: pa.Schema = self._layout.schema
        self.num_rows = 0
        self.num_bytes = 0
        self.mismatches: Counter[str] = Counter()

    @property
    def fingerprints(self) -> Fingerprints:
        """One number a partition, that names the rows which were read."""
        return self._progress.fingerprints

    def reader(self) -> pa.RecordBatchReader:
        """Returns the rows, once, for one thread. Whoever stops reading before the end lets go of it (its `close` does
        nothing), and so ends the scan.

        Reading raises ViewError where partitions can't be read (rows that came before are valid), and DataError where
        the rows are not what was declared.
        """
        if self._was_read:
            raise ValueError("a scan is read once; make another one")
        self._was_read = True
        return pa.RecordBatchReader.from_batches(self.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        streams = Streams(
            nodes=self._nodes,
            doing=f"scanning set {self._set_name}",
            set_name=self._set_name,
            layout=self._layout,
            query=self._query,
            decoder=self._decoder,
            silence_s=self._config.scan_deadline_s if self._is_sparse else self._config.deadline_s,
            is_strict=self._on_mismatch == "error",
        )
        known = self._nodes.awaited_map()
        for batch in read_rounds(streams, self._assignment, known, self._config.ride_through_s, self._note):
            self._count(batch)
            yield batch
        self._check_rows()

    def _query(self, request: Request, num_running: int) -> bytes:
        rate = self._records_per_second
        return encode_query(
            self._config.namespace,
            self._set_name,
            partitions=request.fresh.tolist(),
            resume_after=request.resumed,
            bins=self._selected,
            task_id=random.getrandbits(63),
            socket_timeout_ms=round(self._config.scan_deadline_s * 1000),
            records_per_second=rate and max(1, rate // num_running),
            expression=self._filter,
        )

    def _decoder(self, request: Request) -> Decoder:
        layout = self._layout
        decoder = Decoder(
            layout.bins, self._progress, key=layout.key, digests=layout.with_digests, max_rows=self._batch_rows
        )
        decoder.begin(request.partitions.tolist())
        return decoder

    def _note(self, outcome: Outcome) -> None:
        self.num_bytes += outcome.num_bytes
        self.mismatches.update(outcome.mismatches)

    def _count(self, batch: pa.RecordBatch) -> None:
        self.num_rows += batch.num_rows
        for name, column in zip(self.schema.names, batch.columns, strict=True):
            self._num_present[name] += batch.num_rows - column.null_count

    def _types(self, columns: Mapping[str, str] | None) -> dict[str, pa.DataType]:
        if columns is None:
            columns = infer_columns(self._nodes, self._config, self._set_name)
        types = declared_types(self._set_name, columns, reserved=METADATA)
        if KEY in types and columns[KEY] not in ("int64", "string", "binary"):
            raise self._refused(f"{KEY} can't be {columns[KEY]}", "keys are int64, string or binary")
        return types

    def _encode(self, where: Where | None, since: Cut | None, cut: Cut | None) -> bytes:
        after_ns, until_ns = (None if each is None else each.until_ns for each in (since, cut))
        particles = self._layout.bins
        try:
            # Nothing is greater than 5 in a bin of floats, to the servers: such a slip must not look like an empty set.
            self._unseen = named_bins(as_stored(where))
            if undeclared := self._unseen - particles.keys():
                sampled = sample_particles(self._nodes, self._config, self._set_name, undeclared)
                self._unseen -= sampled.keys()
                particles = particles | sampled
            return encode_filter(as_stored(where), particles, after_ns=after_ns, until_ns=until_ns)
        except (TypeError, ValueError) as error:
            raise self._refused(f"where: {error}", "compare each column with a value of its type") from None

    def _check(self, metadata: Sequence[str], partitions: Sequence[int] | None, connections_per_node: int) -> None:
        if not isinstance(set_name := self._set_name, str) or not set_name:
            raise DataError(f"a set can't be named {set_name!r}", "name a set of the namespace")
        if unknown := set(metadata) - METADATA.keys():
            raise self._refused(f"there is no metadata {', '.join(unknown)}", f"use: {', '.join(METADATA)}")
        if self._on_mismatch not in ("error", "null"):
            raise self._refused(f"on_mismatch is {self._on_mismatch!r}", "use error or null")
        if partitions is not None and not all(0 <= pid < NUM_PARTITIONS for pid in partitions):
            raise self._refused("partitions are out of range", f"use 0 to {NUM_PARTITIONS - 1}")
        for name, value, least in (
            ("batch_rows", self._batch_rows, 1),
            ("connections_per_node", connections_per_node, 1),
            ("records_per_second", self._records_per_second, 0),
        ):
            if value < least:
                raise self._refused(f"{name} is {value}", f"use {least} or more")

    def _check_rows(self) -> None:
        """At the end: whether there is what was asked for."""
        for name, count in self.mismatches.items():
            if count:
                log.warning("set %s: %d values of column %s are of another type, and null", self._set_name, count, name)
        if not self.num_rows:
            objects = self._nodes.objects()
            if self._set_name not in objects:
                raise UnknownSet(self._set_name, self._config.namespace, objects)
            if not objects[self._set_name]:
                return
        for name in sorted(self._unseen):
            if not self._num_present[name] and not has_bin(self._nodes, self._config, self._set_name, name):
                raise self._refused(f"where: no record has the bin {name}", "correct its name")
        if not self.num_rows and self._filter:
            return
        absent = [name for name in self._layout.bins if not self._num_present[name] + self.mismatches[name]]
        if absent and self._is_whole:
            what = f"no record has the column {', '.join(absent)}"
            if self._on_mismatch == "error":
                raise self._refused(what, "correct its name, or take it as null with on_mismatch=null")
            log.warning("set %s: %s: it is null everywhere", self._set_name, what)

    def _refused(self, what: str, remedy: str) -> DataError:
        return DataError(f"set {self._set_name}: {what}", remedy)
