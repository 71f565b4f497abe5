"""Truncating while others work: step by step, and whole in the end."""

import asyncio

from geotrain.wire import frames
from geotrain.wire.codes import Field, OpCode, ResultCode
from geotrain.wire.frames import FrameReader, encode_frame
from geotrain.wire.info import decode_reply, encode_request
from geotrain.wire.messages import Message, decode_message, encode_message, operation
from sim.cluster.server import Connection
from tests.sim.cluster.in_process import NAMESPACE, Commands
from tests.sim.cluster.test_garbage import Recorder
from tests.sim.cluster.test_jobs import digest_of

NUM_RECORDS = 100


def filled() -> Commands:
    """A cluster with records in as many partitions, written long ago."""
    commands = Commands()
    commands.now_ms = 1_600_000_000_000
    for number in range(NUM_RECORDS):
        commands.put({"n": number}, digest=digest_of(number))
    return commands


def connected(commands: Commands) -> tuple[Connection, Recorder]:
    connection, recorder = Connection(commands.cluster, commands.cluster.nodes[0]), Recorder()
    connection.connection_made(recorder)
    return connection, recorder


TRUNCATE = encode_frame(frames.INFO, encode_request(["truncate:namespace=test;set=s"]))


def put(number: int) -> bytes:
    fields = {Field.NAMESPACE: NAMESPACE.encode(), Field.SET: b"s", Field.DIGEST: digest_of(number)}
    return encode_frame(
        frames.MESSAGE, encode_message(Message(info2=1, fields=fields, ops=[operation(OpCode.WRITE, "n", -1)]))
    )


def test_others_are_served_while_a_set_is_truncated_and_what_they_write_stays() -> None:
    async def scenario() -> None:
        commands = filled()
        (truncating, told), (writing, written) = connected(commands), connected(commands)
        truncating.data_received(TRUNCATE)
        assert 0 < len(commands.scan()) < NUM_RECORDS
        for number in (0, NUM_RECORDS - 1):
            writing.data_received(put(number))
        codes = [decode_message(body)[0].result_code for _, body in FrameReader().feed(bytes(written.received))]
        assert codes == [ResultCode.OK, ResultCode.OK]
        assert not told.received
        for _ in range(10 * NUM_RECORDS):  # more turns than it has steps
            await asyncio.sleep(0)
        ((_, body),) = FrameReader().feed(bytes(told.received))
        assert decode_reply(body) == [("truncate:namespace=test;set=s", "ok")]
        assert [message.bins() for message in commands.scan()] == [{"n": -1}, {"n": -1}]
        for connection in (truncating, writing):
            connection.connection_lost(None)

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_truncation_whose_client_has_left_comes_to_its_end() -> None:
    async def scenario() -> None:
        commands = filled()
        truncating, _ = connected(commands)
        truncating.data_received(TRUNCATE)
        truncating.connection_lost(None)
        assert len(commands.scan()) > 0
        commands.drop_all()  # as housekeeping does
        assert commands.scan() == []

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_truncation_is_over_before_the_cluster_changes() -> None:
    commands = filled()
    commands.cluster.truncate(commands.cluster.nodes[0], b"s", commands.now_ms + 1)
    commands.cluster.nodes[0].die(keeps_memory=True)
    commands.cluster.rebalance()
    assert commands.cluster.num_drops == 0
    assert commands.scan(node=1) == []


def test_a_write_by_a_clock_from_before_the_truncation_is_refused() -> None:
    commands = filled()
    commands.cluster.truncate(commands.cluster.nodes[0], None, commands.now_ms)
    assert commands.put({"n": 1}).result_code == ResultCode.OK
    commands.pass_s(-1)
    assert commands.put({"n": 2}).result_code == ResultCode.FORBIDDEN
