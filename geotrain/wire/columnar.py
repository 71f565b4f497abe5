"""Streams of records into Arrow columns, batch by batch. Knows no sockets: others fill the space that it offers.

Records are what a query found, or what a batch of keys asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geotrain.wire import kernel
from geotrain.wire.codes import DIGEST_BYTES, MAX_BIN_NAME_BYTES, Particle, ProtocolError
from geotrain.wire.partitions import NUM_PARTITIONS
from geotrain.wire.words import SLACK_BYTES

INPUT_BYTES = 1 << 20  # of the buffer into which the socket is read, at first
MAX_RECORD_BYTES = 16 << 20  # no server stores more than 8 MiB in a record
_MAX_ASCII = 0x7F
_VALUE_BYTES = 8  # of a string, list, ... as expected at first
_FIXED = (Particle.INTEGER, Particle.FLOAT, Particle.BOOL)
_ARROW_TYPES = {
    Particle.INTEGER: pa.int64(),
    Particle.FLOAT: pa.float64(),
    Particle.BOOL: pa.bool_(),
    Particle.STRING: pa.string(),
    Particle.BLOB: pa.binary(),
    Particle.LIST: pa.binary(),
    Particle.MAP: pa.binary(),
}
_DAMAGE = {
    kernel.BAD_FRAME: "what follows is not the header of a frame of messages",
    kernel.BAD_MESSAGE: "a message begins with a header of the wrong size",
    kernel.CUT_SHORT: "a message does not fit its frame",
    kernel.BAD_FIELD: "a field has an impossible size",
    kernel.BAD_OPERATION: "a bin has an impossible size or name",
    kernel.BAD_VALUE: "a number or boolean has an impossible size",
    kernel.TWICE: "a record holds a bin twice",
    kernel.NO_DIGEST: "a record comes without its digest",
    kernel.UNASKED: "a record is of a partition that was not asked for",
    kernel.BAD_PARTITION: "a partition is reported that can't exist",
    kernel.NO_KEY: "a record is of a key that was not asked for, or was answered before",
}


class Batch(NamedTuple):
    """Some rows. Columns are in the order of the decoder's bins; lists and maps are binary, their msgpack."""

    num_rows: int
    columns: list[pa.Array]
    key: pa.Array | None
    digests: pa.Array | None
    generations: pa.Array
    void_times: pa.Array  # uint32, seconds since 2010; 0: never
    positions: pa.Array | None = None  # uint32, of the keys of a batch


@dataclass(frozen=True, slots=True)
class Progress:
    """What all streams of one scan decoded, by partition; at one time, only one stream may read a partition.

    Empty `fingerprints` stay so: they are not wanted.
    """

    last_digests: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((NUM_PARTITIONS, DIGEST_BYTES), np.uint8))
    num_rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(NUM_PARTITIONS, np.int64))
    fingerprints: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(NUM_PARTITIONS, np.uint64))


