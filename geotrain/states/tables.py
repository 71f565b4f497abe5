"""Publishes tables of states: rows by key, all of one version or all of the next. Rows first, then manifest and alias.

A version of a table is a model state without tensors: it is listed, promoted, rolled back, pinned and given up as those
are. Its rows are records of a set that all versions share, named by what the version holds.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from aerospike_helpers import expressions as exp
from aerospike_helpers.operations import operations
from numpy.typing import NDArray

from geotrain.errors import ConfigError, DataError, ViewError
from geotrain.states.heads import move_alias, read_record, write_manifest
from geotrain.states.manifest import GRACE_S, MANIFESTS, Manifest, check_names, check_noted, reference
from geotrain.states.rows import CONTENT, MAX_NAME_CHARS, ROW, TABLE, Layout, layout_of, sealed, set_of
from geotrain.view.connect import View
from geotrain.view.keyed import AerospikeError
from geotrain.view.query import read_set
from geotrain.view.records import as_arrow, storable
from geotrain.view.refusals import refusal
from geotrain.view.removal import renew

KEY = "key"
ROWS_PER_WRITE = 100_000  # that are in memory as records at once
RECORD_OVERHEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A version of a table that readers can see. reference: `flights/global@3`."""

    version: int
    reference: str
    num_rows: int
    bytes_written: int


def publish_table(
    view: View,
    name: str,
    table: Any,
    *,
    key: str,
    scope: str = "global",
    alias: str = "production",
    lineage: Mapping[str, Any] | None = None,
    epoch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PublishedTable:
    """Writes a table as the next version of its scope, and moves the alias to it. Whoever stops before changes nothing.

    table: of Arrow, polars or pandas; key: its column of integers or strings that readers ask by; all others are
    numbers, bools, timestamps, or lists of these of one length. A null number is NaN; no other may be null.
    epoch: of the coordinator that publishes; Fenced is raised where a later one has published. progress: called with
    the number of rows written, and of all. Raises DataError for a table that can't be published, before anything is
    written, and ViewError.
    """
    check_names(name, scope, alias)
    if len(name) > MAX_NAME_CHARS:
        raise ConfigError(f"the name {name!r} is too long for a table", f"use up to {MAX_NAME_CHARS} characters")
    check_noted(lineage or {}, {})
    keys, rows = _rows(view, name, table, key)
    layout = layout_of(keys, rows)
    begun_s = time.monotonic()
    _write(view, name, keys, rows, layout, progress)
    fields = {
        "model": name,
        "scope": scope,
        "tensors": {},
        "resume": {},
        "lineage": dict(lineage or {}),
        "metadata": {TABLE: layout.to_json()},
    }
    head = read_record(view, name, scope)
    version, manifest_bytes = write_manifest(view, fields, epoch, head)
    if time.monotonic() - begun_s > GRACE_S / 4:
        _check_there(view, name, keys, layout)
    move_alias(view, name, scope, version, alias=alias, epoch=epoch, seen=head)
    return PublishedTable(version, reference(name, scope, version), len(rows), rows.nbytes + manifest_bytes)


def remove_unused_rows(view: View, name: str, *, grace_s: float = GRACE_S) -> None:
    """Has the server remove, in its own time, the rows that no version of a table needs any more.

    Those go that no manifest names, and that were written longer ago than the grace, by the server's clock and by this
    one: versions go by `geotrain.states.collect`. Raises ViewError, also for a manifest of another format.
    """
    now_ns = round((time.time() - grace_s) * 1e9)
    manifests = [Manifest.from_bytes(row["manifest"]) for row in read_set(view, MANIFESTS, ["manifest"])]
    named = {
        Layout.from_json(manifest.metadata[TABLE]).content
        for manifest in manifests
        if manifest.model == name and TABLE in manifest.metadata
    }
    unused = exp.And(
        exp.GE(exp.SinceUpdateTime(), round(grace_s * 1000)),
        exp.LE(exp.LastUpdateTime(), now_ns),
        *(exp.NE(exp.StrBin(CONTENT), content) for content in sorted(named)),
    )
    query = view.client.query(view.config.namespace, set_of(name))
    query.add_ops([operations.delete()])
    try:
        query.execute_background({"expressions": unused.compile(), "durable_delete": view.consistency == "strong"})
    except AerospikeError as error:
        raise refusal(f"removing rows of the table {name}", error.code, error.msg) from error


def _rows(view: View, name: str, table: Any, key: str) -> tuple[list[Any], NDArray[np.void]]:
    """The keys, and the rows as one array with a field a column."""
    arrow = as_arrow(table, name)
    keys = storable(arrow.select([key]) if key in arrow.column_names else arrow, name, key, None)[key]
    if keys.type not in (pa.int64(), pa.large_string()):
        raise DataError(f"table {name}: column {key} is the key and is {keys.type}", "use integers or strings as keys")
    columns = {column: _numbers(name, column, arrow[column]) for column in arrow.column_names if column != key}
    if not columns:
        raise DataError(f"table {name}: there is no column but the key", "add what is to be looked up")
    rows = np.empty(len(keys), [(column, values.dtype, values.shape[1:]) for column, values in columns.items()])
    for column, values in columns.items():
        rows[column] = values
    if rows.itemsize > view.max_record_bytes - RECORD_OVERHEAD_BYTES:
        raise DataError(
            f"table {name}: a row has {rows.itemsize:,} bytes, a record of the view has {view.max_record_bytes:,}",
            "leave columns out, or raise max-record-size of the namespace",
        )
    return keys.to_pylist(), rows


def _numbers(name: str, column: str, values: pa.ChunkedArray) -> NDArray[Any]:
    """The values of a column, (n,) or for lists (n, length). Raises DataError."""
    array = values.combine_chunks()
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        lengths = pc.unique(pc.list_value_length(array)).to_pylist() or [0]
        if len(lengths) > 1 or lengths[0] is None:
            raise DataError(f"table {name}: the lists in column {column} are not of one length", "make them all so")
        return _numbers(name, column, pa.chunked_array([array.flatten()])).reshape(len(array), lengths[0])
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us"))
    elif not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type)):
        raise DataError(
            f"table {name}: column {column} has the type {array.type}",
            "publish numbers, bools, timestamps, or lists of these of one length",
        )
    if array.null_count and not pa.types.is_floating(array.type):
        raise DataError(f"table {name}: column {column} is null in {array.null_count} places", "fill them in")
    found: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return found.astype(found.dtype.newbyteorder("<"), copy=False)


