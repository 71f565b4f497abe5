"""Background writes, what is told of queries, aborting them, truncating, and compressed replies."""

import struct
import time
from collections.abc import Iterator

import pytest

from geotrain.wire import codes, frames
from geotrain.wire.codes import Field, OpCode, ResultCode
from geotrain.wire.frames import FrameReader, encode_frame
from geotrain.wire.info import decode_parameters
from geotrain.wire.messages import Message, decode_messages, encode_message, operation
from sim.cluster.answers.info import answer
from sim.cluster.execution import background
from sim.cluster.execution.query import query
from sim.cluster.node import State
from tests.conftest import simulated_cluster
from tests.sim.cluster.in_process import NAMESPACE, Commands
from tests.sim.cluster.wire_client import ALL_PARTITIONS, WireClient

TRID = 99


def digest_of(number: int) -> bytes:
    return number.to_bytes(2, "little") + bytes(18)


@pytest.fixture
def filled() -> Commands:
    """A cluster with 100 records."""
    commands = Commands()
    for number in range(100):
        commands.put({"n": number}, digest=digest_of(number))
    return commands


def writing(**fields: bytes) -> Message:
    """A request to write to all records of the set."""
    own = {Field.NAMESPACE: NAMESPACE.encode(), Field.SET: b"s", Field.TASK_ID: TRID.to_bytes(8, "big")}
    own |= {getattr(Field, name.upper()): data for name, data in fields.items()}
    return Message(info2=codes.INFO2_WRITE, fields=own, ops=[operation(OpCode.INCREMENT, "n", 1000)])


def scanning() -> Message:
    fields = {Field.NAMESPACE: NAMESPACE.encode(), Field.SET: b"s", Field.TASK_ID: TRID.to_bytes(8, "big")}
    return Message(info1=1, info3=codes.INFO3_PARTITION_DONE, fields=fields | {Field.PARTITION_IDS: ALL_PARTITIONS})


def told(commands: Commands, node: int = 0) -> dict[str, str]:
    shown = answer(commands.cluster, commands.cluster.nodes[node], f"query-show:trid={TRID}")
    return decode_parameters(shown.replace(":", ";"))


def test_every_node_writes_to_the_records_that_it_is_master_of_and_so_each_is_written_once(filled: Commands) -> None:
    for node in filled.cluster.nodes:
        code, steps = background.start(filled.cluster, node, writing())
        assert code == ResultCode.OK
        assert sum(1 for _ in steps) == len(node.owned[0])
    assert sorted(message.bins()["n"] for message in filled.scan()) == [n + 1000 for n in range(100)]  # type: ignore[type-var]
    assert {message.generation for message in filled.scan()} == {2}


def test_a_background_write_tells_how_far_it_is_and_what_came_of_it(filled: Commands) -> None:
    below_50 = b"\x93\x05\x93\x51\x02\xa1n\x32"
    steps = [background.start(filled.cluster, node, writing(filter=below_50))[1] for node in filled.cluster.nodes]
    next(steps[0])
    assert told(filled)["status"] == "active(ok)"
    assert 0 < float(told(filled)["job-progress"]) < 100
    for each in steps:
        list(each)
    ended = [told(filled, node) for node in range(3)]
    assert [each["status"] for each in ended] == ["done(ok)"] * 3
    assert [each["job-type"] for each in ended] == ["background-ops"] * 3
    assert sum(int(each["recs-succeeded"]) for each in ended) == 50
    assert sum(int(each["recs-filtered-bins"]) for each in ended) == 50


def test_a_running_query_is_aborted_once(filled: Commands) -> None:
    node = filled.cluster.nodes[0]
    _, steps = background.start(filled.cluster, node, writing())
    next(steps)
    assert answer(filled.cluster, node, f"query-abort:trid={TRID}") == "ok"
    assert sum(1 for _ in steps) == 0
    assert told(filled)["status"] == "done(user-aborted)"
    assert answer(filled.cluster, node, f"query-abort:trid={TRID}") == "ERROR:2:job not active"
    assert answer(filled.cluster, node, "query-show:trid=5") == "ERROR:2:job not found"


def test_a_background_write_stands_still_with_its_node(filled: Commands) -> None:
    node = filled.cluster.nodes[0]
    _, steps = background.start(filled.cluster, node, writing())
    next(steps)
    node.state = State.PAUSED
    done = told(filled)["job-progress"]
    assert next(steps) > 0
    assert told(filled)["job-progress"] == done
    node.state = State.UP
    next(steps)
    assert told(filled)["job-progress"] > done


