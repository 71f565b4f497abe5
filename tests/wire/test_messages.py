import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire.batches import BatchRow, decode_batch, encode_batch, encode_reads
from geotrain.wire.codes import INFO3_LAST, Field, OpCode, ProtocolError, ResultCode
from geotrain.wire.frames import HEADER_BYTES, FrameReader
from geotrain.wire.messages import (
    Message,
    Operation,
    decode_message,
    decode_messages,
    encode_message,
    encode_op,
    operation,
    reply_frame,
)

bytes_8bit = st.integers(0, 0xFF)
numbers_32bit = st.integers(0, 0xFFFFFFFF)
fields = st.dictionaries(bytes_8bit, st.binary(max_size=40), max_size=5)


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    code, particle, name, value = draw(
        st.tuples(bytes_8bit, bytes_8bit, st.binary(max_size=15), st.binary(max_size=40))
    )
    return Operation(code, particle, name, encode_op(code, name, particle, value))


messages = st.builds(
    Message,
    info1=bytes_8bit,
    info2=bytes_8bit,
    info3=bytes_8bit,
    info4=bytes_8bit,
    result_code=bytes_8bit,
    generation=numbers_32bit,
    record_ttl=numbers_32bit,
    transaction_ttl=numbers_32bit,
    fields=fields,
    ops=st.lists(operations(), max_size=4),
)
rows = st.builds(
    BatchRow,
    position=numbers_32bit,
    digest=st.binary(min_size=20, max_size=20),
    info1=bytes_8bit,
    info2=bytes_8bit,
    info3=bytes_8bit,
    info4=bytes_8bit,
    generation=st.integers(0, 0xFFFF),
    record_ttl=numbers_32bit,
    fields=fields,
    ops=st.lists(operations(), max_size=3),
)


@given(sent=st.lists(messages, max_size=4))
def test_messages_decode_to_what_was_encoded(sent: list[Message]) -> None:
    assert list(decode_messages(b"".join(map(encode_message, sent)))) == sent


@given(op=operations())
def test_the_value_of_an_operation_is_what_follows_its_name(op: Operation) -> None:
    assert encode_op(op.code, op.name, op.particle, op.value) == op.raw


@given(sent=st.lists(rows, max_size=4), repeated=st.binary(min_size=20, max_size=20))
def test_batch_rows_decode_to_what_was_encoded_repeats_included(sent: list[BatchRow], repeated: bytes) -> None:
    if sent:
        sent.append(sent[-1]._replace(position=9, digest=repeated))
    encoded = encode_batch(sent)
    assert list(decode_batch(encoded)) == sent
    if sent:
        assert encoded.endswith(repeated + b"\x01")


@given(message=messages, data=st.data())
def test_a_message_that_is_cut_short_is_a_protocol_error(message: Message, data: st.DataObject) -> None:
    encoded = encode_message(message)
    with pytest.raises(ProtocolError):
        decode_message(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(sent=st.lists(rows, min_size=1, max_size=3), data=st.data())
def test_a_batch_that_is_cut_short_is_a_protocol_error(sent: list[BatchRow], data: st.DataObject) -> None:
    encoded = encode_batch(sent)
    with pytest.raises(ProtocolError):
        list(decode_batch(encoded[: data.draw(st.integers(0, len(encoded) - 1))]))


@given(garbage=st.binary(max_size=200))
def test_garbage_is_decoded_or_a_protocol_error_and_nothing_else(garbage: bytes) -> None:
    for decode in (decode_messages, decode_batch):
        with contextlib.suppress(ProtocolError):
            list(decode(garbage))


def test_a_batch_can_not_begin_with_a_repeat() -> None:
    with pytest.raises(ProtocolError, match="first row"):
        list(decode_batch(b"\0\0\0\1\0" + bytes(24) + b"\x01"))


def test_a_reply_frame_is_one_frame_with_one_message() -> None:
    op = operation(OpCode.READ, "a", 7)
    ((_, body),) = FrameReader().feed(reply_frame(ResultCode.GENERATION, 3, 9, 1, op.raw, INFO3_LAST))
    expected = Message(info3=INFO3_LAST, result_code=ResultCode.GENERATION, generation=3, record_ttl=9, ops=[op])
    assert decode_message(body) == (expected, len(body))
    assert expected.bins() == {"a": 7}
    assert expected.is_last


@pytest.mark.parametrize("bins", [[], ["a", "b"]])
@pytest.mark.parametrize("num_keys", [1, 3])
def test_reads_by_key_are_rows_that_repeat_the_first(bins: list[str], num_keys: int) -> None:
    digests = np.arange(20 * num_keys, dtype=np.uint8).reshape(-1, 20)
    positions = np.arange(num_keys) * 1000
    frame = encode_reads("test", "demo", digests, positions, bins=bins, info3=0x80, timeout_ms=1000, expression=b"\x90")
    message, end = decode_message(frame, HEADER_BYTES)
    assert (end, message.info1, message.transaction_ttl) == (len(frame), 8, 1000)
    assert message.fields[Field.FILTER] == b"\x90"
    fields = {Field.NAMESPACE: b"test", Field.SET: b"demo"}
    ops = [operation(OpCode.READ, name) for name in bins]
    assert list(decode_batch(message.fields[Field.BATCH])) == [
        BatchRow(int(at), digest.tobytes(), 0x01 if bins else 0x21, 0, 0x80, 0, 0, 0, fields, ops)
        for at, digest in zip(positions, digests, strict=True)
    ]
