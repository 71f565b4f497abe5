"""Carries TCP connections over links of the model: late, at their bandwidth, not at all while they are cut."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from sim.wan.model import Link, Network

CONNECT_DEADLINE_S = 5.0
MAX_WAITING_BYTES = 4 * 1024 * 1024  # on the way in one direction of a connection; then its sender has to wait
MAX_PIECE_BYTES = 64 * 1024  # so that connections share a link's bandwidth evenly

log = logging.getLogger(__name__)

Observe = Callable[[bytes], None]
"""Sees bytes as they set out."""


def _look_away(data: bytes) -> None:
    pass


class Observer(NamedTuple):
    """Sees all bytes of one connection, before links do anything to them."""

    up: Observe = _look_away
    """From the client to the target."""
    down: Observe = _look_away


class Channel:
    """One direction of a connection: what goes in comes out in order, as late as the link has it."""

    def __init__(self, link: Link, deliver: Callable[[bytes], None], when_empty: Callable[[], None]) -> None:
        """deliver: takes what comes out; nothing (b"") is the end. when_empty: called when all has come out."""
        self.num_waiting_bytes = 0
        self._link = link
        self._deliver = deliver
        self._when_empty = when_empty
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[float, bytes]] = deque()
        self._last_s = self._opens_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._is_held = False
        self._awaits_link = False
        self._hears_of_healing = False

    def open_after(self, delay_s: float) -> None:
        """Send nothing on its way for this long."""
        self._opens_s += delay_s

    def send(self, data: bytes) -> None:
        """Put bytes in; nothing (b"") is the end."""
        pieces = [data[at : at + MAX_PIECE_BYTES] for at in range(0, len(data), MAX_PIECE_BYTES)] or [data]
        for piece in pieces:
            now_s = self._loop.time()
            arrival_s = self._link.arrival_s(max(self._opens_s, now_s), len(piece), now_s)
            self._last_s = max(self._last_s, arrival_s)
            self._queue.append((self._last_s, piece))
        self.num_waiting_bytes += len(data)
        if self._link.is_slowed:
            self._hear_of_healing()
        self._wait()

    def hold(self) -> None:
        """The receiver takes nothing more for now."""
        self._is_held = True

    def go_on(self) -> None:
        """The receiver takes more."""
        self._is_held = False
        self._wait()

    def drop(self) -> None:
        """Nobody is there any more."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        if self._queue and self._timer is None and not self._is_held and not self._awaits_link:
            self._timer = self._loop.call_at(self._queue[0][0], self._arrive)

    def _hear_of_healing(self) -> None:
        if not self._hears_of_healing:
            self._hears_of_healing = True
            self._link.when_healed(self._link_has_healed)

    def _link_has_healed(self) -> None:
        """What is still on its way goes on as if it set out now, or as it would have, whichever is earlier."""
        self._awaits_link = self._hears_of_healing = False
        now_s = self._loop.time()
        self._last_s, self._opens_s = now_s, min(self._opens_s, now_s)
        late, self._queue = self._queue, deque()
        for arrival_s, piece in late:
            if arrival_s > now_s:
                arrival_s = min(arrival_s, self._link.arrival_s(now_s, len(piece)))
            self._last_s = max(self._last_s, arrival_s)
            self._queue.append((self._last_s, piece))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wait()

    def _arrive(self) -> None:
        self._timer = None
        if not self._link.is_up:
            self._awaits_link = True
            self._hear_of_healing()
            return
        while self._queue and self._queue[0][0] <= self._loop.time() and not self._is_held:
            _, data = self._queue.popleft()
            self.num_waiting_bytes -= len(data)
            self._deliver(data)
        if not self._queue:
            self._when_empty()
        self._wait()


class End(asyncio.Protocol):
    """One end of a carried connection. Takes what arrives on its socket to the other end."""

    def __init__(self, observe: Observe) -> None:
        """observe: sees what arrives on the socket."""
        self._observe = observe
        self.transport: asyncio.Transport | None = None
        self.channel: Channel | None = None
        """The way to the other end."""
        self.other: End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take in nothing before the other end is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # Soon, not now: in Debian 12's Python 3.11.2 a transport begins to read after this, whatever it is told here.
        asyncio.get_running_loop().call_soon(transport.pause_reading)

    def carry(self, other: "End", link: Link) -> None:
        """Begin to take bytes to the other end."""
        self.other = other
        self.channel = Channel(link, other.put_out, self._resume)
        self._resume()

    def data_received(self, data: bytes) -> None:
        """Send on; wait where too much is on its way."""
        assert self.channel is not None
        self._observe(data)
        self.channel.send(data)
        if self.channel.num_waiting_bytes > MAX_WAITING_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Send the end on; the other direction may go on."""
        if self.channel is not None:
            self.channel.send(b"")
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """The other side hears of a connection that broke as late as of anything else."""
        self.transport = None
        if self.channel is not None:
            self.channel.send(b"")
        if self.other is not None and self.other.channel is not None:
            self.other.channel.drop()

    def put_out(self, data: bytes) -> None:
        """Give this side's socket what has arrived from the other end."""
        if self.transport is None:
            return
        if data:
            self.transport.write(data)
        elif self.other is not None and self.other.transport is None:
            self.transport.close()
        else:
            with contextlib.suppress(OSError):  # the client has gone, and the loop has not noticed yet
                self.transport.write_eof()

    def pause_writing(self) -> None:
        """This side's socket is full."""
        if self.other is not None and self.other.channel is not None:
            self.other.channel.hold()

    def resume_writing(self) -> None:
        """This side's socket has room again."""
        if self.other is not None and self.other.channel is not None:
            self.other.channel.go_on()

    def _resume(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()


async def listen(
    network: Network,
    here: str,
    there: str,
    address: tuple[str, int],
    target: tuple[str, int],
    observer: Callable[[], Observer] = Observer,
) -> asyncio.Server:
    """Carry what connects to `address`, on site `here`, to the target on site `there`. Raises OSError.

    observer: makes one for each connection.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def connect(near: End, observe: Observe) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                _, far = await loop.create_connection(lambda: End(observe), *target)
        except OSError as error:
            log.warning("%s: %s:%d can't be reached: %s", here, *target, error)
            if near.transport is not None:
                near.transport.abort()
            return
        far.carry(near, network.link(there, here))
        near.carry(far, network.link(here, there))
        assert near.channel is not None
        near.channel.open_after(network.round_trip_s(here, there))  # TCP's handshake

    class Near(End):
        def __init__(self) -> None:
            up, self._observe_down = observer()
            super().__init__(up)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = asyncio.get_running_loop().create_task(connect(self, self._observe_down))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    return await asyncio.get_running_loop().create_server(Near, *address)
