import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.wire.codes import INFO3_LAST, INFO3_PARTITION_DONE, Field, Particle, ProtocolError, ResultCode
from geotrain.wire.columnar import MAX_RECORD_BYTES, Batch, Decoder, Progress
from geotrain.wire.fingerprints import fingerprints
from geotrain.wire.frames import MESSAGE, encode_frame, frame_header
from geotrain.wire.messages import Message, decode_messages, encode_message
from geotrain.wire.partitions import NUM_PARTITIONS, partition_of
from tests.vectors import Exchange, exchanges
from tests.wire import streams

ROOT = Path(__file__).parent.parent.parent
EVERYWHERE = range(NUM_PARTITIONS)
DIGEST = bytes(range(20))


def feed(decoder: Decoder, stream: bytes, sizes: Iterable[int] = ()) -> list[Batch]:
    """Give the stream to the decoder in pieces of these sizes, the rest as it has space. Returns all batches."""
    batches = []
    sizes = iter(sizes)
    while stream:
        space = decoder.space()
        size = min(len(space), len(stream), next(sizes, len(stream)))
        space[:size] = stream[:size]
        stream = stream[size:]
        batches += decoder.received(size)
    return [*batches, *decoder.flush()]


def whole(batches: Sequence[Batch], names: Sequence[str]) -> dict[str, list[Any]]:
    """All rows of the batches, by column."""
    return {
        name: [value for batch in batches for value in batch.columns[i].to_pylist()] for i, name in enumerate(names)
    }


def expected(messages: Sequence[Message], schema: Mapping[str, int]) -> dict[str, list[Any]]:
    """The same, from messages that were decoded one by one."""
    found: dict[str, list[Any]] = {name: [] for name in schema}
    for message in messages:
        held = {op.name.decode(): op for op in message.ops if op.particle == schema.get(op.name.decode())}
        for name, column in found.items():
            if name not in held:
                column.append(None)
            elif schema[name] in (Particle.LIST, Particle.MAP):
                column.append(held[name].value)
            else:
                column.append(message.bins()[name])
    return found


def record(*ops: Any, key: bytes | None = None) -> Message:
    fields = {Field.DIGEST: DIGEST} | ({} if key is None else {Field.KEY: key})
    return Message(generation=1, fields=fields, ops=list(ops))


def begun(schema: Mapping[str, int], **options: Any) -> Decoder:
    decoder = Decoder(schema, Progress(), **options)
    decoder.begin(EVERYWHERE)
    return decoder


@settings(deadline=None)
@given(data=st.data(), schema=streams.schemas)
def test_columns_hold_what_messages_decode_to_whatever_the_pieces_and_the_batches(
    data: st.DataObject, schema: dict[str, int]
) -> None:
    frames = data.draw(st.lists(st.lists(streams.records(schema), max_size=6), max_size=4))
    key = data.draw(st.sampled_from([None, Particle.INTEGER, Particle.STRING, Particle.BLOB]))
    max_rows = data.draw(st.integers(1, 12))
    progress = Progress()
    decoder = Decoder(schema, progress, key=key, digests=True, max_rows=max_rows)
    decoder.begin(EVERYWHERE)

    batches = feed(decoder, streams.encode_stream(frames), data.draw(st.lists(st.integers(1, 90), max_size=20)))

    messages = list(chain(*frames))
    assert whole(batches, list(schema)) == expected(messages, schema)
    assert all(batch.num_rows == max_rows for batch in batches[:-1])
    assert [value for batch in batches for value in batch.generations.to_pylist()] == [m.generation for m in messages]
    assert [value for batch in batches for value in batch.void_times.to_pylist()] == [m.record_ttl for m in messages]
    found = [value for batch in batches for value in batch.digests.to_pylist()]
    assert found == [m.fields[Field.DIGEST] for m in messages]
    if key is not None:
        sent = [m.fields.get(Field.KEY, b"\0") for m in messages]
        keys = [value for batch in batches for value in batch.key.to_pylist()]
        assert [value is not None for value in keys] == [stored[0] == key for stored in sent]
    assert decoder.ended
    assert decoder.result_code == ResultCode.OK
    counts = {
        name: sum(op.name.decode() == name and op.particle not in (schema[name], 0) for m in messages for op in m.ops)
        for name in schema
    }
    met = {name: number for name, (number, _) in decoder.mismatches.items() if name}
    assert met == {name: number for name, number in counts.items() if number}
    assert_progress(progress, messages)