@pytest.mark.parametrize("is_started_again", [False, True])
def test_a_background_write_dies_with_its_node_for_good(filled: Commands, is_started_again: bool) -> None:
    node = filled.cluster.nodes[0]
    _, steps = background.start(filled.cluster, node, writing())
    next(steps)
    written = [message.bins() for message in filled.scan()]
    node.die(keeps_memory=True)
    if is_started_again:
        node.state = State.UP
        filled.cluster.rebalance()
    assert list(steps) == []
    assert [message.bins() for message in filled.scan()] == written
    assert answer(filled.cluster, node, f"query-show:trid={TRID}") == "ERROR:2:job not found"


def test_a_scan_whose_client_leaves_is_over(filled: Commands) -> None:
    chunks = query(filled.cluster, filled.cluster.nodes[0], scanning(), filled.now_ms)
    next(chunks)
    assert told(filled)["status"] == "active(ok)"
    del chunks
    assert told(filled)["status"] == "done(abandoned-1)"


def test_a_background_write_that_breaks_off_is_over(filled: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    _, steps = background.start(filled.cluster, filled.cluster.nodes[0], writing())
    monkeypatch.setattr(background, "records_of", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(steps)
    assert told(filled)["status"] == "done(abandoned-1)"


def test_an_aborted_scan_ends_with_that_code(filled: Commands) -> None:
    node = filled.cluster.nodes[0]
    chunks = query(filled.cluster, node, scanning(), filled.now_ms)
    next(chunks)
    assert answer(filled.cluster, node, "query-abort-all") == "OK - number of queries killed: 1"
    *_, last = chunks
    assert next(decode_messages(last.frames[8:])).result_code == ResultCode.QUERY_ABORT


def test_a_node_forgets_the_oldest_of_its_queries(filled: Commands) -> None:
    node = filled.cluster.nodes[0]
    for trid in range(1, 151):
        request = scanning()
        request.fields |= {Field.TASK_ID: trid.to_bytes(8, "big"), Field.PARTITION_IDS: struct.pack("<H", 0)}
        list(query(filled.cluster, node, request, filled.now_ms))
    shown = answer(filled.cluster, node, "query-show").split(";")
    assert [shown[0].split(":")[0], shown[-1].split(":")[0], len(shown)] == ["trid=150", "trid=51", 100]


def test_truncating_drops_what_was_last_written_before_a_moment_that_has_passed() -> None:
    commands = Commands()
    node = commands.cluster.nodes[0]
    now_ms = time.time_ns() // 1_000_000
    for number, age_s in enumerate((30, 20, 10)):
        commands.now_ms = now_ms - age_s * 1000
        commands.put({"n": number}, digest=digest_of(number))
    commands.now_ms = now_ms
    lut_ns = (now_ms - 15_000) * 1_000_000
    assert answer(commands.cluster, node, f"truncate:namespace=test;set=s;lut={lut_ns}") == "ok"
    commands.drop_all()
    assert [message.bins()["n"] for message in commands.scan()] == [2]
    future_ns = (now_ms + 60_000) * 1_000_000
    for lut, text in ((future_ns, "would-truncate-in-the-future"), (1, "would-truncate-to-0"), ("x", "bad 'lut'")):
        assert text in answer(commands.cluster, node, f"truncate:namespace=test;set=s;lut={lut}")
    assert len(commands.scan()) == 1
    assert answer(commands.cluster, node, "truncate-namespace:namespace=test") == "ok"
    commands.drop_all()
    assert commands.scan() == []


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with simulated_cluster(tmp_path_factory.mktemp("compressing")) as addresses:
        yield addresses


def test_replies_are_compressed_for_those_who_ask(addresses: list[str]) -> None:
    place = {Field.NAMESPACE: b"geotrain", Field.SET: b"s", Field.DIGEST: bytes(20)}
    everywhere = {Field.NAMESPACE: b"geotrain", Field.SET: b"s", Field.PARTITION_IDS: b"\0\0"}
    with WireClient(addresses[0]) as client:
        client.messages(Message(info2=1, fields=place, ops=[operation(OpCode.WRITE, "b", bytes(10_000))]))
        for request in (Message(info1=3, fields=place), Message(info1=1, info3=4, fields=everywhere)):
            plain = client.messages(request)[0].bins()
            request.info1 |= codes.INFO1_COMPRESS_RESPONSE
            client.socket.sendall(encode_frame(frames.MESSAGE, encode_message(request)))
            data = client.socket.recv(1 << 20)
            kind, body = FrameReader().feed(data)[0]
            assert kind == frames.COMPRESSED
            assert len(data) < 1000
            assert next(decode_messages(frames.decompress(body).body)).bins() == plain
