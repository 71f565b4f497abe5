"""Reads records by their keys into Arrow columns. Knows nothing of what the columns mean."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa
from aerospike_helpers import expressions

from geotrain.errors import DataError
from geotrain.view.columns import declared_types, to_arrow, type_word
from geotrain.view.cut import Cut
from geotrain.view.records import Unfit, as_keys

if TYPE_CHECKING:
    from geotrain.view.connect import ClientRecord, Key, View

logger = logging.getLogger(__name__)

KEYS_PER_CHUNK = 250
CHUNKS_AT_ONCE = 2  # whose records are Python objects at once: those of one are made while the other is on its way
GENERATION = "__generation"


def lookup(
    view: "View",
    set_name: str,
    keys: "pa.Array | pa.ChunkedArray | Sequence[Key]",
    columns: Mapping[str, str],
    *,
    cut: Cut | None = None,
) -> pa.Table:
    """Returns one row a key, in the order of the keys: the columns, and `__generation`.

    keys: integers, strings or bytes, all of one kind; one that comes again is read once.
    columns: bin name -> type word. A bin that a record lacks is null. Where there is no record, or none that is in the
    cut, the whole row is null, and only there is `__generation`.
    Read where `view.reads` says, tried again for `deadline_s`. Raises DataError where keys are null or mixed, and where
    a record holds another type than a column declares; ViewError where records can't be read.
    """
    types = declared_types(set_name, columns, reserved=("__key", GENERATION))
    # One index a key, into the distinct ones.
    encoded = _array(set_name, keys).dictionary_encode()
    distinct = encoded.dictionary
    expression = expressions.LE(expressions.LastUpdateTime(), cut.until_ns).compile() if cut else None

    def read(start: int) -> pa.Table:
        some = distinct.slice(start, KEYS_PER_CHUNK).to_pylist()
        return _table(set_name, view.read_many(set_name, some, list(types), expression=expression), types)

    nothing = pa.schema([*types.items(), (GENERATION, pa.int32())]).empty_table()
    with ThreadPoolExecutor(CHUNKS_AT_ONCE) as pool:
        table = pa.concat_tables([nothing, *pool.map(read, range(0, len(distinct), KEYS_PER_CHUNK))])
    _warn_of_empty_columns(set_name, table)
    return table.take(encoded.indices)


def _array(set_name: str, keys: "pa.Array | pa.ChunkedArray | Sequence[Key]") -> pa.Array:
    try:
        column = keys if isinstance(keys, pa.Array | pa.ChunkedArray) else pa.array(keys)
        column = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
        return as_keys(column).combine_chunks()
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"set {set_name}: the keys are not of one type ({error})", "make them all of one") from None
    except Unfit as error:
        raise DataError(f"set {set_name}: the column of keys {error.what}", error.remedy) from None


def _table(set_name: str, records: "list[ClientRecord | None]", types: Mapping[str, pa.DataType]) -> pa.Table:
    arrays = {}
    for name, of in types.items():
        values = [record[2].get(name) if record else None for record in records]
        arrays[name], num_mismatches = to_arrow(values, of)
        if num_mismatches:
            what = f"column {name} is declared {type_word(of)}, but {num_mismatches} records hold another type"
            remedy = f"correct the declared type, or write {name} with one type everywhere"
            raise DataError(f"set {set_name}: {what}", remedy)
    arrays[GENERATION] = pa.array([None if record is None else record[1]["gen"] for record in records], pa.int32())
    return pa.table(arrays)


def _warn_of_empty_columns(set_name: str, table: pa.Table) -> None:
    num_found = table.num_rows - table[GENERATION].null_count
    for name, column in zip(table.column_names, table.columns, strict=True):
        if num_found and column.null_count == table.num_rows:
            logger.warning("set %s: none of the %d records found by key has the column %s", set_name, num_found, name)