def assert_progress(progress: Progress, messages: Sequence[Message]) -> None:
    last = np.zeros((NUM_PARTITIONS, 20), np.uint8)
    for message in messages:
        digest = message.fields[Field.DIGEST]
        last[partition_of(digest)] = np.frombuffer(digest, np.uint8)
    assert np.array_equal(progress.last_digests, last)
    every = np.frombuffer(b"".join(m.fields[Field.DIGEST] for m in messages), np.uint8).reshape(-1, 20)
    generations = np.array([m.generation for m in messages], np.uint32)
    assert np.array_equal(progress.fingerprints, fingerprints(every, generations))
    assert progress.num_rows.sum() == len(messages)


@pytest.mark.parametrize("exchange", [e for e in exchanges() if e.case.startswith("query-")], ids=lambda e: e.case)
def test_streams_of_a_real_server_decode_to_the_same_columns_as_message_by_message(exchange: Exchange) -> None:
    messages = [message for reply in exchange.replies for message in decode_messages(reply.body)][:-1]
    schema = {op.name.decode(): op.particle for message in messages for op in message.ops}
    decoder = begun(schema)
    batches = feed(decoder, b"".join(encode_frame(*reply) for reply in exchange.replies))
    assert whole(batches, list(schema)) == expected(messages, schema)
    assert decoder.ended


@settings(deadline=None)
@given(cut=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 50)))
def test_after_a_stream_that_broke_off_the_next_one_goes_on_with_the_same_batch(cut: int, sizes: list[int]) -> None:
    frames = [[record(streams.bin_of("n", n), streams.bin_of("s", "x" * (n % 9))) for n in range(30)]]
    stream = streams.encode_stream(frames)
    decoder = begun({"n": Particle.INTEGER, "s": Particle.STRING})
    broken = received = stream[: cut % len(stream)]
    while broken:
        space = decoder.space()
        size = min(len(broken), sizes.pop() if sizes else len(broken))
        space[:size] = broken[:size]
        broken = broken[size:]
        assert decoder.received(size) == []
    num_rows = decoder.num_pending
    assert num_rows <= len(received) // len(encode_message(frames[0][0]))
    decoder.begin(EVERYWHERE)
    (batch,) = feed(decoder, stream)
    assert batch.columns[0].to_pylist() == [*range(num_rows), *range(30)]


def test_partitions_that_the_server_does_not_deliver_are_told_with_its_reason() -> None:
    decoder = begun({})
    frames = [[record(), streams.failed_partition(7, 11)], [streams.failed_partition(4095, 9), record()]]
    (batch,) = feed(decoder, streams.encode_stream(frames, ResultCode.TIMEOUT))
    assert batch.num_rows == 2
    assert decoder.failures == {7: 11, 4095: 9}
    assert decoder.result_code == ResultCode.TIMEOUT
    decoder.begin([7])
    assert decoder.failures == {}
    assert decoder.result_code == ResultCode.OK


def test_a_last_message_that_also_speaks_of_a_partition_ends_the_stream() -> None:
    decoder = begun({})
    end = Message(info3=INFO3_LAST | INFO3_PARTITION_DONE, generation=7, result_code=ResultCode.TIMEOUT)
    feed(decoder, encode_frame(MESSAGE, encode_message(end)))
    assert decoder.ended
    assert decoder.result_code == ResultCode.TIMEOUT


def test_what_follows_the_end_of_a_stream_is_not_looked_at() -> None:
    decoder = begun({})
    assert feed(decoder, streams.encode_stream([]) + b"garbage") == []
    assert decoder.ended


def test_a_message_with_an_error_ends_the_stream() -> None:
    decoder = begun({})
    feed(decoder, encode_frame(MESSAGE, encode_message(Message(result_code=ResultCode.NAMESPACE))))
    assert decoder.ended
    assert decoder.result_code == ResultCode.NAMESPACE


def test_values_of_another_type_are_null_and_counted_with_the_type_they_have() -> None:
    decoder = begun({"a": Particle.INTEGER, "b": Particle.STRING}, key=Particle.INTEGER)
    rows = [record(streams.bin_of("a", value), streams.bin_of("b", "x")) for value in (1, "x", 2.5, None)]
    rows.append(record(key=b"\x03key"))
    (batch,) = feed(decoder, streams.encode_stream([rows]))
    assert batch.columns[0].to_pylist() == [1, None, None, None, None]
    assert batch.columns[1].to_pylist() == ["x"] * 4 + [None]
    assert decoder.mismatches == {"a": (2, Particle.FLOAT), "": (1, Particle.STRING)}


