"""What clients may take of a node before they have asked for anything: connections, memory, and time."""

import asyncio
from collections.abc import Callable

import pytest

from geotrain.wire import frames
from geotrain.wire.frames import HEADER_BYTES, encode_frame, frame_header
from geotrain.wire.info import encode_request
from sim.cluster import server as module
from sim.cluster.cluster import Cluster
from sim.cluster.config import ClusterConfig, NodeConfig
from sim.cluster.node import Node, State
from sim.cluster.server import Connection
from tests.sim.cluster.test_garbage import Recorder

STATUS = encode_frame(frames.INFO, encode_request(["status"]))
Connect = Callable[[], tuple[Connection, Recorder]]


class Timer:
    """One that waits, until it is set off or no longer needed."""

    def __init__(self, waiting: list["Timer"], call: Callable[[], None]) -> None:
        self._waiting, self._call = waiting, call
        waiting.append(self)

    def cancel(self) -> None:
        if self in self._waiting:
            self._waiting.remove(self)

    def fire(self) -> None:
        self.cancel()
        self._call()


Test = Callable[[Node, Connect, list[Timer]], None]


def scenario(test: Test, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test on one node, with a way to connect, and the timers that wait."""

    async def run() -> None:
        timers: list[Timer] = []
        cluster = Cluster(ClusterConfig(nodes={"a": NodeConfig()}, replication_factor=1))

        def connect() -> tuple[Connection, Recorder]:
            connection, recorder = Connection(cluster, cluster.nodes[0]), Recorder()
            connection.connection_made(recorder)
            return connection, recorder

        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "call_later", lambda delay_s, call: Timer(timers, call))
            test(cluster.nodes[0], connect, timers)

    asyncio.run(run())


def test_a_request_of_which_the_rest_does_not_come_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def test(node: Node, connect: Connect, timers: list[Timer]) -> None:
        connection, recorder = connect()
        connection.data_received(STATUS[:5])
        connection.data_received(STATUS[5:9])
        (timer,) = timers
        timer.fire()
        assert recorder.is_aborted

    scenario(test, monkeypatch)


def test_the_time_for_a_request_begins_with_it_and_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def test(node: Node, connect: Connect, timers: list[Timer]) -> None:
        connection, recorder = connect()
        connection.data_received(STATUS)
        assert not timers
        connection.data_received(STATUS[:10])
        first = timers[0]
        connection.data_received(STATUS[10:] + STATUS[:10])
        (second,) = timers
        assert second is not first
        connection.data_received(STATUS[10:])
        assert not timers
        assert recorder.received.count(b"status\tok\n") == 3
        connection.data_received(STATUS[:10])
        connection.connection_lost(None)
        assert not timers

    scenario(test, monkeypatch)


def test_a_client_that_a_paused_node_keeps_waiting_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def test(node: Node, connect: Connect, timers: list[Timer]) -> None:
        connection, recorder = connect()
        node.state = State.PAUSED
        connection.data_received(STATUS + STATUS[:10])
        timers[0].fire()
        assert not recorder.is_closed
        assert len(timers) == 1

    scenario(test, monkeypatch)


def test_requests_that_have_come_in_part_take_bounded_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNFINISHED_BYTES", 3000)

    def test(node: Node, connect: Connect, timers: list[Timer]) -> None:
        clients = [connect() for _ in range(4)]
        for connection, _ in clients:
            connection.data_received(frame_header(frames.MESSAGE, 1 << 20) + bytes(1000 - HEADER_BYTES))
        assert [recorder.is_aborted for _, recorder in clients] == [False, False, False, True]
        assert node.num_unfinished_bytes == 4000
        for connection, _ in clients:
            connection.connection_lost(None)
        assert node.num_unfinished_bytes == 0

    scenario(test, monkeypatch)


def test_a_node_has_a_largest_number_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)

    def test(node: Node, connect: Connect, timers: list[Timer]) -> None:
        (first, _), (_, second), (_, third) = connect(), connect(), connect()
        assert (second.is_aborted, third.is_aborted, len(node.connections)) == (False, True, 2)
        first.connection_lost(None)
        assert not connect()[1].is_aborted

    scenario(test, monkeypatch)
