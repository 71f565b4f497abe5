import asyncio
import contextlib
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from sim.wan import proxy
from sim.wan.model import LinkConfig, LinkQuality, Network
from sim.wan.proxy import Channel, Observer

DEADLINE_S = 60.0
HERE, THERE = "here", "there"


def carried(test: Callable[[Network, tuple[str, int]], Coroutine[Any, Any, None]], **config: float) -> None:
    """Run a test with a service that echoes, on the other side of a link."""

    async def run() -> None:
        network = Network([LinkConfig(sites=[HERE, THERE], **config)], 0)  # type: ignore[arg-type]
        service = await asyncio.start_server(_echo, "127.0.0.1", 0)
        target = service.sockets[0].getsockname()
        async with await proxy.listen(network, HERE, THERE, ("127.0.0.1", 0), target) as server, service:
            await test(network, server.sockets[0].getsockname())

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


async def _echo(reader: StreamReader, writer: StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def connected(address: tuple[str, int]) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address)
    yield reader, writer
    writer.close()


def test_bytes_arrive_whole_and_in_order_and_the_end_behind_them() -> None:
    sent = bytes(range(256)) * 8000

    async def test(network: Network, address: tuple[str, int]) -> None:
        async with connected(address) as (reader, writer):
            writer.write(sent)
            writer.write_eof()
            assert await reader.read(-1) == sent

    carried(test, delay_ms=1, jitter_ms=5, bytes_per_s=50_000_000)


