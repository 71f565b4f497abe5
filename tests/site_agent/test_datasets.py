from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from geotrain.errors import DataError
from geotrain.tasks.config import DatasetConfig
from site_agent.datasets import load

COLUMNS = {"at": "timestamp", "pump": "string", "pressure": "float64", "failures": "int64", "is_new": "bool"}
READINGS = DatasetConfig(path="readings*.parquet", columns=COLUMNS)


def frame(**changes: pl.Series) -> pl.DataFrame:
    columns = {
        "at": pl.Series([datetime(2024, 1, 1)], dtype=pl.Datetime("us")),
        "pump": pl.Series(["p1"]),
        "pressure": pl.Series([1.5]),
        "failures": pl.Series([0]),
        "is_new": pl.Series([True]),
        "note": pl.Series(["not declared"]),
    }
    return pl.DataFrame({**columns, **changes})


def test_only_the_declared_columns_are_read_from_all_files_of_the_pattern_in_order(tmp_path: Path) -> None:
    for number in (2, 1):
        frame(failures=pl.Series([number])).write_parquet(tmp_path / f"readings-{number}.parquet")
    read = load(tmp_path, "readings", READINGS)
    assert read.columns == list(COLUMNS)
    assert read["failures"].to_list() == [1, 2]


def test_a_type_that_fits_without_loss_is_taken_as_the_declared_one(tmp_path: Path) -> None:
    narrow = frame(
        at=pl.Series([datetime(2024, 1, 1, 12, tzinfo=UTC)]).dt.convert_time_zone("America/New_York"),
        pump=pl.Series(["p1"], dtype=pl.Categorical),
        pressure=pl.Series([1.5], dtype=pl.Float32),
        failures=pl.Series([3], dtype=pl.Int16),
    )
    narrow.write_parquet(tmp_path / "readings.parquet")
    read = load(tmp_path, "readings", READINGS)
    assert read.schema == frame().drop("note").schema
    assert read.row(0) == (datetime(2024, 1, 1, 12), "p1", 1.5, 3, True)


def test_not_a_number_is_null(tmp_path: Path) -> None:
    frame(pressure=pl.Series([float("nan")])).write_parquet(tmp_path / "readings.parquet")
    assert load(tmp_path, "readings", READINGS)["pressure"].to_list() == [None]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"local dataset readings: there is no file {tmp_path}/readings\*\.parquet"):
        load(tmp_path, "readings", READINGS)


def test_a_malformed_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "readings.parquet").write_bytes(b"at,pump\n1,2\n")
    with pytest.raises(DataError, match=rf"{tmp_path}/readings\.parquet: can't be read as Parquet"):
        load(tmp_path, "readings", READINGS)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "readings.parquet"
    frame().write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"{path}: can't be read as Parquet"):
        load(tmp_path, "readings", READINGS)


def test_a_missing_column_is_named_with_its_file(tmp_path: Path) -> None:
    frame().drop("pressure").write_parquet(tmp_path / "readings.parquet")
    with pytest.raises(DataError, match=rf"{tmp_path}/readings\.parquet: there is no column pressure"):
        load(tmp_path, "readings", READINGS)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("pressure", pl.Series(["1.5"]), "column pressure is String, expected float64"),
        ("failures", pl.Series([0.5]), "column failures is Float64, expected int64"),
        ("at", pl.Series([1_700_000_000]), "column at is Int64, expected timestamp"),
        ("is_new", pl.Series([1]), "column is_new is Int64, expected bool"),
        ("pump", pl.Series([7]), "column pump is Int64, expected string"),
    ],
)
def test_a_column_of_the_wrong_type_is_named_with_both_types(
    tmp_path: Path, column: str, values: pl.Series, message: str
) -> None:
    frame(**{column: values}).write_parquet(tmp_path / "readings.parquet")
    with pytest.raises(DataError, match=message):
        load(tmp_path, "readings", READINGS)