def test_a_mismatch_in_a_record_that_comes_in_pieces_is_counted_once() -> None:
    decoder = begun({"a": Particle.INTEGER})
    stream = streams.encode_stream([[record(streams.bin_of("a", "x"), streams.bin_of("b", 1))]])
    feed(decoder, stream, [1] * len(stream))
    assert decoder.mismatches == {"a": (1, Particle.STRING)}


def test_a_mismatch_in_a_record_that_never_came_whole_is_not_counted() -> None:
    decoder = begun({"a": Particle.INTEGER})
    body = encode_message(record(streams.bin_of("a", "x"), streams.bin_of("b", 1)))
    broken = encode_frame(MESSAGE, body)[:-1]
    decoder.space()[: len(broken)] = broken
    decoder.received(len(broken))
    decoder.begin(EVERYWHERE)
    feed(decoder, streams.encode_stream([[record()]]))
    assert decoder.mismatches == {}


def test_without_fingerprints_none_are_folded() -> None:
    progress = Progress(fingerprints=np.empty(0, np.uint64))
    decoder = Decoder({}, progress)
    decoder.begin(EVERYWHERE)
    feed(decoder, streams.encode_stream([[record()]]))
    assert progress.num_rows.sum() == 1


@pytest.mark.parametrize("num_bytes", [1 << 20, 5 << 20])
def test_a_record_larger_than_the_buffers_makes_them_grow(num_bytes: int) -> None:
    decoder = begun({"b": Particle.BLOB, "s": Particle.STRING}, max_bytes=1 << 20)
    rows = [record(streams.bin_of("s", str(n)), streams.bin_of("b", bytes([n]) * num_bytes)) for n in range(3)]
    batches = feed(decoder, streams.encode_stream([rows]), [70_000] * 20)
    assert whole(batches, ["b", "s"]) == {"b": [bytes([n]) * num_bytes for n in range(3)], "s": ["0", "1", "2"]}
    assert len(batches) == 3


def test_a_batch_keeps_within_its_bytes() -> None:
    decoder = begun({"b": Particle.BLOB}, max_bytes=1 << 20)
    rows = [record(streams.bin_of("b", bytes(10_000))) for _ in range(1000)]
    batches = feed(decoder, streams.encode_stream([rows]))
    assert sum(batch.num_rows for batch in batches) == 1000
    assert all(batch.columns[0].nbytes <= 1 << 20 for batch in batches)


def damaged(at: int, byte: int, message: Message | None = None) -> bytes:
    stream = bytearray(streams.encode_stream([[message or record(streams.bin_of("a", 1))]]))
    stream[at] = byte
    return bytes(stream)


