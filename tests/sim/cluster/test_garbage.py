"""What no client should send: every malformed request gets an error or a closed connection, and the next is served."""

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geotrain.wire import frames
from geotrain.wire.batches import BatchRow, encode_batch
from geotrain.wire.codes import Field, OpCode, Particle, ResultCode
from geotrain.wire.frames import FrameReader, compress, encode_frame
from geotrain.wire.info import decode_reply, encode_request
from geotrain.wire.messages import Message, Operation, decode_message, encode_message, encode_op, operation
from sim.cluster.cluster import Cluster
from sim.cluster.config import ClusterConfig, NodeConfig
from sim.cluster.execution import background
from sim.cluster.execution.streams import Chunk
from sim.cluster.server import Connection
from tests.vectors import exchanges

CLUSTER = Cluster(ClusterConfig(nodes={"a": NodeConfig()}, namespace="test", replication_factor=1))
CLUSTER.nodes[0].addresses[""] = "127.0.0.1", 3000
STATUS = encode_frame(frames.INFO, encode_request(["status"]))
FIELDS = {Field.NAMESPACE: b"test", Field.SET: b"vec", Field.DIGEST: bytes(20)}
NESTED = Operation(OpCode.CDT_MODIFY, 4, b"m", encode_op(OpCode.CDT_MODIFY, b"m", 4, b"\x94C\xa2\x03x\x01\x00"))
BITS = Operation(OpCode.BITS_MODIFY, 4, b"b", encode_op(OpCode.BITS_MODIFY, b"b", 4, b"\x94\x00\x08\x00\x00"))
RANGE = b"\1\1a\1" + 2 * (struct.pack(">I", 8) + bytes(8))


def framed(message: Message) -> bytes:
    return encode_frame(frames.MESSAGE, encode_message(message))


ROWS = [BatchRow(n, bytes([n]) * 20, 0, 1, 0, 0, 0, 0, FIELDS, [operation(OpCode.WRITE, "a", n)]) for n in range(4)]
REQUESTS = [exchange.request for exchange in exchanges() if len(exchange.request) < 10_000] + [
    framed(Message(info1=1, info2=0x81, fields=FIELDS, ops=[NESTED, BITS, operation(OpCode.INCREMENT, "i", 1)])),
    framed(Message(info1=3, fields=FIELDS | {Field.TRANSACTION_ID: bytes(8), Field.RECORD_VERSION: bytes(7)})),
    framed(Message(info1=1, fields={0: b"test", Field.PARTITION_IDS: b"\0\0\1\0", Field.INDEX_RANGE: RANGE})),
    framed(Message(info2=1, fields={0: b"test", Field.TASK_ID: bytes(8)}, ops=[operation(OpCode.WRITE, "a", 1)])),
    framed(Message(info1=8, fields={Field.BATCH: encode_batch(ROWS), Field.FILTER: b"\x93\x03\x93\x51\x02\xa1a\x05"})),
    compress(framed(Message(info1=3, fields=FIELDS))),
    encode_frame(frames.ADMIN, bytes([0, 0, 20, 1]) + bytes(12) + b"\0\0\0\2\0a"),
    encode_frame(frames.INFO, encode_request(["sindex-create:ns=test;indexname=i;bin=a;type=numeric", "query-show"])),
]


