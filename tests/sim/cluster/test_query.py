from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire.frames import FrameReader
from sim.cluster.execution.query import CHUNK_ROWS, CHUNKS_PER_SECOND, _chunks
from sim.cluster.execution.streams import CHUNK_BYTES

sizes = st.lists(st.lists(st.sampled_from([1, 200, CHUNK_BYTES // 3, CHUNK_BYTES * 2]) | st.just(1), max_size=8))


def rows_of(sizes: Sequence[Sequence[int]]) -> list[list[bytes]]:
    return [[bytes(size) for size in partition] for partition in sizes]


@given(sizes)
def test_chunks_carry_all_rows_in_their_order_and_none_is_much_larger_than_it_may_be(sizes: list[list[int]]) -> None:
    partitions = rows_of(sizes)
    frames = [chunk.frames for chunk in _chunks(iter(partitions), 0)]
    bodies = [frame.body for part in frames for frame in FrameReader().feed(part)]
    rows = [row for partition in partitions for row in partition]
    assert b"".join(bodies) == b"".join(rows)
    assert all(len(body) < CHUNK_BYTES + max(CHUNK_BYTES, *map(len, rows), 1) for body in bodies)


def test_a_scan_of_empty_partitions_has_steps_too() -> None:
    chunks = list(_chunks(iter([[b""]] * 4096), 0))
    assert len(chunks) >= 4096 // CHUNK_ROWS
    assert not any(chunk.frames for chunk in chunks)


@given(st.integers(1, 100_000))
def test_a_limited_rate_is_kept_by_pauses(rate: int) -> None:
    partitions = rows_of([[10] * 700, [], [10] * 40])
    chunks = list(_chunks(iter(partitions), rate))
    assert sum(chunk.pause_s for chunk in chunks) * rate == pytest.approx(740)
    assert max(chunk.pause_s for chunk in chunks) <= max(2 / CHUNKS_PER_SECOND, 2 / rate)
