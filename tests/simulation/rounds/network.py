"""The links between the processes of a simulation: they delay, break, and fall silent. Knows no call's meaning.

On one stream messages stay in order, across streams they do not. A link that is cut keeps what is sent until it heals,
as TCP does, unless the silence is noticed first, as by gRPC's keepalive.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import grpc
from grpc import StatusCode

from tests.simulation.rounds.processes import WORLD, Process

if TYPE_CHECKING:
    from tests.simulation.rounds.calls import Call
    from tests.simulation.rounds.servers import Server

WINDOW = 16  # messages under way and unread, in each direction of a stream
KEEPALIVE_S = 30.0


@dataclass(frozen=True)
class Status:
    """How a call ended."""

    code: StatusCode
    details: str = ""
    metadata: tuple[tuple[str, str], ...] = ()

    def error(self) -> grpc.aio.AioRpcError:
        trailing = grpc.aio.Metadata(*self.metadata)
        return grpc.aio.AioRpcError(self.code, grpc.aio.Metadata(), trailing, details=self.details)


OK = Status(StatusCode.OK)


class Network:
    """Processes by where they listen, and the calls between them.

    fail: takes what no handler may do. on_message: told, for each end, of every message that is about to arrive.
    """

    def __init__(self, random: Random, fail: Callable[[str], None], on_message: Callable[[str], None]) -> None:
        self.fail = fail
        self.on_message = on_message
        self._random = random
        self._listening: dict[str, Server] = {}
        self._calls: list[Call] = []
        self._cuts: dict[frozenset[str], float] = {}
        self._delays_s: dict[frozenset[str], float] = {}

    # What goes wrong.

    def lose(self, process: Process) -> None:
        """The process was killed: its peers are told by its machine."""
        self._listening = {at: server for at, server in self._listening.items() if server.process is not process}
        for call in self._of(process):
            call.break_("the peer is gone", self._delay_s(call.ends))

    def break_streams(self, *names: str) -> None:
        """Break every call between the two, or of the one."""
        for call in self._open():
            if set(names) <= set(call.ends):
                call.break_("connection reset", self._delay_s(call.ends))

    def silence(self, process: Process) -> None:
        """The process stands still from now on; peers notice when it does not answer for long."""
        since_s = self._now_s()
        self._at(KEEPALIVE_S, lambda: self._notice(process, since_s))
        process.silent_since_s = since_s  # type: ignore[attr-defined]

    def _notice(self, process: Process, since_s: float) -> None:
        if process.is_paused and process.silent_since_s == since_s:  # type: ignore[attr-defined]
            for call in self._of(process):
                call.break_("keepalive watchdog timeout", 0.0)

    def cut(self, one: str, other: str) -> None:
        pair = frozenset((one, other))
        self._cuts[pair] = since_s = self._now_s()
        self._at(KEEPALIVE_S, lambda: self._keepalive(pair, since_s))

    def _keepalive(self, pair: frozenset[str], since_s: float) -> None:
        if self._cuts.get(pair) == since_s:
            for call in self._open():
                if pair == call.ends:
                    call.break_("keepalive watchdog timeout", 0.0)

    def heal(self, one: str, other: str) -> None:
        pair = frozenset((one, other))
        self._cuts.pop(pair, None)
        for call in self._open():
            if pair == call.ends:
                call.flush()

    def slow_down(self, one: str, other: str, delay_s: float) -> None:
        self._delays_s[frozenset((one, other))] = delay_s

    # What calls ask.

    def is_cut(self, ends: frozenset[str]) -> bool:
        return ends in self._cuts

    def find(self, address: str) -> "Server | None":
        return self._listening.get(address)

    def listen(self, address: str, server: "Server") -> int:
        if address in self._listening:
            raise RuntimeError(f"{address} is in use")
        self._listening[address] = server
        return int(address.rpartition(":")[2])

    def hang_up(self, server: "Server") -> None:
        self._listening = {at: other for at, other in self._listening.items() if other is not server}

    def add(self, call: "Call") -> None:
        self._calls = [other for other in self._calls if not other.is_over]
        self._calls.append(call)

    def _delay_s(self, ends: frozenset[str]) -> float:
        return self._random.uniform(0.002, 0.02) + self._random.random() * self._delays_s.get(ends, 0.0)

    def deliver(self, ends: frozenset[str], after_s: float, what: Callable[[], None]) -> float:
        """Do it when it arrives, after `after_s`. Returns when that is."""
        at_s = max(after_s + 1e-6, self._now_s() + self._delay_s(ends))
        asyncio.get_running_loop().call_at(at_s, what, context=WORLD)
        return at_s

    def _at(self, delay_s: float, what: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, what, context=WORLD)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _open(self) -> "Iterator[Call]":
        return iter([call for call in self._calls if not call.is_over])

    def _of(self, process: Process) -> "list[Call]":
        return [call for call in self._open() if process in (call.client, call.server.process)]


class Pipe:
    """One direction of a stream: messages in order, and then how it ended."""

    def __init__(self, network: Network, call: "Call") -> None:
        self._network = network
        self._call = call
        self._ends = call.ends
        self._arrived: deque[bytes | Status] = deque()
        self._held: list[bytes | Status] = []
        self._num_unread = 0
        self._last_s = 0.0
        self.broken: Status | None = None
        self._changed: list[asyncio.Future[None]] = []

    async def send(self, message: bytes | Status) -> None:
        """Returns when there is room for more. Raises the error of a call that is over."""
        while self.broken is None and self._num_unread >= WINDOW:
            await self._change()
        if self.broken is not None:
            raise self.broken.error()
        self.put(message)

    def put(self, message: bytes | Status) -> None:
        self._num_unread += 1
        self._last_s = self._network.deliver(self._ends, self._last_s, lambda: self._arrive(message))

    async def receive(self) -> bytes | Status:
        while not self._arrived:
            if self.broken is not None:
                return self.broken
            await self._change()
        message = self._arrived[0]
        if not isinstance(message, Status):
            self._arrived.popleft()
            self._num_unread -= 1
            self._wake()
        return message

    def _arrive(self, message: bytes | Status) -> None:
        for name in sorted(self._ends):
            self._network.on_message(name)
        if self._call.is_over:  # the connection is lost, and this message with it
            return
        if self._held or self._network.is_cut(self._ends):
            self._held.append(message)
            return
        self._arrived.append(message)
        self._wake()

    def flush(self) -> None:
        held, self._held = self._held, []
        for message in held:
            self._last_s = self._network.deliver(
                self._ends, self._last_s, lambda message=message: self._arrive(message)
            )

    def break_(self, status: Status) -> None:
        if self.broken is None:
            self.broken = status
            self._wake()

    async def _change(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._changed.append(future)
        await future

    def _wake(self) -> None:
        changed, self._changed = self._changed, []
        for future in changed:
            if not future.done():
                future.set_result(None)
