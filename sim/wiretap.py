"""Counts how many of a site's local rows can be found in the bytes that left it. Knows no model, message or network.

What it sees: rows in the clear, in the bytes of the demo's link (no TLS and no compression there). A row counts as
found when a window of its bytes that no other row of its table has is in the capture. Windows are taken from
- a numeric column: 8 values of consecutive rows, as little-endian int32, int64, float32, float64 (Arrow, numpy,
  safetensors, Parquet's plain encoding);
- a row's numeric columns: 8 side by side (or all, where there are fewer), in the same four types (a matrix);
- a string column: 32 bytes of consecutive values (Arrow), or the last 16 to 32 bytes of one value (protobuf, msgpack);
- a row as CSV, or as JSON with or without blanks: 64 bytes.
What it can't see: bytes that are compressed, encrypted or otherwise transformed (standardised features are seen only
when the caller gives them as a table), varints, Arrow's views of short strings, single values, rows that have a twin.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import numpy as np
import polars as pl
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

NUM_VALUES = 8
TEXT_BYTES = 64
STRINGS_BYTES = 32
LONG_STRING_BYTES = 16
# A window with fewer bytes other than zero says too little: small integers among padding occur anywhere.
MIN_NONZERO_BYTES = 12
NUMERIC_TYPES = ("<i4", "<i8", "<f4", "<f8")
CHUNK_BYTES = 1 << 22
FILTER_BITS = 26

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES = 9

# A polynomial hash of 64 bits over random values of the bytes. With 10^7 windows to look for at 10^8 places, the
# chance of a single false match is about 10^-4.
_BASE = 0x9E3779B97F4A7C15
_BASE_INVERSE = pow(_BASE, -1, 1 << 64)
_BYTE_VALUES = np.random.default_rng(4096).integers(0, 1 << 64, 256, dtype=np.uint64)


def rows_moved(captured: Sequence[bytes], tables: Mapping[str, pl.DataFrame]) -> dict[str, int]:
    """How many rows of each table are found in the captured bytes (one item a connection)."""
    streams = [np.frombuffer(stream, np.uint8) for connection in captured for stream in payloads(connection)]
    return {name: _rows_found(streams, table) for name, table in tables.items()}


def payloads(connection: bytes) -> list[bytes]:
    """The streams of an HTTP/2 connection, each without its frame headers; other bytes as they are.

    gRPC cuts messages into frames of 16 KiB; put together again, no row is lost at a border. RFC 9113, section 4.1.
    """
    if not connection.startswith(HTTP2_PREFACE):
        return [connection]
    streams: dict[int, bytearray] = {}
    at = len(HTTP2_PREFACE)
    while at + FRAME_HEADER_BYTES <= len(connection):
        length = int.from_bytes(connection[at : at + 3], "big")
        stream = int.from_bytes(connection[at + 5 : at + 9], "big") & 0x7FFFFFFF
        at += FRAME_HEADER_BYTES
        streams.setdefault(stream, bytearray()).extend(connection[at : at + length])
        at += length
    return [bytes(stream) for stream in streams.values()]


@dataclass(slots=True)
class _Windows:
    """Windows of one encoding of a table, by hash; window i stands for `num_rows` rows from first_rows[i] on."""

    width: int
    hashes: Hashes
    stream: Bytes
    starts: Places
    first_rows: Places
    num_rows: int

    @classmethod
    def of(cls, stream: Bytes, starts: Places, width: int, first_rows: Places, num_rows: int = 1) -> "_Windows":
        """Those of the windows of `width` bytes at the starts (ascending) that have no twin."""
        hashes, indices, counts = np.unique(_hashes_at(stream, starts, width), return_index=True, return_counts=True)
        lone = counts == 1
        indices = indices[lone]
        return cls(width, hashes[lone], stream, starts[indices], first_rows[indices], num_rows)

    def rows_of(self, seen: Hashes) -> Places:
        """The first rows of the seen windows that say enough."""
        hits = np.flatnonzero(_isin(self.hashes, seen))
        content = (self.stream[start : start + self.width] for start in self.starts[hits])
        telling = [np.count_nonzero(window) >= MIN_NONZERO_BYTES for window in content]
        return self.first_rows[hits[np.array(telling, bool)]]


def _rows_found(streams: Sequence[Bytes], table: pl.DataFrame) -> int:
    encodings = [*_columns(table), *_rows(table), *_strings(table), *_texts(table)]
    found = np.zeros(len(table), bool)
    encodings = sorted((e for e in encodings if len(e.hashes)), key=lambda windows: windows.width)
    for width, group in groupby(encodings, key=lambda windows: windows.width):
        of_width = list(group)
        seen = _seen(streams, np.concatenate([windows.hashes for windows in of_width]), width)
        for windows in of_width:
            for first_row in windows.rows_of(seen):
                found[first_row : first_row + windows.num_rows] = True
    return int(found.sum())


def _columns(table: pl.DataFrame) -> Iterator[_Windows]:
    """Runs of a numeric column: a window from each row on."""
    rows = np.arange(len(table) - NUM_VALUES + 1)
    for values in _numeric(table):
        for kind in NUMERIC_TYPES:
            column = _cast(values, kind)
            size = column.itemsize
            yield _Windows.of(column.view(np.uint8), rows * size, NUM_VALUES * size, rows, NUM_VALUES)


def _rows(table: pl.DataFrame) -> Iterator[_Windows]:
    """The numeric columns of a row side by side, in the table's order: a window from each column on."""
    columns = _numeric(table)
    num_columns = min(NUM_VALUES, len(columns))
    rows, firsts = np.divmod(np.arange(len(table) * len(columns)), max(1, len(columns)))
    whole = firsts + num_columns <= len(columns)
    for kind in NUMERIC_TYPES:
        size = np.dtype(kind).itemsize
        if num_columns * size >= MIN_NONZERO_BYTES:
            matrix = np.stack([_cast(values, kind) for values in columns], axis=1).reshape(-1)
            yield _Windows.of(matrix.view(np.uint8), np.flatnonzero(whole) * size, num_columns * size, rows[whole])


