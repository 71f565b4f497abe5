"""Reads a site's local datasets from its own folder. Knows no store, no network, no join."""

from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from geotrain.errors import DataError
from geotrain.tasks.config import DatasetConfig

# Declared type -> the types of a Parquet column that can stand for it without loss, and the type it gets.
TYPES: dict[str, tuple[frozenset[type[pl.DataType]], pl.DataType]] = {
    "int64": (frozenset({pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32}), pl.Int64()),
    "float64": (frozenset({pl.Float32, pl.Float64}), pl.Float64()),
    "string": (frozenset({pl.String, pl.Categorical, pl.Enum}), pl.String()),
    "bool": (frozenset({pl.Boolean}), pl.Boolean()),
    "timestamp": (frozenset({pl.Datetime}), pl.Datetime("us")),
}


def load(data_dir: Path, name: str, dataset: DatasetConfig) -> pl.DataFrame:
    """Return the declared columns of a local dataset, and only those. Raises DataError naming file and column.

    Timestamps come without a zone: those that have one are turned to UTC first. NaN is null.
    """
    paths = sorted(data_dir.glob(dataset.path))
    if not paths:
        raise DataError(
            f"local dataset {name}: there is no file {data_dir / dataset.path}",
            f"Put it there, or mend task.local.{name}.path or site.data_dir.",
        )
    return pl.concat(_read(path, name, dataset.columns) for path in paths)


def _read(path: Path, name: str, columns: dict[str, str]) -> pl.DataFrame:
    try:
        schema = pl.read_parquet_schema(path)
        for column, declared in columns.items():
            _check(path, name, column, schema.get(column), declared)
        frame = pl.read_parquet(path, columns=list(columns))
    except (PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: can't be read as Parquet: {reason}", "Write the file anew.") from error
    return frame.select(_normal(column, schema[column], declared) for column, declared in columns.items())


def _check(path: Path, name: str, column: str, found: pl.DataType | None, declared: str) -> None:
    if found is None:
        raise DataError(f"{path}: there is no column {column}", f"Add it, or mend task.local.{name}.columns.")
    if found.base_type() not in TYPES[declared][0]:
        raise DataError(
            f"{path}: column {column} is {found}, expected {declared}",
            f"Write it as {declared}, or mend task.local.{name}.columns.{column}.",
        )


def _normal(column: str, found: pl.DataType, declared: str) -> pl.Expr:
    values = pl.col(column)
    if isinstance(found, pl.Datetime) and found.time_zone:
        values = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if found.is_float():
        values = values.fill_nan(None)
    return values.cast(TYPES[declared][1])
