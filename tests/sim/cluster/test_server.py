import asyncio
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from geotrain.wire import codes, frames
from geotrain.wire.batches import BatchRow, encode_batch
from geotrain.wire.codes import Field, OpCode, ResultCode
from geotrain.wire.frames import FrameReader, compress, encode_frame
from geotrain.wire.info import decode_parameters, decode_reply
from geotrain.wire.messages import Message, decode_message, decode_messages, encode_message, operation
from geotrain.wire.particles import Value
from geotrain.wire.partitions import decode_replicas
from sim.cluster.cluster import Cluster
from sim.cluster.config import ClusterConfig, NodeConfig
from sim.cluster.server import Connection
from tests.conftest import simulated_cluster
from tests.sim.cluster.wire_client import ALL_PARTITIONS, WireClient

NAMESPACE = b"geotrain"

INDEX_RANGE = b"\1\1a\1" + 2 * (struct.pack(">I", 8) + bytes(8))


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A cluster of three sites that holds only two copies of each record."""
    with simulated_cluster(tmp_path_factory.mktemp("two_copies"), "replication_factor=2") as addresses:
        yield addresses


@pytest.fixture
def client(addresses: list[str]) -> Iterator[WireClient]:
    with WireClient(addresses[0]) as client:
        yield client


def digest_of(number: int) -> bytes:
    return number.to_bytes(2, "little") + bytes(18)


def fields_of(number: int, set_name: bytes = b"s", **more: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {Field.NAMESPACE: NAMESPACE, Field.SET: set_name, Field.DIGEST: digest_of(number)}
    return fields | {getattr(Field, name.upper()): data for name, data in more.items()}


def put(number: int, set_name: bytes = b"s", **bins: Value) -> Message:
    ops = [operation(OpCode.WRITE, name, value) for name, value in bins.items()]
    return Message(info2=codes.INFO2_WRITE, fields=fields_of(number, set_name), ops=ops)


def get(number: int, set_name: bytes = b"s") -> Message:
    return Message(info1=codes.INFO1_READ | codes.INFO1_GET_ALL, fields=fields_of(number, set_name))


def scan(set_name: bytes = b"s", **more: bytes) -> Message:
    fields: dict[int, bytes] = {Field.NAMESPACE: NAMESPACE, Field.SET: set_name, Field.PARTITION_IDS: ALL_PARTITIONS}
    fields |= {getattr(Field, name.upper()): data for name, data in more.items()}
    return Message(info1=codes.INFO1_READ, info3=codes.INFO3_PARTITION_DONE, fields=fields)


def code_of(client: WireClient, request: Message) -> int:
    return client.messages(request)[-1].result_code


def test_every_node_reads_and_writes_every_record_whether_or_not_it_holds_a_copy(addresses: list[str]) -> None:
    for number in range(30):
        for address in addresses:
            with WireClient(address) as client:
                (written,) = client.messages(put(number, b"everywhere", n=number))
                (read,) = client.messages(get(number, b"everywhere"))
        assert (written.result_code, written.generation, read.bins()) == (0, 3, {"n": number})


def test_a_scan_names_the_partitions_that_the_node_does_not_hold(addresses: list[str]) -> None:
    num_served = 0
    for address in addresses:
        with WireClient(address) as client:
            *failed, last = client.messages(scan())
            _, owned = decode_replicas(client.info("replicas"))["geotrain"]
        assert last.is_last
        assert {message.generation for message in failed} == set(range(4096)) - {pid for pids in owned for pid in pids}
        assert {(m.info3, m.result_code) for m in failed} == {(codes.INFO3_PARTITION_DONE, ResultCode.UNAVAILABLE)}
        num_served += 4096 - len(failed)
    assert num_served == 2 * 4096


def test_a_node_counts_its_connections_and_what_it_was_asked(client: WireClient, addresses: list[str]) -> None:
    before = decode_parameters(client.info("statistics"))
    with WireClient(addresses[0]) as another:
        another.info("status")
        told = decode_parameters(another.info("statistics"))
    assert int(told["client_connections_opened"]) == int(before["client_connections_opened"]) + 1
    assert int(told["info_complete"]) >= int(before["info_complete"]) + 2
    num_open, num_closed = int(told["client_connections"]), int(told["client_connections_closed"])
    assert num_open >= 2
    assert num_open + num_closed == int(told["client_connections_opened"])


def test_an_info_request_without_names_is_told_who_the_server_is(client: WireClient) -> None:
    ((_, body),) = client.ask(encode_frame(frames.INFO, b""))
    told = dict(decode_reply(body))
    assert told["version"] == client.info("version")
    assert {"node", "build", "edition", "features", "statistics"} <= told.keys()


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(Message(info1=1, fields=fields_of(1, transaction_id=bytes(7))), 4, id="transaction"),
        pytest.param(Message(info2=1, fields=fields_of(1, udf_package=b"p")), 16, id="udf"),
        pytest.param(Message(info2=1, fields=fields_of(1), ops=[operation(OpCode.CDT_MODIFY, "l", b"")]), 4, id="list"),
        pytest.param(
            Message(info1=1, fields=fields_of(0), ops=[operation(OpCode.BITS_READ, "l")]), 2, id="absent first"
        ),
        pytest.param(Message(info2=1, fields=fields_of(1)), 4, id="write of nothing"),
        pytest.param(put(1, b"s", **{"a" * 16: 1}), 21, id="bin name"),
        pytest.param(Message(info2=1, record_ttl=60, fields=fields_of(1), ops=put(1, a=1).ops), 22, id="ttl"),
        pytest.param(Message(info1=1, fields={Field.NAMESPACE: b"x", Field.DIGEST: digest_of(1)}), 20, id="namespace"),
        pytest.param(Message(info1=1, fields={Field.NAMESPACE: NAMESPACE, Field.DIGEST: b"short"}), 4, id="digest"),
        pytest.param(Message(info1=1, fields={Field.NAMESPACE: NAMESPACE}), 4, id="query of nothing"),
        pytest.param(scan(index_range=INDEX_RANGE), 201, id="query without its index"),
        pytest.param(scan(index_range=INDEX_RANGE[:-1]), 4, id="index range cut short"),
        pytest.param(scan(index_range=INDEX_RANGE, index_context=b"x"), 201, id="index with another context"),
        pytest.param(scan(udf_package=b"x"), 16, id="aggregation"),
        pytest.param(
            Message(info1=1, fields={Field.NAMESPACE: NAMESPACE, Field.UDF_PACKAGE: b"x"}), 16, id="whole aggregation"
        ),
        pytest.param(scan(partition_ids=b"\xff\xff"), 4, id="partition id"),
        pytest.param(scan(digests=b"short"), 4, id="digest to resume after"),
        pytest.param(scan(filter=b"\xc1"), 4, id="filter"),
        pytest.param(Message(info2=1, fields=scan().fields), 4, id="background write of nothing"),
        pytest.param(Message(info2=1, fields=scan(udf_package=b"x").fields, ops=put(1, a=1).ops), 16, id="udf on many"),
        pytest.param(Message(info1=8, fields={Field.BATCH: b"\0\0\0\x05\0"}), 4, id="batch cut short"),
        pytest.param(Message(info1=8, fields={Field.BATCH: b"\0\0\x13\x89\0"}), 151, id="batch of 5001"),
    ],
)
def test_what_can_not_be_done_gets_a_result_code_and_the_connection_stays(
    client: WireClient, request_: Message, expected: int
) -> None:
    assert code_of(client, request_) == expected
    assert client.info("status") == "ok"


def test_a_write_with_other_types_of_operations_among_plain_ones_changes_nothing(client: WireClient) -> None:
    request = put(2, b"whole", a=1)
    request.ops.append(operation(OpCode.HLL_MODIFY, "h", b""))
    assert code_of(client, request) == ResultCode.UNSUPPORTED
    assert code_of(client, get(2, b"whole")) == ResultCode.NOT_FOUND


def test_a_malformed_message_gets_an_error_and_a_malformed_frame_a_closed_connection(addresses: list[str]) -> None:
    with WireClient(addresses[0]) as client:
        (reply,) = client.ask(encode_frame(frames.MESSAGE, encode_message(get(1)))[:-1] + b"\x99")
        assert decode_message(reply.body)[0].result_code == ResultCode.NOT_FOUND
        client.socket.sendall(encode_frame(frames.MESSAGE, b"\x16too short"))
        (reply,) = FrameReader().feed(client.socket.recv(1000))
        assert decode_message(reply.body)[0].result_code == ResultCode.PARAMETER
        client.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.socket.recv(1000) == b""


def test_admin_requests_hear_that_security_is_not_enabled(client: WireClient) -> None:
    client.socket.sendall(encode_frame(frames.ADMIN, bytes([0, 0, 20, 0]) + bytes(12)))
    ((kind, body),) = FrameReader().feed(client.socket.recv(1000))
    assert (kind, body[1], len(body)) == (frames.ADMIN, ResultCode.SECURITY_NOT_ENABLED, 16)


def test_compressed_requests_are_understood(client: WireClient) -> None:
    client.socket.sendall(compress(encode_frame(frames.MESSAGE, encode_message(put(3, b"compressed", a=1)))))
    ((_, body),) = FrameReader().feed(client.socket.recv(1000))
    assert decode_message(body)[0].result_code == ResultCode.OK
    assert client.messages(get(3, b"compressed"))[0].bins() == {"a": 1}


def test_requests_sent_without_waiting_are_answered_in_their_order(client: WireClient) -> None:
    requests = [put(4, b"order", n=0), scan(b"order"), *(put(4, b"order", n=n) for n in range(1, 4)), get(4, b"order")]
    client.socket.sendall(b"".join(encode_frame(frames.MESSAGE, encode_message(request)) for request in requests))
    reader = FrameReader()
    replies: list[Message] = []
    while not (replies and replies[-1].ops and replies[-1].bins() == {"n": 3}):
        replies += [m for _, body in reader.feed(client.socket.recv(1 << 20)) for m in decode_messages(body)]
    single = [m for m in replies if not m.fields and m.info3 == 0]
    assert [message.generation for message in single] == [1, 2, 3, 4, 4]


def test_a_batch_row_that_repeats_another_does_the_same_to_its_record(client: WireClient) -> None:
    ops = [operation(OpCode.WRITE, "n", 1)]
    fields = {Field.NAMESPACE: NAMESPACE, Field.SET: b"repeat"}
    rows = [BatchRow(n, digest_of(n), 0, 1, 0, 0, 0, 0, fields, ops) for n in range(5)]
    *replies, last = client.messages(Message(info1=8, fields={Field.BATCH: encode_batch(rows)}))
    assert [(m.transaction_ttl, m.result_code) for m in replies] == [(n, 0) for n in range(5)]
    assert last.is_last
    assert client.messages(get(4, b"repeat"))[0].bins() == {"n": 1}


def test_a_scan_resumes_strictly_after_a_digest_and_stops_at_its_limit(client: WireClient) -> None:
    _, (mastered, _) = decode_replicas(client.info("replicas"))["geotrain"]
    pid = struct.pack("<H", mastered[0])
    digests = [pid + bytes([n]) * 18 for n in range(6)]
    for digest in reversed(digests):
        request = put(0, b"resume", n=1)
        request.fields[Field.DIGEST] = digest
        assert code_of(client, request) == ResultCode.OK
    resumed = scan(b"resume", partition_ids=b"", digests=digests[2])
    assert [m.fields[Field.DIGEST] for m in client.messages(resumed)[:-1]] == digests[3:]
    limited = scan(b"resume", partition_ids=pid, max_records=(2).to_bytes(8, "big"))
    assert [m.fields[Field.DIGEST] for m in client.messages(limited)[:-1]] == digests[:2]


def test_a_scan_without_a_set_returns_the_records_of_all_sets(client: WireClient) -> None:
    for number in range(40):
        assert code_of(client, put(number, b"one" if number % 2 else b"two", n=1)) == ResultCode.OK
    found = {m.fields.get(Field.SET) for m in client.messages(scan(b"")) if m.ops}
    assert {b"one", b"two"} <= found


_LAST = encode_message(Message(info3=codes.INFO3_LAST))


class _Reader(asyncio.Transport):
    """A client that takes no more than some bytes and then nothing until it is told to."""

    def __init__(self, protocol: Connection, limit_bytes: int) -> None:
        super().__init__()
        self.protocol, self.limit_bytes = protocol, limit_bytes
        self.received = bytearray()
        self.complete = asyncio.Event()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def write(self, data: Any) -> None:
        self.received += data
        if len(self.received) > self.limit_bytes:
            self.protocol.pause_writing()
        if data.endswith(_LAST):
            self.complete.set()

    def catch_up(self) -> None:
        self.limit_bytes = 1 << 40
        self.protocol.resume_writing()


def test_a_scan_waits_for_a_slow_reader_and_others_are_served_meanwhile() -> None:
    async def run() -> None:
        cluster = Cluster(ClusterConfig(nodes={"a": NodeConfig()}, replication_factor=1))
        node = cluster.nodes[0]
        writer = Connection(cluster, node)
        writer.connection_made(_Reader(writer, 1 << 40))
        for n in range(3000):
            writer.data_received(encode_frame(frames.MESSAGE, encode_message(put(n, blob=bytes(1000)))))
        slow, other = Connection(cluster, node), Connection(cluster, node)
        reader, bystander = _Reader(slow, 100_000), _Reader(other, 1 << 40)
        slow.connection_made(reader)
        other.connection_made(bystander)

        slow.data_received(encode_frame(frames.MESSAGE, encode_message(scan())))
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(reader.received) < 500_000
        other.data_received(encode_frame(frames.MESSAGE, encode_message(get(1))))
        assert len(bystander.received) > 1000

        reader.catch_up()
        await reader.complete.wait()
        replies = [m for _, body in FrameReader().feed(bytes(reader.received)) for m in decode_messages(body)]
        assert len(replies) == 3001

    asyncio.run(asyncio.wait_for(run(), 30))