def test_what_a_client_says_first_is_carried_also_by_the_python_of_debian_12(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_reader(self: Any, *callback: Any) -> None:  # 3.11.2's: it begins to read though it was told to pause
        if not self._closing:
            self._loop._add_reader(*callback)

    monkeypatch.setattr("asyncio.selector_events._SelectorTransport._add_reader", add_reader)

    async def test(network: Network, address: tuple[str, int]) -> None:
        with socket.create_connection(address) as client:  # accepted by the loop once these bytes are there
            client.sendall(b"first")
            client.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(client, 5) == b"first"

    carried(test)


def test_an_answer_takes_the_handshake_and_a_round_trip_at_least() -> None:
    async def test(network: Network, address: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        async with connected(address) as (reader, writer):
            started_s = loop.time()
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            first_s = loop.time() - started_s
            writer.write(b"y")
            assert await reader.readexactly(1) == b"y"
            second_s = loop.time() - started_s - first_s
        assert first_s > 0.19
        assert second_s > 0.09

    carried(test, delay_ms=50)


def test_the_bandwidth_is_shared_by_all_connections() -> None:
    async def fetch(address: tuple[str, int]) -> None:
        async with connected(address) as (reader, writer):
            writer.write(bytes(100_000))
            await reader.readexactly(100_000)

    async def test(network: Network, address: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await asyncio.gather(fetch(address), fetch(address))
        assert loop.time() - started_s > 0.4  # 200 kB at 500 kB/s

    carried(test, bytes_per_s=500_000)


def test_what_is_sent_while_the_link_is_cut_arrives_when_it_heals() -> None:
    async def test(network: Network, address: tuple[str, int]) -> None:
        async with connected(address) as (reader, writer):
            writer.write(b"a")
            assert await reader.readexactly(1) == b"a"
            network.link(HERE, THERE).cut()
            writer.write(b"b")
            answer = asyncio.create_task(reader.readexactly(1))
            await asyncio.sleep(0.05)
            assert not answer.done()
            network.link(HERE, THERE).heal()
            assert await answer == b"b"

    carried(test)


@pytest.mark.parametrize("slow", [LinkQuality(bytes_per_s=1), LinkQuality(delay_ms=1e6)])
@pytest.mark.parametrize("is_cut", [False, True])
def test_what_was_sent_over_a_slow_link_goes_on_as_fast_as_any_once_it_heals(slow: LinkQuality, is_cut: bool) -> None:
    sent = bytes(range(256)) * 1000

    async def run() -> None:
        link = Network([], 0).link(HERE, THERE)
        link.quality = slow
        arrived, is_done = bytearray(), asyncio.Event()
        channel = Channel(link, arrived.extend, is_done.set)
        channel.send(sent)
        if is_cut:
            link.cut()
        link.heal()
        channel.send(b"more")
        await is_done.wait()
        assert arrived == sent + b"more"

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def test_a_link_that_is_cut_one_way_lets_the_other_through() -> None:
    heard = asyncio.Event()

    async def listen_only(reader: StreamReader, writer: StreamWriter) -> None:
        assert await reader.readexactly(1) == b"q"
        heard.set()
        writer.write(b"r")
        await reader.read()
        writer.close()

    async def run() -> None:
        network = Network([], 0)
        service = await asyncio.start_server(listen_only, "127.0.0.1", 0)
        target = service.sockets[0].getsockname()
        server = await proxy.listen(network, HERE, THERE, ("127.0.0.1", 0), target)
        async with server, service, connected(server.sockets[0].getsockname()) as (reader, writer):
            network.link(THERE, HERE).cut()
            writer.write(b"q")
            answer = asyncio.create_task(reader.readexactly(1))
            await heard.wait()
            await asyncio.sleep(0.05)
            assert not answer.done()
            network.link(THERE, HERE).heal()
            assert await answer == b"r"

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def test_a_sender_waits_while_too_much_is_on_its_way() -> None:
    async def test(network: Network, address: tuple[str, int]) -> None:
        async with connected(address) as (_, writer):
            network.link(HERE, THERE).cut()
            writer.write(bytes(64 * 1024 * 1024))
            drained = asyncio.create_task(writer.drain())
            await asyncio.sleep(0.2)
            assert not drained.done()
            drained.cancel()
            writer.transport.abort()

    carried(test)


def test_a_client_that_leaves_while_the_link_is_cut_harms_nobody() -> None:
    async def test(network: Network, address: tuple[str, int]) -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        async with connected(address) as (reader, writer):
            writer.write(b"a")
            await reader.readexactly(1)
            network.link(THERE, HERE).cut()
            writer.write(b"b")
            writer.transport.abort()
        await asyncio.sleep(0.05)
        network.link(THERE, HERE).heal()
        async with connected(address) as (reader, writer):
            writer.write(b"c")
            assert await reader.readexactly(1) == b"c"
        assert failures == []

    carried(test)


def test_a_service_that_is_not_there_is_a_closed_connection() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            nobody = free.getsockname()
        server = await proxy.listen(Network([], 0), HERE, THERE, ("127.0.0.1", 0), nobody)
        async with server, connected(server.sockets[0].getsockname()) as (reader, _):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def test_an_observer_sees_all_bytes_of_its_connection_in_both_directions() -> None:
    async def run() -> None:
        observers: list[tuple[bytearray, bytearray]] = []

        def observer() -> Observer:
            up, down = bytearray(), bytearray()
            observers.append((up, down))
            return Observer(up.extend, down.extend)

        service = await asyncio.start_server(_echo, "127.0.0.1", 0)
        target = service.sockets[0].getsockname()
        server = await proxy.listen(Network((), 0), HERE, THERE, ("127.0.0.1", 0), target, observer)
        for sent in (b"one", b"two" * 100_000):
            async with connected(server.sockets[0].getsockname()) as (reader, writer):
                writer.write(sent)
                writer.write_eof()
                assert await reader.read(-1) == sent
        assert observers == [(bytearray(sent), bytearray(sent)) for sent in (b"one", b"two" * 100_000)]
        server.close()
        service.close()

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def test_one_who_dials_before_the_service_is_there_is_hung_up_on(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            target = unused.getsockname()
        server = await proxy.listen(Network((), 0), HERE, THERE, ("127.0.0.1", 0), target)
        async with connected(server.sockets[0].getsockname()) as (reader, _):
            assert await reader.read(-1) == b""
        server.close()

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))
    assert "can't be reached" in caplog.text