def _strings(table: pl.DataFrame) -> Iterator[_Windows]:
    """String columns: the values end to end, a window from each value's beginning; and long values by themselves."""
    for series in table.select(pl.col(pl.String)):
        lengths = series.str.len_bytes().fill_null(0).to_numpy().astype(np.int64)
        ends = np.cumsum(lengths)
        starts = ends - lengths
        stream = np.frombuffer("".join(series.drop_nulls()).encode(), np.uint8)
        rows = np.flatnonzero((lengths > 0) & (starts + STRINGS_BYTES <= len(stream)))
        yield _Windows.of(stream, starts[rows], STRINGS_BYTES, rows)
        for width in range(LONG_STRING_BYTES, STRINGS_BYTES + 1):
            rows = np.flatnonzero(np.minimum(lengths, STRINGS_BYTES) == width)
            yield _Windows.of(stream, ends[rows] - width, width, rows)


def _texts(table: pl.DataFrame) -> Iterator[_Windows]:
    """Each row as a line of text: windows side by side, the last of them at the line's end."""
    compact = table.write_ndjson().encode()
    spaced = compact.replace(b',"', b', "').replace(b'":', b'": ')
    for text in (table.write_csv(include_header=False).encode(), compact, spaced):
        stream = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(stream == ord("\n"))
        if len(ends) != len(table):  # a value holds a line break
            continue
        lengths = np.diff(ends, prepend=-1) - 1
        num_windows = -(-lengths // TEXT_BYTES) * (lengths >= TEXT_BYTES)
        rows = np.repeat(np.arange(len(table)), num_windows)
        numbers = np.arange(len(rows)) - np.repeat(np.cumsum(num_windows) - num_windows, num_windows)
        starts = np.minimum((ends - lengths)[rows] + numbers * TEXT_BYTES, ends[rows] - TEXT_BYTES)
        yield _Windows.of(stream, starts, TEXT_BYTES, rows)


def _numeric(table: pl.DataFrame) -> list[NDArray[np.generic]]:
    """The numeric columns; timestamps as microseconds since the epoch, nulls as NaN or 0."""
    columns = []
    for series in table:
        if series.dtype.is_temporal():
            series = series.cast(pl.Datetime("us")).to_physical()
        if series.dtype.is_numeric():
            columns.append(series.fill_null(float("nan") if series.dtype.is_float() else 0).to_numpy())
    return columns


def _cast(values: NDArray[np.generic], kind: str) -> NDArray[np.generic]:
    """The values in another type; what does not fit becomes something that nobody sends."""
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(values.astype(kind))


@cache
def _powers(base: int) -> Hashes:
    """base**i modulo 2**64, for every place i of a chunk."""
    factors = np.full(CHUNK_BYTES + TEXT_BYTES, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _rolling_hashes(stream: Bytes, width: int) -> Iterator[tuple[int, Hashes]]:
    """The hash of the `width` bytes at every place, by prefix sums; a chunk's first place and its hashes at a time."""
    for first in range(0, len(stream) - width + 1, CHUNK_BYTES):
        part = stream[first : first + CHUNK_BYTES + width - 1]
        sums = np.zeros(len(part) + 1, np.uint64)
        np.cumsum(_BYTE_VALUES[part] * _powers(_BASE)[: len(part)], out=sums[1:])
        yield first, (sums[width:] - sums[:-width]) * _powers(_BASE_INVERSE)[: len(part) - width + 1]


def _hashes_at(stream: Bytes, starts: Places, width: int) -> Hashes:
    """The hashes of the `width` bytes at the starts, which ascend."""
    found = [np.empty(0, np.uint64)]
    for first, hashes in _rolling_hashes(stream, width):
        here = slice(*np.searchsorted(starts, [first, first + len(hashes)]))
        found.append(hashes[starts[here] - first])
    return np.concatenate(found)


def _seen(streams: Sequence[Bytes], wanted: Hashes, width: int) -> Hashes:
    """Those of the wanted hashes that occur in a stream. A table of bits sends most places away at once."""
    shift = np.uint64(64 - FILTER_BITS)
    maybe = np.zeros(1 << FILTER_BITS, bool)
    maybe[wanted >> shift] = True
    candidates = [np.empty(0, np.uint64)]
    for stream in streams:
        for _, hashes in _rolling_hashes(stream, width):
            candidates.append(hashes[maybe[hashes >> shift]])
    found = np.concatenate(candidates)
    return np.sort(found[_isin(found, np.sort(wanted))])


def _isin(hashes: Hashes, ascending: Hashes) -> NDArray[np.bool_]:
    """Like np.isin, which takes minutes here: its hash table is slow on hashes."""
    if not len(ascending):
        return np.zeros(len(hashes), bool)
    index = np.searchsorted(ascending, hashes)
    return ascending[np.minimum(index, len(ascending) - 1)] == hashes
