"""Rows that left their site are counted, however they were written; what may leave is not."""

import io
import json
import string
from datetime import datetime, timedelta
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import wiretap
from sim.wiretap import HTTP2_PREFACE, payloads, rows_moved

NUM_ROWS = 400
MOVED = slice(100, 164)  # 64 rows: whole windows of a column in every type


def flights(seed: int = 0) -> pl.DataFrame:
    """Rows of the kinds of the main job: small integers, categories, measurements, times, an id."""
    random = np.random.default_rng(seed)
    n = NUM_ROWS
    tails = ["N" + "".join(random.choice(list(string.digits + "ABC"), 5)) for _ in range(n)]
    return pl.DataFrame(
        {
            "scheduled": [datetime(2013, 1, 1) + timedelta(minutes=int(m)) for m in random.integers(0, 500_000, n)],
            "flight": random.integers(1, 6000, n),
            "distance": random.integers(90, 4900, n),
            "minutes": random.integers(0, 1440, n),
            "carrier": random.choice(["UA", "AA", "DL", "B6"], n),
            "tail": tails,
            "temp": random.normal(60, 15, n).round(2),
            "wind": random.gamma(2, 5, n),
            "id": [f"2013-{i:05d}-{tail}-of-this-site" for i, tail in enumerate(tails)],
        }
    )


NOISE = np.random.default_rng(7).integers(0, 256, 100_003, dtype=np.uint8).tobytes()
TABLE = flights()


def capture(planted: bytes) -> list[bytes]:
    return [b"nothing here", NOISE + planted + NOISE]


def moved(planted: bytes) -> int:
    return rows_moved(capture(planted), {"flights": TABLE})["flights"]


def arrow(rows: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    rows.write_ipc_stream(file, compat_level=pl.CompatLevel.oldest())
    return file.getvalue()


@pytest.mark.parametrize("column", ["scheduled", "flight", "minutes", "temp", "wind", "tail", "id"])
def test_a_column_in_arrow_ipc_is_counted_with_all_its_rows(column: str) -> None:
    # The rows at either end may share their window with rows that did not move.
    assert 56 <= moved(arrow(TABLE[MOVED].select(column))) <= 64


def test_whole_rows_in_arrow_ipc_are_counted_once() -> None:
    assert moved(arrow(TABLE[MOVED])) == 64


def test_rows_as_json_are_counted_with_and_without_blanks() -> None:
    rows = json.loads(TABLE[MOVED].write_json())
    compact = b"\n".join(json.dumps(row, separators=(",", ":")).encode() for row in rows)
    assert moved(compact) == 64
    assert moved(json.dumps(rows).encode()) == 64


def test_rows_as_csv_are_counted() -> None:
    assert moved(TABLE[MOVED].write_csv().encode()) == 64


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_a_matrix_of_shuffled_rows_is_counted(kind: str) -> None:
    features = np.random.default_rng(1).normal(size=(NUM_ROWS, 12))
    order = np.random.default_rng(2).permutation(NUM_ROWS)[:50]
    table = pl.from_numpy(features.astype("f4"), [f"f{i}" for i in range(12)])
    planted = features.astype("f4").astype(kind)[order].tobytes()
    assert rows_moved(capture(planted), {"encoded": table}) == {"encoded": 50}


def test_ids_sent_one_by_one_are_counted() -> None:
    message = b"".join(b"\x0a" + bytes([len(i)]) + i.encode() for i in TABLE["id"][MOVED])
    assert moved(message) == 64


def test_updates_statistics_and_vocabularies_are_no_rows() -> None:
    weights = np.random.default_rng(3).normal(size=50_000).astype("f4").tobytes()
    small_integers = np.arange(-1000, 6000).astype("<i8").tobytes() + np.arange(6000).astype("<i4").tobytes()
    statistics = json.dumps(
        {name: [float(TABLE[name].mean()), float(TABLE[name].std())] for name in ("temp", "wind", "distance")}  # type: ignore[arg-type]
        | {"carrier": dict(TABLE["carrier"].value_counts().iter_rows()), "tail": sorted(TABLE["tail"].unique())}
    ).encode()
    assert moved(weights + bytes(10_000) + small_integers + statistics) == 0


def test_a_small_number_among_zeros_is_no_row() -> None:
    table = pl.DataFrame({"precip": [0] * 20 + [3] + [0] * 20})
    padding = bytes(300) + b"\x03" + bytes(300)
    assert rows_moved([padding], {"weather": table}) == {"weather": 0}


def test_another_sites_rows_are_not_this_sites() -> None:
    assert moved(arrow(flights(seed=1)) + flights(seed=1).drop("id").write_csv().encode()) == 0


def test_a_row_that_has_a_twin_is_not_counted_twice() -> None:
    twice = pl.concat([TABLE, TABLE])
    assert rows_moved(capture(arrow(TABLE[MOVED])), {"flights": twice}) == {"flights": 0}


@settings(deadline=None, max_examples=30)
@given(at=st.integers(0, 500))
def test_rows_are_found_wherever_a_chunk_of_the_capture_ends(at: int) -> None:
    planted = TABLE["wind"][104:112].to_numpy().tobytes()
    with mock.patch.object(wiretap, "CHUNK_BYTES", 100):
        assert rows_moved([bytes(at) + planted + bytes(50)], {"wind": TABLE.select("wind")}) == {"wind": 8}


def http2(messages: dict[int, bytes], frame_bytes: int) -> bytes:
    """The messages of several streams, interleaved in frames as gRPC sends them."""
    out = bytearray(HTTP2_PREFACE)
    for at in range(0, max(map(len, messages.values())), frame_bytes):
        for stream, message in messages.items():
            if part := message[at : at + frame_bytes]:
                out += len(part).to_bytes(3, "big") + b"\0\0" + stream.to_bytes(4, "big") + part
    return bytes(out)


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 2**31 - 1), st.binary(min_size=1, max_size=200), min_size=1), st.integers(1, 50))
def test_http2_streams_are_put_together_again(messages: dict[int, bytes], frame_bytes: int) -> None:
    assert sorted(payloads(http2(messages, frame_bytes))) == sorted(messages.values())


def test_frames_do_not_hide_rows() -> None:
    csv = TABLE[MOVED].write_csv().encode()
    assert moved(csv) == 64
    connection = http2({1: csv, 3: NOISE}, frame_bytes=40)
    assert rows_moved([connection], {"flights": TABLE}) == {"flights": 64}


def test_an_empty_capture_or_an_empty_table_has_no_rows() -> None:
    assert rows_moved([], {"flights": TABLE}) == {"flights": 0}
    assert rows_moved(capture(b""), {"flights": TABLE[:0]}) == {"flights": 0}