class Decoder:
    """Decodes streams of replies to queries and batches, one after the other, and collects their rows in Arrow batches.

    bins: name -> particle type. key: the particle type of the stored keys, where they are wanted. A batch has at most
    `max_rows` rows and, but for a single large record, `max_bytes` bytes. digests: of a query's records;
    positions: of a batch's keys.
    """

    def __init__(
        self,
        bins: Mapping[str, int],
        progress: Progress,
        *,
        key: int | None = None,
        digests: bool = False,
        positions: bool = False,
        max_rows: int = 65536,
        max_bytes: int = 32 << 20,
    ) -> None:
        self._has_key, self._with_digests, self._with_positions = key is not None, digests, positions
        self._particles = [*bins.values(), *([] if key is None else [key])]
        self._max_bytes = max_bytes
        row_bytes = (
            sum(8 if particle in _FIXED else 4 + _VALUE_BYTES for particle in self._particles) + DIGEST_BYTES + 8
        )
        self._capacity = max(1, min(max_rows, max_bytes // row_bytes))
        self._columns = _columns(list(bins), self._particles)
        num_variable = sum(particle not in _FIXED for particle in self._particles)
        self._region_bytes = np.full(num_variable, _VALUE_BYTES * self._capacity, np.int64)
        self._stream = kernel.Stream(
            last_digests=progress.last_digests.reshape(-1),
            num_rows=progress.num_rows,
            fingerprints=progress.fingerprints,
            asked=np.zeros(NUM_PARTITIONS, np.bool_),
            failures=np.zeros(NUM_PARTITIONS, np.uint8),
            keys=np.empty(0, np.int64),
            state=np.zeros(kernel.NUM_STATES, np.int64),
        )
        self._rows = self._new_rows()
        self._input = np.zeros(INPUT_BYTES + SLACK_BYTES, np.uint8)
        self._end = 0
        self._bins = list(bins)
        self.ended = False
        self.num_bytes = 0
        """Of whole messages and headers of frames, until one that is not yet whole."""

    def begin(self, partitions: Sequence[int]) -> None:
        """A new stream of replies to a query starts, that was asked for these partitions. The last one is forgotten."""
        self._begin()
        self._stream.asked[:] = False
        self._stream.asked[np.asarray(partitions, np.int64)] = True

    def begin_batch(self, keys: NDArray[np.int64]) -> None:
        """A new stream of replies to a batch starts. The last one is forgotten.

        keys: by position the partition of each key that was asked for; negative where none was.
        """
        self._begin()
        self._stream = self._stream._replace(keys=keys.copy())

    def _begin(self) -> None:
        self._stream.failures[:] = 0
        self._stream.state[[kernel.AT, kernel.FRAME_LEFT, kernel.RESULT_CODE]] = 0
        self._columns.wrong[:] = 0
        self._end = 0
        self.ended = False

    def space(self) -> memoryview:
        """Where the next bytes of the stream are to be put; never empty."""
        return self._input[self._end : -SLACK_BYTES].data

    def received(self, num_bytes: int) -> list[Batch]:
        """Decode what was put into `space`. Returns the batches that it filled. Raises ProtocolError."""
        self._end += num_bytes
        batches: list[Batch] = []
        while True:
            match kernel.decode(self._input, self._end, self._columns, self._rows, self._stream):
                case kernel.NEEDS_MORE:
                    self._make_space()
                    return batches
                case kernel.ENDED:
                    if self.result_code == 0 and (self._stream.keys != kernel.ANSWERED).any():
                        raise ProtocolError("it ended before all keys were answered")
                    self.ended = True
                    return batches
                case kernel.FULL:
                    batches += self.flush()
                case kernel.GROW:
                    if not self._grow():
                        batches += self.flush()
                case damage:
                    raise ProtocolError(_DAMAGE[damage])

    @property
    def num_pending(self) -> int:
        """The number of rows decoded and not yet given out."""
        return int(self._stream.state[kernel.NUM_ROWS])

    @property
    def result_code(self) -> int:
        """How the stream ended: 0, or why it failed."""
        return int(self._stream.state[kernel.RESULT_CODE])

    @property
    def failures(self) -> dict[int, int]:
        """Partitions of this stream that the server did not deliver, or not wholly: partition -> result code."""
        return {int(pid): int(self._stream.failures[pid]) for pid in np.flatnonzero(self._stream.failures)}

    @property
    def mismatches(self) -> dict[str, tuple[int, int]]:
        """Columns that met values of another type, made null: name -> their number, and the last one's particle type.

        The stored key is named "".
        """
        if not self._stream.state[kernel.MISMATCHES]:
            return {}
        names = [*self._bins, *([""] if self._has_key else [])]
        counts = self._columns.mismatches
        return {
            names[column]: (int(counts[column, 0]), int(counts[column, 1])) for column in np.flatnonzero(counts[:, 0])
        }

    def flush(self) -> list[Batch]:
        """The rows that are pending as a batch, if there are any. Raises ProtocolError where a string is not UTF-8."""
        num_rows = self.num_pending
        if not num_rows:
            return []
        rows = self._rows
        arrays = [self._array(column, num_rows) for column in range(len(self._particles))]
        digests = None
        if self._with_digests:
            digests = pa.Array.from_buffers(pa.binary(DIGEST_BYTES), num_rows, [None, pa.py_buffer(rows.digests)])
        batch = Batch(
            num_rows=num_rows,
            columns=arrays[: len(self._bins)],
            key=arrays[-1] if self._has_key else None,
            digests=digests,
            positions=_numbers(rows.positions, num_rows) if self._with_positions else None,
            generations=_numbers(rows.generations, num_rows),
            void_times=_numbers(rows.void_times, num_rows),
        )
        used = rows.offsets[:, num_rows].astype(np.int64)
        expected = np.maximum(used + used // 8, _VALUE_BYTES)
        self._region_bytes = (expected * min(1, self._max_bytes / max(1, expected.sum()))).astype(np.int64)
        self._rows = self._new_rows()
        self._stream.state[kernel.NUM_ROWS] = 0
        return [batch]

    def _array(self, column: int, num_rows: int) -> pa.Array:
        rows, particle, slot = self._rows, self._particles[column], self._columns.slots[column]
        nulls = int(rows.nulls[column])
        validity = pa.py_buffer(rows.validity[column]) if nulls else None
        if particle == Particle.BOOL:
            bits = np.packbits(rows.fixed[slot, :num_rows].astype(np.bool_), bitorder="little")
            buffers = [validity, pa.py_buffer(bits)]
        elif particle in _FIXED:
            buffers = [validity, pa.py_buffer(rows.fixed[slot])]
        else:
            begin = rows.regions[slot, 0]
            values = rows.data[begin : begin + rows.offsets[slot, num_rows]]
            buffers = [validity, pa.py_buffer(rows.offsets[slot]), pa.py_buffer(values)]
        array = pa.Array.from_buffers(_ARROW_TYPES[particle], num_rows, buffers, null_count=nulls)
        if particle == Particle.STRING and values.max(initial=0) > _MAX_ASCII:
            self._check_text(column, array)
        return array

    def _check_text(self, column: int, array: pa.Array) -> None:
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            name = f"bin {self._bins[column]}" if column < len(self._bins) else "a stored key"
            raise ProtocolError(f"{name} holds a string that is not UTF-8") from None

    def _new_rows(self) -> kernel.Rows:
        capacity, num_columns = self._capacity, len(self._particles)
        num_variable = len(self._region_bytes)
        sizes = self._region_bytes
        begins = np.cumsum(sizes + SLACK_BYTES) - (sizes + SLACK_BYTES)
        offsets = np.empty((num_variable, capacity + 1), np.int32)
        offsets[:, 0] = 0
        return kernel.Rows(
            fixed=np.empty((num_columns - num_variable, capacity), np.int64),
            offsets=offsets,
            regions=np.stack([begins, sizes], axis=1),
            data=np.empty(int((sizes + SLACK_BYTES).sum()), np.uint8),
            validity=np.full((num_columns, (capacity + 7) // 8), 0xFF, np.uint8),
            nulls=np.zeros(num_columns, np.int64),
            digests=np.empty(capacity * DIGEST_BYTES if self._with_digests else 0, np.uint8),
            positions=np.empty(capacity if self._with_positions else 0, np.uint32),
            generations=np.empty(capacity, np.uint32),
            void_times=np.empty(capacity, np.uint32),
        )

    def _grow(self) -> bool:
        # More room for the values of one column. Refused where the batch is large enough to be given out instead.
        state, old, num_rows = self._stream.state, self._rows, self.num_pending
        slot, needed = state[kernel.SLOT], int(state[kernel.NEEDED])
        size, allowed = int(old.regions[slot, 1]), self._max_bytes - len(old.data)
        if needed - size > allowed and num_rows:
            return False
        self._region_bytes = old.regions[:, 1].copy()
        self._region_bytes[slot] = max(needed, size + min(size // 2, allowed))
        new = self._new_rows()
        for begin, end, used in zip(old.regions[:, 0], new.regions[:, 0], old.offsets[:, num_rows], strict=True):
            new.data[end : end + used] = old.data[begin : begin + used]
        self._rows = old._replace(data=new.data, regions=new.regions)
        return True

    def _make_space(self) -> None:
        state = self._stream.state
        at, needed = int(state[kernel.AT]), int(state[kernel.NEEDED])
        if needed > MAX_RECORD_BYTES:
            raise ProtocolError(f"a record has more than {MAX_RECORD_BYTES} bytes")
        pending = self._input[at : self._end]
        if needed + SLACK_BYTES > len(self._input):
            size = min(2 * needed, MAX_RECORD_BYTES)
            self._input = np.zeros(size + SLACK_BYTES, np.uint8)
        self._input[: len(pending)] = pending
        self._end -= at
        self.num_bytes += at
        state[kernel.AT] = 0


def _numbers(values: NDArray[np.uint32], num_rows: int) -> pa.Array:
    return pa.Array.from_buffers(pa.uint32(), num_rows, [None, pa.py_buffer(values)])


def _columns(names: Sequence[str], particles: Sequence[int]) -> kernel.Columns:
    words = np.full((len(particles), 2), 0xFFFFFFFFFFFFFFFF, np.uint64)  # no bin's name: the stored key
    for column, name in enumerate(names):
        encoded = name.encode()
        if len(encoded) > MAX_BIN_NAME_BYTES:
            raise ValueError(f"bin name {name!r} has more than {MAX_BIN_NAME_BYTES} bytes")
        words[column] = np.frombuffer((bytes([len(encoded)]) + encoded).ljust(16, b"\0"), "<u8")
    if unknown := set(particles) - _ARROW_TYPES.keys():
        raise ValueError(f"no column can hold particles of type {min(unknown)}")
    is_fixed = [particle in _FIXED for particle in particles]
    num_columns = len(particles)
    return kernel.Columns(
        names=words,
        particles=np.array(particles, np.int64),
        slots=np.array([is_fixed[:i].count(is_fixed[i]) for i in range(num_columns)], np.int64),
        key=np.array([num_columns - 1 if num_columns > len(names) else -1], np.int64),
        stamps=np.zeros(num_columns, np.int64),
        wrong=np.zeros(num_columns, np.int64),
        mismatches=np.zeros((num_columns, 2), np.int64),
    )
