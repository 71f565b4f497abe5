import importlib.util
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
    read = load(tmp_path, "readings", READINGS).frame
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
    read = load(tmp_path, "readings", READINGS).frame
    assert read.schema == frame().drop("note").schema
    assert read.row(0) == (datetime(2024, 1, 1, 12), "p1", 1.5, 3, True)


def test_not_a_number_is_null(tmp_path: Path) -> None:
    frame(pressure=pl.Series([float("nan")])).write_parquet(tmp_path / "readings.parquet")
    assert load(tmp_path, "readings", READINGS).frame["pressure"].to_list() == [None]


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


VALUES = {"at": "2024-01-01T12:00:00.5Z", "pump": "007", "pressure": 1.0, "failures": 3, "is_new": True}
EXPECTED = (datetime(2024, 1, 1, 12, 0, 0, 500_000), "007", 1.0, 3, True)


def as_csv(rows: list[dict[str, Any]]) -> str:
    return "\n".join(
        [",".join(COLUMNS), *(",".join(str(value).replace("True", "true") for value in row.values()) for row in rows)]
    )


def as_json(rows: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows))


@pytest.mark.parametrize(("suffix", "written"), [("csv", as_csv), ("json", as_json), ("jsonl", as_json)])
def test_text_is_read_with_the_declared_types(tmp_path: Path, suffix: str, written: Callable[[Any], str]) -> None:
    (tmp_path / f"readings.{suffix}").write_text(written([VALUES]))
    dataset = DatasetConfig(path="readings.*", columns=COLUMNS)
    read = load(tmp_path, "readings", dataset).frame
    assert read.schema == frame().drop("note").schema
    assert read.rows() == [EXPECTED]


@pytest.mark.parametrize("time", ["2024-01-01 12:00:00.5", "2024-01-01T12:00:00.500", "2024-01-01T13:00:00.5+01:00"])
def test_a_time_in_text_may_have_a_zone_or_none(tmp_path: Path, time: str) -> None:
    (tmp_path / "readings.csv").write_text(as_csv([VALUES | {"at": time}]))
    dataset = DatasetConfig(path="readings.csv", columns=COLUMNS)
    assert load(tmp_path, "readings", dataset).frame.rows() == [EXPECTED]


@pytest.mark.parametrize("wrong", [{"failures": "many"}, {"failures": 2.5}, {"at": "noon"}, {"pressure": "high"}])
@pytest.mark.parametrize(("suffix", "written"), [("csv", as_csv), ("json", as_json)])
def test_a_word_that_is_not_of_the_declared_type_is_refused_with_the_file(
    tmp_path: Path, suffix: str, written: Callable[[Any], str], wrong: dict[str, Any]
) -> None:
    path = tmp_path / f"readings.{suffix}"
    path.write_text(written([VALUES, VALUES | wrong]))
    with pytest.raises(DataError, match=f"{path}: can't be read as {suffix.upper()}"):
        load(tmp_path, "readings", DatasetConfig(path=path.name, columns=COLUMNS))


