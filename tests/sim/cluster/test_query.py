from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.view.cut import Cut
from geotrain.wire import codes
from geotrain.wire.codes import Field
from geotrain.wire.filters import encode_filter
from geotrain.wire.frames import FrameReader
from geotrain.wire.messages import Message, decode_messages, operation
from geotrain.wire.partitions import partition_of
from sim.cluster.execution.query import CHUNK_ROWS, CHUNKS_PER_SECOND, _chunks, query
from sim.cluster.execution.streams import CHUNK_BYTES
from tests.sim.cluster.in_process import Commands

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


# Two partitions, so that a change of one has to leave the other as it is.
DIGESTS = [bytes([pid, 0, n]) + bytes(17) for pid in (1, 2) for n in range(3)]
changes = st.tuples(
    st.sampled_from(["put", "put short", "expire soon", "remove", "leave a tombstone", "truncate", "wait"]),
    st.sampled_from(DIGESTS),
)


def change(commands: Commands, kind: str, digest: bytes) -> None:
    node = commands.cluster.nodes[0]
    match kind:
        case "put":
            commands.put({"a": commands.now_ms, "b": "text"}, digest=digest)
        case "put short":
            commands.put({"b": "x"}, digest=digest, info3=codes.INFO3_CREATE_OR_REPLACE)
        case "expire soon":
            commands.put({"a": 1}, digest=digest, ttl=2)
        case "remove":
            commands.remove(digest=digest)
        case "leave a tombstone":
            commands.remove(digest=digest, durable=True)
        case "truncate":
            commands.cluster.truncate(node, b"s", commands.now_ms)
            commands.drop_all()
    commands.pass_s(1)


def scanned(commands: Commands, bins: Sequence[str], cut: Cut | None, after: bytes) -> list[tuple[bytes, int, bytes]]:
    """Digest, generation and bins of what a scan of both partitions sends, one of them from some digest on."""
    fields = {Field.NAMESPACE: b"test", Field.SET: b"s", Field.PARTITION_IDS: bytes([1, 0])}
    fields |= {Field.DIGESTS: after} if after else {Field.PARTITION_IDS: bytes([1, 0, 2, 0])}
    if cut is not None:
        fields[Field.FILTER] = encode_filter(None, until_ns=cut.until_ns)
    ops = [operation(codes.OpCode.READ, name) for name in bins]
    request = Message(info1=codes.INFO1_READ, info3=codes.INFO3_PARTITION_DONE, fields=fields, ops=ops)
    reader, cluster = FrameReader(), commands.cluster
    chunks = query(cluster, cluster.nodes[1], request, commands.now_ms)
    frames = [frame for chunk in chunks for frame in reader.feed(chunk.frames)]
    messages = [message for frame in frames for message in decode_messages(frame.body) if message.fields]
    return [
        (message.fields[Field.DIGEST], message.generation, b"".join(op.raw for op in message.ops))
        for message in messages
    ]


@given(st.lists(changes, max_size=25), st.sampled_from([(), ("a",), ("b", "a")]), st.data())
@settings(deadline=None)
def test_a_scan_after_any_change_sends_what_reading_each_record_gives(
    history: list[tuple[str, bytes]], bins: tuple[str, ...], data: st.DataObject
) -> None:
    commands = Commands(nsup_period_s=10)
    for kind, digest in history:
        change(commands, kind, digest)
        cut = data.draw(st.none() | st.integers(0, 8).map(lambda ago_s: Cut((commands.now_ms - ago_s * 1000) * 10**6)))
        after = data.draw(st.just(b"") | st.sampled_from(DIGESTS[3:]))
        expected = []
        for each in DIGESTS:
            fields = {} if cut is None else {Field.FILTER: encode_filter(None, until_ns=cut.until_ns)}
            ops = [operation(codes.OpCode.READ, name) for name in bins]
            info1 = codes.INFO1_READ | (0 if bins else codes.INFO1_GET_ALL)
            read = commands.do(Message(info1=info1, fields=fields, ops=ops), each, node=1)
            is_later = not after or partition_of(each) != partition_of(after) or each > after
            if read.result_code == codes.ResultCode.OK and read.num_ops and is_later:
                expected.append((each, read.generation, sorted_ops(read.ops)))
        found = [(each, generation, sorted_ops(ops)) for each, generation, ops in scanned(commands, bins, cut, after)]
        assert sorted(found) == sorted(expected)


def sorted_ops(ops: bytes) -> list[bytes]:
    """The bins of a record, in an order that does not depend on that in which they were asked for."""
    found, at = [], 0
    while at < len(ops):
        end = at + 4 + int.from_bytes(ops[at : at + 4])
        found.append(ops[at:end])
        at = end
    return sorted(found)
