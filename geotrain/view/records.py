"""Turns the rows of a table into the operations that write them as records. Makes no call."""

from collections.abc import Iterator
from typing import Any

import aerospike
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from geotrain.errors import DataError
from geotrain.wire.codes import MAX_BIN_NAME_BYTES

ROWS_PER_SLICE = 1000  # that are Python objects at once
WRITE = aerospike.OPERATOR_WRITE
MICROSECONDS = pa.timestamp("us")
# Of records, and of maps: the client drops a map's entries with others, without a word.
KEY_TYPES = (pa.int64(), pa.large_string(), pa.large_binary())

Operation = dict[str, Any]


class Unfit(Exception):
    """What is wrong with a column, and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def storable(table: Any, set_name: str, key: str, newer_by: str | None) -> pa.Table:
    """Returns a table (of Arrow, polars, pandas, or any that gives itself as an Arrow stream) in the types of bins.

    Raises DataError, by column, for what no record can hold: nothing may be lost on the way.
    """
    arrow = as_arrow(table, set_name)
    if arrow.num_columns > len(set(arrow.column_names)):
        raise DataError(f"set {set_name}: two columns have one name: {', '.join(arrow.column_names)}", "rename one")
    for name in filter(None, (key, newer_by)):
        if name not in arrow.column_names:
            known = ", ".join(arrow.column_names)
            raise DataError(f"set {set_name}: column {name} is not in the table", f"name one of: {known}")
    columns = {}
    for name, column in zip(arrow.column_names, arrow.columns, strict=True):
        try:
            _check_name(name)
            columns[name] = as_keys(column) if name == key else as_bins(column)
            if name == key and (twice := len(column) - pc.count_distinct(columns[name]).as_py()):
                raise Unfit(f"is the key and holds {twice} duplicates", "keep one row a key, or use another key")
            if name == newer_by:
                _check_newer_by(columns[name])
        except Unfit as error:
            raise DataError(f"set {set_name}: column {name} {error.what}", error.remedy) from None
    return pa.table(columns)


def as_keys(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns a column in the type of keys. Raises Unfit."""
    if column.null_count:
        raise Unfit(f"is null in {column.null_count} rows", "drop those rows, or fill them in")
    keys = as_bins(column)
    if keys.type not in KEY_TYPES:
        raise Unfit(f"has the type {column.type}, which no key has", "use integers, strings or binary as keys")
    return keys


def as_bins(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns a column in the type of bins. Raises Unfit."""
    stored = _stored_type(column.type, pa.int64())
    if stored is None:
        known = "int64, float64, string, bool, timestamp, binary, or lists and maps of these"
        raise Unfit(f"has the type {column.type}, which no bin has", f"cast it to {known}")
    try:
        # In two steps: a timestamp in nanoseconds is a number of nanoseconds.
        bins = column.cast(_stored_type(column.type, MICROSECONDS)).cast(stored)
    except pa.ArrowInvalid as error:
        raise Unfit(f"can't be stored as it is: {error}", f"round it, or cast it to {stored}") from error
    if _holds_nul(bins):
        raise Unfit("has a text with a NUL character, where the client would cut it", "write it as binary")
    return bins


def operations(rows: pa.Table) -> list[list[Operation]]:
    """Returns for each row what writes its bins; a null is no bin."""
    names = rows.column_names
    return [
        [{"op": WRITE, "bin": name, "val": value} for name, value in zip(names, row, strict=True) if value is not None]
        for row in zip(*map(_python, rows.columns), strict=True)
    ]


def canonical(value: Any) -> str:
    """Returns a text that is equal for equal bins only: `==` takes True for 1 and for 1.0, and no NaN for another."""
    if isinstance(value, dict):
        return f"map {sorted((repr(key), canonical(held)) for key, held in value.items())}"
    if isinstance(value, list):
        return f"list {[canonical(item) for item in value]}"
    return repr(value)


def as_arrow(table: Any, set_name: str) -> pa.Table:
    """Returns a table of Arrow, polars, pandas, or any that gives itself as an Arrow stream. Raises DataError."""
    try:
        if isinstance(table, pd.DataFrame):
            return pa.Table.from_pandas(table, preserve_index=False)
        return pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"set {set_name}: what is to be written is no table that Arrow takes ({error})",
            "give an Arrow table, or a frame of polars or pandas with one type a column",
        ) from error


def _check_name(name: str) -> None:
    if not 0 < len(name.encode()) <= MAX_BIN_NAME_BYTES:
        raise Unfit(f"has a name longer than {MAX_BIN_NAME_BYTES} bytes, or none", "give it another one")


def _check_newer_by(column: pa.ChunkedArray) -> None:
    if column.null_count:
        raise Unfit(f"is null in {column.null_count} rows", "drop those rows, or fill them in")
    if column.type not in (pa.int64(), pa.float64()):
        raise Unfit(f"has the type {column.type}, and decides what is newer", "use a column of numbers")


def _stored_type(of: pa.DataType, timestamp: pa.DataType) -> pa.DataType | None:
    """The type in which the client takes values of a type; None where it takes none."""
    kind = pa.types
    if kind.is_dictionary(of):
        return _stored_type(of.value_type, timestamp)
    if kind.is_timestamp(of):
        return timestamp
    if kind.is_integer(of) or kind.is_null(of):
        return pa.int64()
    if kind.is_floating(of):
        return pa.float64()
    if kind.is_boolean(of):
        return of
    if kind.is_string(of) or kind.is_large_string(of) or kind.is_string_view(of):
        return pa.large_string()
    if kind.is_binary(of) or kind.is_large_binary(of) or kind.is_binary_view(of) or kind.is_fixed_size_binary(of):
        return pa.large_binary()
    if kind.is_list(of) or kind.is_large_list(of) or kind.is_fixed_size_list(of):
        item = _stored_type(of.value_type, timestamp)
        return None if item is None else pa.list_(item)
    if kind.is_map(of):
        key, item = (_stored_type(part, timestamp) for part in (of.key_type, of.item_type))
        return pa.map_(key, item) if key in KEY_TYPES and item is not None else None
    return None


def _holds_nul(bins: pa.ChunkedArray) -> bool:
    if pa.types.is_large_string(bins.type):
        return bool(pc.any(pc.match_substring(bins, "\0")).as_py())
    if not pa.types.is_nested(bins.type):
        return False
    return any("\0" in text for value in _values(bins) for text in _texts(value))


def _values(bins: pa.ChunkedArray) -> Iterator[Any]:
    for start in range(0, len(bins), ROWS_PER_SLICE):
        try:
            yield from _python(bins.slice(start, ROWS_PER_SLICE))
        except KeyError:
            raise Unfit("has a map with the same key twice", "keep one of them") from None


def _python(bins: pa.ChunkedArray) -> list[Any]:
    # Said only where there are maps: with it, scalars take twenty times as long.
    values: list[Any] = bins.to_pylist(maps_as_pydicts="strict" if pa.types.is_nested(bins.type) else None)
    return values


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        yield from _texts([*value, *value.values()])