def test_folders_named_for_a_value_are_columns(tmp_path: Path) -> None:
    for year, site in ((2023, "p%201"), (2024, "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / "history" / f"year={year}" / f"site={site}"
        folder.mkdir(parents=True)
        frame().write_parquet(folder / "part.parquet")
        (folder / "_SUCCESS").touch()
    dataset = DatasetConfig(path="history", columns={"failures": "int64", "year": "int64", "site": "string"})
    assert load(tmp_path, "history", dataset).frame.rows() == [(0, 2023, "p 1"), (0, 2024, None)]


@pytest.mark.parametrize(
    ("type_", "folder", "value"),
    [
        ("timestamp", "at=2024-01-01", datetime(2024, 1, 1)),
        ("timestamp", "at=2024-01-01%2012:30:00", datetime(2024, 1, 1, 12, 30)),
        ("bool", "at=true", True),
        ("float64", "at=1.5", 1.5),
    ],
)
def test_a_folder_may_be_named_for_a_value_of_any_type(tmp_path: Path, type_: str, folder: str, value: Any) -> None:
    (tmp_path / folder).mkdir()
    frame().write_parquet(tmp_path / folder / "part.parquet")
    assert load(tmp_path, "x", DatasetConfig(path=folder, columns={"at": type_})).frame.rows() == [(value,)]


@pytest.mark.parametrize("path", ["history", "history/**", "history/**/*.parquet"])
def test_what_a_writer_hides_is_left_out_and_no_file_is_read_twice(tmp_path: Path, path: str) -> None:
    for number, name in enumerate(("part", "_temporary/0/part", ".cache/part", "_part", "deep/part")):
        file = tmp_path / "history" / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        frame(failures=pl.Series([number])).write_parquet(file)
    read = load(tmp_path, "history", DatasetConfig(path=path, columns={"failures": "int64"}))
    assert sorted(read.frame["failures"]) == [0, 4]
    assert len(read.files) == 2
    named = DatasetConfig(path="history/_*.parquet", columns={"failures": "int64"})
    assert load(tmp_path, "history", named).frame["failures"].to_list() == [3]


def test_a_folder_with_a_log_of_delta_is_never_read_as_loose_files(tmp_path: Path) -> None:
    if importlib.util.find_spec("deltalake"):
        pytest.skip("deltalake is installed")
    (tmp_path / "history" / "_delta_log").mkdir(parents=True)
    frame().write_parquet(tmp_path / "history" / "removed.parquet")
    with pytest.raises(DataError, match="a Delta table needs deltalake"):
        load(tmp_path, "history", DatasetConfig(path="history", columns=COLUMNS))


def test_a_json_column_may_come_up_late_and_one_that_never_does_is_named(tmp_path: Path) -> None:
    lines = [{"failures": n, **({"note": "late"} if n == 900 else {})} for n in range(1000)]
    (tmp_path / "readings.jsonl").write_text(as_json(lines))
    columns = {"failures": "int64", "note": "string"}
    read = load(tmp_path, "readings", DatasetConfig(path="readings.jsonl", columns=columns)).frame
    assert (len(read), read["note"].drop_nulls().to_list()) == (1000, ["late"])
    columns["nte"] = "string"
    with pytest.raises(DataError, match=r"readings.jsonl: there is no column nte"):
        load(tmp_path, "readings", DatasetConfig(path="readings.jsonl", columns=columns))


def test_a_file_that_changes_after_it_was_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "readings.parquet"
    frame().write_parquet(path)
    read = load(tmp_path, "readings", READINGS)
    read.check_unchanged()
    frame(pump=pl.Series(["another"])).write_parquet(path)
    with pytest.raises(DataError, match=f"local dataset readings: {path} changed after it was read"):
        read.check_unchanged()
    path.unlink()
    with pytest.raises(DataError, match="changed after it was read"):
        read.check_unchanged()


def test_a_version_names_the_files_as_they_are_and_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "readings.parquet"
    frame().write_parquet(path)
    first = load(tmp_path, "readings", READINGS).version
    assert load(tmp_path, "readings", READINGS).version == first
    fewer = DatasetConfig(path=READINGS.path, columns={"pump": "string"})
    assert load(tmp_path, "readings", fewer).version != first
    frame(pump=pl.Series(["another"])).write_parquet(path)
    assert load(tmp_path, "readings", READINGS).version != first


@pytest.mark.parametrize(("format_name", "reader"), [("delta", "deltalake"), ("iceberg", "pyiceberg")])
def test_a_format_whose_reader_is_not_installed_names_it(tmp_path: Path, format_name: str, reader: str) -> None:
    if importlib.util.find_spec(reader):
        pytest.skip(f"{reader} is installed")
    (tmp_path / "readings").mkdir() if format_name == "delta" else (tmp_path / "readings").touch()
    dataset = DatasetConfig(path="readings", columns=COLUMNS, format=format_name)
    with pytest.raises(DataError, match=f"local dataset readings: .* needs {reader}, which is not installed"):
        load(tmp_path, "readings", dataset)


def test_a_delta_table_is_read_as_of_its_log(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    frame().write_delta(str(tmp_path / "readings"))
    dataset = DatasetConfig(path="readings", columns=COLUMNS, format="delta")
    read = load(tmp_path, "readings", dataset)
    assert read.frame.height == 1
    frame().write_delta(str(tmp_path / "readings"), mode="append")
    assert load(tmp_path, "readings", dataset).version != read.version


def test_an_iceberg_table_is_read_as_its_metadata_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")  # or polars warns that another one is faster
    pytest.importorskip("pyiceberg.io.pyarrow")
    catalogs = pytest.importorskip("pyiceberg.catalog.sql")
    catalog = catalogs.SqlCatalog("test", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}")
    catalog.create_namespace("site")
    rows = frame().to_arrow(compat_level=pl.CompatLevel.oldest())
    table = catalog.create_table("site.readings", schema=rows.schema)
    table.append(rows)
    before = Path(table.metadata_location.removeprefix("file://")).relative_to(tmp_path)
    table.append(rows)
    after = Path(table.metadata_location.removeprefix("file://")).relative_to(tmp_path)
    for path, num_rows in ((before, 1), (after, 2)):
        dataset = DatasetConfig(path=str(path), columns=COLUMNS, format="iceberg")
        assert load(tmp_path, "readings", dataset).frame.height == num_rows
