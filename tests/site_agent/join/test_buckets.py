import os
from pathlib import Path

import aerospike
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geotrain.errors import GeotrainError
from geotrain.wire.partitions import NUM_PARTITIONS, partition_of
from site_agent.join.buckets import BucketFile

ALL = range(NUM_PARTITIONS)


def bucket_file(folder: Path, version: str = "v1" * 16, set_name: str = "accounts") -> BucketFile:
    return BucketFile(folder, "orders", version, set_name, "key")


# No record's key has a NUL character: the client would cut it there, and what writes refuses it.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@given(
    st.lists(st.none() | TEXTS, max_size=40).map(lambda keys: pl.Series(keys, dtype=pl.String))
    | st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=40).map(
        lambda keys: pl.Series(keys, dtype=pl.Int64)
    ),
    st.integers(0, NUM_PARTITIONS),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_lies_in_the_partition_in_which_the_cluster_keeps_the_record_of_its_key(
    tmp_path_factory: pytest.TempPathFactory, keys: pl.Series, middle: int
) -> None:
    rows = pl.DataFrame({"key": keys, "row": range(len(keys))})
    buckets = bucket_file(tmp_path_factory.mktemp("buckets")).open(rows)
    halves = [range(middle), range(middle, NUM_PARTITIONS)]
    found = [pl.DataFrame(buckets.part(half)) for half in halves]
    assert pl.concat(found).sort("row").equals(rows)
    for half, frame in zip(halves, found, strict=True):
        for key in frame["key"]:
            digest = b"" if key is None else bytes(aerospike.calc_digest("any", "accounts", key))
            assert (partition_of(digest) if digest else 0) in half


def test_rows_are_sorted_once_a_version_and_an_outdated_file_goes(tmp_path: Path) -> None:
    rows = pl.DataFrame({"key": ["a", "b", None]})
    first = bucket_file(tmp_path)
    first.open(rows)
    written_ns = first.path.stat().st_mtime_ns
    assert first.open(rows).part(ALL).num_rows == 3
    assert first.path.stat().st_mtime_ns == written_ns
    other_set = bucket_file(tmp_path, set_name="groups")
    other_set.open(rows)
    newer = bucket_file(tmp_path, version="v2" * 16)
    assert newer.open(rows.head(2)).part(ALL).num_rows == 2
    assert {file.name for file in tmp_path.iterdir()} == {newer.path.name, other_set.path.name}


def test_a_full_disk_is_named_and_an_unfinished_file_is_never_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("site_agent.join.buckets.os.fsync", fail)
    with pytest.raises(GeotrainError, match=r"site.cache_dir: .* can't be written to: no space"):
        bucket_file(tmp_path).open(pl.DataFrame({"key": ["a"]}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_bytes", [0, 100, -1, -200])
def test_a_damaged_file_is_written_anew(tmp_path: Path, num_bytes: int, caplog: pytest.LogCaptureFixture) -> None:
    rows = pl.DataFrame({"key": ["a", "b", None] * 100})
    bucketed, file = bucket_file(tmp_path).open(rows).part(ALL).to_pylist(), bucket_file(tmp_path).path
    file.write_bytes(file.read_bytes()[:num_bytes])
    assert bucket_file(tmp_path).open(rows).part(ALL).to_pylist() == bucketed
    assert "can't be read, and is written anew" in caplog.text
    caplog.clear()
    assert bucket_file(tmp_path).open(rows).part(ALL).to_pylist() == bucketed
    assert not caplog.text


def test_one_changed_byte_of_a_row_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = pl.DataFrame({"key": ["a", "b"], "row": [0x1234567890, 1]})
    bucketed, file = bucket_file(tmp_path).open(rows).part(ALL).to_pylist(), bucket_file(tmp_path).path
    held, value = file.read_bytes(), (0x1234567890).to_bytes(8, "little")
    assert held.count(value) == 1
    file.write_bytes(held.replace(value, bytes(8)))
    assert bucket_file(tmp_path).open(rows).part(ALL).to_pylist() == bucketed
    assert "its bytes are not those that were written" in caplog.text


def test_rows_are_there_though_another_agent_takes_their_file_for_outdated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("site_agent.join.buckets.os.replace", lambda written, _: os.unlink(written))
    rows = pl.DataFrame({"key": ["a", "b", None]})
    assert bucket_file(tmp_path).open(rows).part(ALL).num_rows == 3
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_goes_but_not_what_another_one_still_writes(tmp_path: Path) -> None:
    for name, age_s in (("left", 7200), ("writing", 0)):
        file = tmp_path / f"{name}.unfinished"
        file.touch()
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - age_s))
    kept = bucket_file(tmp_path)
    kept.open(pl.DataFrame({"key": ["a"]}))
    assert {file.name for file in tmp_path.iterdir()} == {kept.path.name, "writing.unfinished"}