def _write(
    view: View,
    name: str,
    keys: list[Any],
    rows: NDArray[np.void],
    layout: Layout,
    progress: Callable[[int, int], None] | None,
) -> None:
    for at in range(0, len(rows), ROWS_PER_WRITE):
        some = rows[at : at + ROWS_PER_WRITE]
        stored = sealed(some)
        records = pa.table(
            {
                KEY: [f"{layout.prefix}{row_key}" for row_key in keys[at : at + ROWS_PER_WRITE]],
                ROW: pa.FixedSizeBinaryArray.from_buffers(
                    pa.binary(stored.shape[1]), len(some), [None, pa.py_buffer(stored.data)]
                ),
                CONTENT: pa.array([layout.content] * len(some)),
            }
        )
        view.write(records, set_of(name), KEY)
        if progress:
            progress(at + len(some), len(rows))


def _check_there(view: View, name: str, keys: list[Any], layout: Layout) -> None:
    """Makes sure that no row was removed before the manifest named it."""
    for at in range(0, len(keys), ROWS_PER_WRITE):
        some = [f"{layout.prefix}{row_key}" for row_key in keys[at : at + ROWS_PER_WRITE]]
        if not all(renew(view, set_of(name), some, GRACE_S / 2)):
            raise ViewError(
                f"rows of the table {name} were removed while it was written, which took too long", "publish it again"
            )
