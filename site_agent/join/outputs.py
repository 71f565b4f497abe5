"""Hands joined rows over in the forms that people work with. Knows nothing of how they were joined.

An Arrow table is a polars or pandas frame by `polars.DataFrame(table)` and `table.to_pandas()`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray

from geotrain.errors import DataError
from site_agent.join.steps import ROW


def to_dataset(blocks: Sequence[ray.ObjectRef]) -> Any:
    """The joined blocks as a `ray.data.Dataset` of Arrow blocks, where they are; in no order of rows."""
    import ray.data  # seconds, and the agent does without it

    refs: list[Any] = list(blocks)
    return ray.data.from_arrow_refs(refs).drop_columns([ROW])


def to_table(blocks: Sequence[ray.ObjectRef]) -> pa.Table:
    """The joined blocks as one table in this process, in the order of the local rows."""
    return pa.concat_tables(ray.get(list(blocks))).sort_by(ROW).drop_columns([ROW])


def to_numpy(table: pa.Table) -> dict[str, NDArray[Any]]:
    """A NumPy array a column: without a copy where the column is one chunk of numbers or times without nulls."""
    return {name: _whole(table[name]).to_numpy(zero_copy_only=False) for name in table.column_names}


def to_torch(table: pa.Table) -> dict[str, torch.Tensor]:
    """A tensor a column, times as microseconds since the Unix epoch; a null float is NaN.

    A column that is one chunk of numbers or times without nulls shares its memory, and must not be written to.
    Raises DataError for what no tensor can hold: strings, and nulls of other types.
    """
    return {name: _tensor(name, _whole(table[name])) for name in table.column_names}


def _whole(column: pa.ChunkedArray) -> pa.Array:
    # To combine one chunk would copy it.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _tensor(name: str, column: pa.Array) -> torch.Tensor:
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not (is_number or pa.types.is_timestamp(column.type) or pa.types.is_boolean(column.type)):
        raise DataError(f"column {name}: {column.type} does not fit into a tensor", "Leave it out, or encode it.")
    if column.null_count and not pa.types.is_floating(column.type):
        raise DataError(f"column {name}: {column.null_count} values are null", "Fill them in, or drop those rows.")
    if column.null_count or pa.types.is_boolean(column.type):
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return torch.from_numpy(values if values.flags.writeable else np.array(values))
    return torch.from_dlpack(column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column)