HEADER = 8 + 22
OP = HEADER + 25


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (damaged(0, 3), "not the header of a frame"),
        (damaged(1, 4), "not the header of a frame"),
        (damaged(3, 1), "not the header of a frame"),
        (damaged(8, 21), "header of the wrong size"),
        (damaged(7, 21), "does not fit its frame"),
        (damaged(7, 60), "does not fit its frame"),
        (damaged(HEADER, 0x7F), "field has an impossible size"),
        (damaged(HEADER + 3, 0), "field has an impossible size"),
        (damaged(HEADER + 4, Field.SET), "without its digest"),
        (damaged(OP, 0x7F), "does not fit its frame"),
        (damaged(OP + 3, 4), "bin has an impossible size"),
        (damaged(OP + 7, 16), "bin has an impossible size or name"),
        (damaged(OP + 7, 16, record(streams.bin_of("a", "x" * 40))), "bin has an impossible size or name"),
        (streams.encode_stream([[record(key=b"")]]), "field has an impossible size"),
        (damaged(OP + 3, 14), "does not fit its frame"),
        (damaged(OP + 3, 12), "number or boolean has an impossible size"),
        (damaged(8 + 21, 2), "does not fit its frame"),
        (streams.encode_stream([[record(streams.bin_of("a", 1), streams.bin_of("a", 2))]]), "a bin twice"),
        (streams.encode_stream([[streams.failed_partition(4096, 11)]]), "can't exist"),
        (
            encode_frame(
                MESSAGE, encode_message(record(streams.bin_of("s", b"\xff"))).replace(b"\x04\0\x01s", b"\x03\0\x01s")
            ),
            "bin s holds a string that is not UTF-8",
        ),
    ],
)
def test_damaged_streams_are_refused_with_the_reason(stream: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        feed(begun({"a": Particle.INTEGER, "s": Particle.STRING}), stream)


def test_a_record_of_a_partition_that_was_not_asked_for_is_refused() -> None:
    decoder = Decoder({}, Progress())
    decoder.begin([partition for partition in EVERYWHERE if partition != partition_of(DIGEST)])
    with pytest.raises(ProtocolError, match="not asked for"):
        feed(decoder, streams.encode_stream([[record()]]))


def test_a_record_of_absurd_length_is_refused_before_it_is_waited_for() -> None:
    decoder = begun({"b": Particle.BLOB})
    body = bytearray(encode_message(record(streams.bin_of("b", b""))))
    body[-9:-5] = (100 << 20).to_bytes(4, "big")
    with pytest.raises(ProtocolError, match="more than 16777216 bytes"):
        feed(decoder, frame_header(MESSAGE, 101 << 20) + body)
    assert len(decoder.space()) < MAX_RECORD_BYTES


@pytest.mark.parametrize(("bins", "reason"), [({"a" * 16: 1}, "more than 15 bytes"), ({"a": Particle.HLL}, "type 18")])
def test_columns_that_can_not_be_are_refused(bins: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Decoder(bins, Progress())


def test_arrays_survive_the_batches_that_follow() -> None:
    decoder = begun({"s": Particle.STRING}, max_rows=4)
    rows = [record(streams.bin_of("s", f"row {n}")) for n in range(32)]
    batches = feed(decoder, streams.encode_stream([rows]))
    table = pa.table({"s": pa.chunked_array([batch.columns[0] for batch in batches])})
    table.validate(full=True)
    assert table["s"].to_pylist() == [f"row {n}" for n in range(32)]


@settings(deadline=None)
@given(data=st.data(), schema=streams.schemas)
def test_damaged_streams_decode_or_are_refused_and_nothing_else(data: st.DataObject, schema: dict[str, int]) -> None:
    streams.decode_damaged(data, schema)


def test_damaged_streams_are_never_read_outside_of_what_was_received() -> None:
    # Interpreted, the kernel checks every index; and then there is nothing behind what was received.
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.wire.streams"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=250)


@settings(deadline=None)
@given(data=st.data(), schema=streams.schemas)
def test_what_a_batch_gives_is_known_by_the_positions_of_its_keys(data: st.DataObject, schema: dict[str, int]) -> None:
    """Whatever their order, the pieces and the batches; keys that are absent have no row."""
    rows = data.draw(st.lists(streams.records(schema) | st.sampled_from([2, 27, 11]), min_size=1, max_size=8))
    messages = [row if isinstance(row, Message) else Message(result_code=row) for row in rows]
    for position, message in enumerate(messages):
        message.transaction_ttl = position
    sent = data.draw(st.permutations(messages))
    decoder = Decoder(schema, Progress(), positions=True, max_rows=data.draw(st.integers(1, 9)))
    decoder.begin_batch(np.arange(100, 100 + len(rows)))
    sizes = data.draw(st.lists(st.integers(1, 50), max_size=30))
    batches = feed(decoder, streams.encode_stream([sent[:3], sent[3:]]), sizes)
    there = [message for message in sent if not message.result_code]
    assert [at for batch in batches for at in batch.positions.to_pylist()] == [m.transaction_ttl for m in there]
    assert whole(batches, list(schema)) == expected(there, schema)
    assert decoder.ended
    assert decoder.failures == {100 + m.transaction_ttl: 11 for m in sent if m.result_code == 11}


@pytest.mark.parametrize("exchange", [e for e in exchanges() if e.case.startswith("batch-read-")], ids=lambda e: e.case)
def test_batches_of_a_real_server_decode_to_the_same_columns_as_message_by_message(exchange: Exchange) -> None:
    messages = [message for reply in exchange.replies for message in decode_messages(reply.body)][:-1]
    there = [message for message in messages if not message.result_code]
    schema = {op.name.decode(): op.particle for message in there for op in message.ops}
    decoder = Decoder(schema, Progress(), positions=True)
    decoder.begin_batch(np.arange(len(messages)))
    batches = feed(decoder, b"".join(encode_frame(*reply) for reply in exchange.replies))
    assert [at for batch in batches for at in batch.positions.to_pylist()] == [m.transaction_ttl for m in there]
    assert whole(batches, list(schema)) == expected(there, schema)
    assert decoder.ended
    assert not decoder.failures
