"""Reads a site's local datasets from its own folder. Knows no store, no network, no join."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote

import polars as pl
from polars.exceptions import PolarsError, SchemaFieldNotFoundError

from geotrain.errors import DataError
from geotrain.tasks.config import DatasetConfig

# Declared type -> the types of a column that can stand for it without loss, and the type it gets.
TYPES: dict[str, tuple[frozenset[type[pl.DataType]], pl.DataType]] = {
    "int64": (frozenset({pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32}), pl.Int64()),
    "float64": (frozenset({pl.Float32, pl.Float64}), pl.Float64()),
    "string": (frozenset({pl.String, pl.Categorical, pl.Enum}), pl.String()),
    "bool": (frozenset({pl.Boolean}), pl.Boolean()),
    "timestamp": (frozenset({pl.Datetime}), pl.Datetime("us")),
}
SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}
FORMATS = {"parquet": "Parquet", "csv": "CSV", "json": "JSON", "delta": "a Delta table", "iceberg": "an Iceberg table"}
READERS = {"delta": "deltalake", "iceberg": "pyiceberg"}
DELTA_LOG = "_delta_log"
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"

FileVersion = tuple[Path, int, int]
"""Path, size in bytes, time of the last change in nanoseconds."""


@dataclass(frozen=True, slots=True)
class LocalDataset:
    """The declared columns of a local dataset.

    files: as they were when it was read. version: names them and the columns; another one, other rows.
    """

    name: str
    frame: pl.DataFrame
    files: tuple[FileVersion, ...]
    version: str

    def check_unchanged(self) -> None:
        """Raise DataError naming the first file that is not what it was when it was read."""
        for file in self.files:
            if not file[0].exists() or _version(file[0]) != file:
                raise DataError(
                    f"local dataset {self.name}: {file[0]} changed after it was read",
                    "Let the files be while a job runs: write new ones beside them, and launch again.",
                )


def load(data_dir: Path, name: str, config: DatasetConfig) -> LocalDataset:
    """Return the declared columns of a local dataset, and only those. Raises DataError naming file and column.

    Timestamps come without a zone: those that have one are turned to UTC first. NaN is null.
    """
    paths = list(dict.fromkeys(_paths(data_dir, config)))  # `**` finds files in a folder and in those above it
    if not paths:
        raise DataError(
            f"local dataset {name}: there is no file {data_dir / config.path}",
            f"Put it there, or mend task.local.{name}.path or site.data_dir.",
        )
    files = tuple(_version(path) for found in paths for path in _files(found, _format(found, config)))
    frame = pl.concat(_read(path, data_dir, name, config) for path in paths)
    described = json.dumps([[str(path), *rest] for path, *rest in files] + [[*config.columns.items()]])
    dataset = LocalDataset(name, frame, files, hashlib.sha256(described.encode()).hexdigest())
    dataset.check_unchanged()
    return dataset


def _paths(data_dir: Path, config: DatasetConfig) -> Iterator[Path]:
    """What the pattern matches; of a folder all files. What a writer hides is left out, unless the pattern names it."""
    named = {part[0] for part in PurePath(config.path).parts}
    hiding = {"_", "."} - named
    for path in sorted(data_dir.glob(config.path)):
        for file in [path] if path.is_file() or _format(path, config) == "delta" else sorted(path.rglob("*")):
            parts = file.relative_to(data_dir).parts
            hidden = any(part[0] in hiding and "=" not in part for part in parts)
            if not hidden and (file == path or file.is_file()):
                yield file


def _format(path: Path, config: DatasetConfig) -> str:
    if config.format != "auto":
        return config.format
    return "delta" if (path / DELTA_LOG).is_dir() else SUFFIXES.get(path.suffix, "parquet")


def _files(path: Path, format_name: str) -> list[Path]:
    """The files that change when the rows do: of a Delta table its log."""
    return sorted((path / DELTA_LOG).glob("*")) if format_name == "delta" else [path]


def _version(path: Path) -> FileVersion:
    found = path.stat()
    return path, found.st_size, found.st_mtime_ns


def _read(path: Path, data_dir: Path, name: str, config: DatasetConfig) -> pl.DataFrame:
    format_name = _format(path, config)
    try:
        rows = _scan(path, format_name, config.columns).with_columns(**_folder_columns(path, data_dir, config))
        schema = rows.collect_schema()
        for column, declared in config.columns.items():
            _check(path, name, column, schema.get(column), declared)
        return rows.select(_normal(column, schema[column], type_) for column, type_ in config.columns.items()).collect()
    except ImportError as error:
        reader = READERS[format_name]
        raise DataError(
            f"local dataset {name}: {FORMATS[format_name]} needs {reader}, which is not installed",
            f"pip install {reader}",
        ) from error
    except SchemaFieldNotFoundError as error:  # of JSON, which is parsed by the declared columns
        raise DataError(f"{path}: there is no column {error}", f"Add it, or mend task.local.{name}.columns.") from error
    except (PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: can't be read as {FORMATS[format_name]}: {reason}", "Write it anew.") from error


def _scan(path: Path, format_name: str, columns: dict[str, str]) -> pl.LazyFrame:
    if format_name == "delta":
        return pl.scan_delta(str(path))
    if format_name == "iceberg":
        return pl.scan_iceberg(str(path))
    if format_name == "parquet":
        return pl.scan_parquet(path, glob=False, hive_partitioning=False)
    # Text has no types but the declared ones.
    parsed = {column: pl.String() if type_ == "timestamp" else TYPES[type_][1] for column, type_ in columns.items()}
    if format_name == "csv":
        rows = pl.scan_csv(path, glob=False, schema_overrides=parsed)
    else:
        # A column may come up in the last line only.
        rows = pl.scan_ndjson(path, schema_overrides=parsed, infer_schema_length=None)
    times = [column for column in rows.collect_schema() if columns.get(column) == "timestamp"]
    return rows.with_columns(pl.col(times).str.to_datetime(time_unit="us", time_zone="UTC"))


def _folder_columns(path: Path, data_dir: Path, config: DatasetConfig) -> dict[str, pl.Expr]:
    """The declared columns among the folders named `column=value`."""
    pairs = [part.split("=", 1) for part in path.relative_to(data_dir).parts[:-1] if "=" in part]
    return {
        column: _parsed(None if value == NO_VALUE else unquote(value), config.columns[column])
        for column, value in pairs
        if column in config.columns
    }


def _parsed(value: str | None, declared: str) -> pl.Expr:
    text = pl.lit(value, pl.String)
    if declared == "timestamp":
        return text.str.to_datetime(time_unit="us", time_zone="UTC")
    if declared == "bool":
        return text.str.to_lowercase().replace_strict({"true": True, "false": False}, return_dtype=pl.Boolean)
    return text.cast(TYPES[declared][1])


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