class Recorder(asyncio.Transport):
    """The other end of a connection: keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.received = bytearray()
        self.is_closed = False
        self.is_aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def write(self, data: Any) -> None:
        self.received += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True


def replies_to(*parts: bytes) -> Recorder:
    """Send these parts over one connection, and wait until the server has nothing more to do."""
    raised: list[dict[str, Any]] = []

    async def send() -> Recorder:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: raised.append(context))
        connection, recorder = Connection(CLUSTER, CLUSTER.nodes[0]), Recorder()
        connection.connection_made(recorder)
        for part in parts:
            if not recorder.is_closed:
                connection.data_received(part)
            while connection.is_busy and not recorder.is_aborted:
                assert not raised, raised
                await asyncio.sleep(0)
        connection.connection_lost(None)
        return recorder

    recorder = asyncio.run(asyncio.wait_for(send(), 20))
    assert not raised, raised
    assert not recorder.is_aborted
    return recorder


def assert_served_or_closed(request: bytes) -> None:
    """A request gets an answer or a closed connection, and the server goes on."""
    is_whole = len(request) >= 8 and len(request) >= 8 + int.from_bytes(request[2:8], "big")
    recorder = replies_to(request)
    assert recorder.received or recorder.is_closed or not is_whole
    if not recorder.is_closed:
        FrameReader().feed(bytes(recorder.received))
    ((_, body),) = FrameReader().feed(bytes(replies_to(STATUS).received))
    assert decode_reply(body) == [("status", "ok")]


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=200))
def test_any_bytes_at_all(data: bytes) -> None:
    assert_served_or_closed(data)


@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from([1, 2, 3, 4]), body=st.binary(max_size=120))
def test_any_content_of_a_frame(kind: int, body: bytes) -> None:
    assert_served_or_closed(encode_frame(kind, body))


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(request=st.sampled_from(REQUESTS), data=st.data())
def test_requests_with_some_bytes_changed(request: bytes, data: st.DataObject) -> None:
    changed = bytearray(request)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(8, len(request) - 1))
        changed[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0xDD]))
    assert_served_or_closed(bytes(changed))


@settings(deadline=None, max_examples=150)
@given(request=st.sampled_from(REQUESTS), data=st.data())
def test_requests_cut_short(request: bytes, data: st.DataObject) -> None:
    body = request[8 : data.draw(st.integers(8, len(request)))]
    assert_served_or_closed(encode_frame(request[1], body))


@pytest.mark.parametrize("announced", [1 << 27, (1 << 27) + 1, (1 << 48) - 1])
def test_a_frame_that_announces_much_takes_no_memory_before_it_comes(announced: int) -> None:
    recorder = replies_to(struct.pack(">Q", 2 << 56 | 3 << 48 | announced) + b"\x16")
    assert recorder.is_closed == (announced > 1 << 27)


@pytest.mark.parametrize("version", [0, 1, 3, 255])
def test_a_frame_of_another_version_ends_the_connection(version: int) -> None:
    assert replies_to(bytes([version]) + STATUS[1:]).is_closed


@pytest.mark.parametrize("count", [1, 100, 0xFFFF])
def test_more_fields_or_operations_are_announced_than_there_are(count: int) -> None:
    message = encode_message(Message(info1=3, fields=FIELDS))
    for at in (18, 20):
        announced = min(0xFFFF, int.from_bytes(message[at : at + 2], "big") + count)
        changed = message[:at] + struct.pack(">H", announced) + message[at + 2 :]
        assert replies_to(encode_frame(frames.MESSAGE, changed)).received


@pytest.mark.parametrize("num_bytes", [7, 1 << 20, 1 << 27, 1 << 62])
def test_a_compressed_frame_that_announces_another_size_is_an_error(num_bytes: int) -> None:
    body = struct.pack(">Q", num_bytes) + compress(STATUS)[16:]
    assert replies_to(encode_frame(frames.COMPRESSED, body)).received


def test_a_number_that_is_none_is_refused_and_its_bin_is_counted_up_from_nothing() -> None:
    short = Operation(OpCode.WRITE, Particle.INTEGER, b"z", encode_op(OpCode.WRITE, b"z", Particle.INTEGER, bytes(3)))
    writes = ([short], [operation(OpCode.INCREMENT, "z", 1)])
    received = replies_to(*(framed(Message(info2=1, fields=FIELDS, ops=ops)) for ops in writes)).received
    codes = [decode_message(body)[0].result_code for _, body in FrameReader().feed(bytes(received))]
    assert codes == [ResultCode.PARAMETER, ResultCode.OK]


@pytest.mark.parametrize(("num_bins", "code"), [(32_767, ResultCode.OK), (32_768, ResultCode.PARAMETER)])
def test_a_record_with_too_many_bins_is_refused(num_bins: int, code: ResultCode) -> None:
    fields = FIELDS | {Field.DIGEST: bytes([9]) * 20}
    put = Message(info2=1, fields=fields, ops=[operation(OpCode.WRITE, str(n), n) for n in range(num_bins)])
    ((_, body),) = FrameReader().feed(bytes(replies_to(framed(put)).received))
    assert decode_message(body)[0].result_code == code


@pytest.mark.parametrize("pattern", [b"(" * 20_000 + b")" * 20_000, b"((a{1,255}){1,255}){1,255}"])
def test_an_absurd_regular_expression_is_refused(pattern: bytes) -> None:
    matching: bytes = msgpack.packb([7, 1, pattern, [81, 3, b"a"]], use_bin_type=False)
    get = Message(info1=3, fields=FIELDS | {Field.FILTER: matching})
    ((_, body),) = FrameReader().feed(bytes(replies_to(framed(get)).received))
    assert decode_message(body)[0].result_code == ResultCode.PARAMETER


def test_an_answer_that_breaks_off_ends_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    def breaking() -> Iterator[Chunk]:
        yield Chunk(b"some")
        raise ZeroDivisionError

    async def send() -> Recorder:
        connection, recorder = Connection(CLUSTER, CLUSTER.nodes[0]), Recorder()
        connection.connection_made(recorder)
        connection._stream = breaking()
        connection.go_on()
        for _ in range(5):  # more turns than the two chunks need
            await asyncio.sleep(0)
        connection.connection_lost(None)
        return recorder

    recorder = asyncio.run(asyncio.wait_for(send(), 5))
    assert (recorder.received, recorder.is_aborted) == (b"some", True)
    assert "ZeroDivisionError" in caplog.text


def test_a_background_write_that_breaks_off_costs_its_client_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "records_of", lambda *arguments: 1 / 0)
    request = Message(info2=1, fields={0: b"test", Field.TASK_ID: bytes(8)}, ops=[operation(OpCode.WRITE, "a", 1)])
    ((_, body),) = FrameReader().feed(bytes(replies_to(framed(request)).received))
    assert decode_message(body)[0].result_code == ResultCode.OK
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("name", [b"\xff", b"a" * 64, b"a;b", b"a:b", b"a\nb"])
def test_what_is_no_name_of_a_set_is_refused(name: bytes) -> None:
    put = Message(info2=1, fields=FIELDS | {Field.SET: name}, ops=[operation(OpCode.WRITE, "a", 1)])
    ((_, body),) = FrameReader().feed(bytes(replies_to(framed(put)).received))
    assert decode_message(body)[0].result_code == ResultCode.PARAMETER
    assert name not in CLUSTER.sets


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xdd\xff\xff\xff\xff", id="list of 4 billion"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="map of 4 billion"),
        pytest.param(b"\xdb\xff\xff\xff\xff", id="string of 4 GB"),
        pytest.param(b"\x91" * 5000 + b"\xc0", id="nested 5000 deep"),
        pytest.param(b"\x93\x03\xce\x7f\xff\xff\xff\x01", id="inserted at 2 billion"),
        pytest.param(b"\x93\x09\xce\x7f\xff\xff\xff\x01", id="set at 2 billion"),
        pytest.param(b"\x93\x00\xce\xff\xff\xff\xff\x00", id="4 billion as an argument"),
    ],
)
@pytest.mark.parametrize("code", [OpCode.CDT_MODIFY, OpCode.CDT_READ, OpCode.BITS_MODIFY, OpCode.EXPRESSION_READ])
@pytest.mark.parametrize("present", [[1], b"\0\0"])
def test_absurd_arguments_of_operations_are_refused(data: bytes, code: int, present: Any) -> None:
    put = framed(Message(info2=1, fields=FIELDS, ops=[operation(OpCode.WRITE, "a", present)]))
    absurd = Operation(code, Particle.BLOB, b"a", encode_op(code, b"a", Particle.BLOB, data))
    request = framed(Message(info1=1, info2=1, fields=FIELDS, ops=[absurd]))
    received = bytes(replies_to(put, request).received)
    assert len(received) < 10_000
    assert len(FrameReader().feed(received)) == 2
