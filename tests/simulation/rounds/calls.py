"""grpc.aio's channels over the links of a simulation, as far as generated stubs need them.

Messages are really serialized.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc
from grpc import StatusCode

from tests.simulation.rounds.network import OK, Network, Pipe, Status
from tests.simulation.rounds.processes import PROCESS, WORLD, Process
from tests.simulation.rounds.servers import NOBODY, Server

CONNECT_TIMEOUT_S = 5.0
CANCELLED = Status(StatusCode.CANCELLED, "Locally cancelled by application!")
"""By who called; a server that cancels is an error like any other."""

Method = tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]]  # its name, and how its messages are written, read


class Channel:
    """grpc.aio.Channel, as far as generated stubs need it."""

    def __init__(self, network: Network, address: str) -> None:
        process = PROCESS.get()
        assert process is not None
        self._network = network
        self._process = process
        self._address = address
        self._calls: list[Call] = []

    def _multicallable(self, kind: str) -> Callable[..., Any]:
        def of(name: str, request_serializer: Any, response_deserializer: Any, **_: object) -> Callable[..., Call]:
            def call(request: Any = None, *, timeout: float | None = None, **options: Any) -> Call:
                method = (name, request_serializer, response_deserializer)
                made = Call(self._network, self._process, self._address, method, kind, request, timeout, options)
                self._calls.append(made)
                return made

            return call

        return of

    def __getattr__(self, kind: str) -> Any:
        if kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            return self._multicallable(kind)
        raise AttributeError(kind)

    async def __aenter__(self) -> "Channel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        for call in self._calls:
            call.cancel()


class Call:
    """Both ends of one RPC: the client's call object, and what makes the server's handler."""

    def __init__(
        self,
        network: Network,
        client: Process,
        address: str,
        method: Method,
        kind: str,
        request: Any,
        timeout_s: float | None,
        options: Mapping[str, Any],
    ) -> None:
        self.client = client
        self.is_over = False
        self._network = network
        self._address = address
        self._method = method
        self._streams_up = kind.startswith("stream")
        self._timeout_s = timeout_s
        self._metadata = tuple(options.get("metadata") or ())
        self._status: Status | None = None
        self._handler: asyncio.Task[None] | None = None
        self._answer: asyncio.Task[Any] | None = None
        self.server: Server = NOBODY
        self._ready = asyncio.get_running_loop().create_future()
        self._background = [asyncio.create_task(self._connect(request))]
        if timeout_s is not None:
            self._background.append(asyncio.create_task(self._expire(timeout_s)))

    @property
    def ends(self) -> frozenset[str]:
        return frozenset((self.client.name, self.server.process.name))

    # The client's side.

    async def _connect(self, request: Any) -> None:
        server = self._network.find(self._address)
        target = frozenset((self.client.name, server.process.name)) if server else frozenset()
        if server is not None and (self._network.is_cut(target) or server.process.is_paused):
            await asyncio.sleep(CONNECT_TIMEOUT_S)
            server = self._network.find(self._address)
            if server is not None and (self._network.is_cut(target) or server.process.is_paused):
                server = None
        else:
            await asyncio.sleep(0.01)
            server = self._network.find(self._address)
        if self.is_over:
            return
        if server is None or self._method[0] not in server.handlers:
            self._finish(Status(StatusCode.UNAVAILABLE, "failed to connect"))
            return
        self.server = server
        self.up, self.down = Pipe(self._network, self), Pipe(self._network, self)
        self._network.add(self)
        self._network.deliver(self.ends, 0.0, self._begin)
        self._ready.set_result(None)
        if request is not None and not self._streams_up:
            self.up.put(self._method[1](request))
            self.up.put(OK)
        elif request is not None:
            await self._send_all(request)

    def _begin(self) -> None:
        """The call has reached the server."""
        if not self.is_over:
            task = self.server.handle(self._method[0], self, self._metadata)
            self._handler = task

    async def _send_all(self, requests: Any) -> None:
        try:
            if hasattr(requests, "__aiter__"):
                async for request in requests:
                    await self.write(request)
            else:
                for request in requests:
                    await self.write(request)
            await self.done_writing()
        except grpc.aio.AioRpcError:
            pass  # whoever waits for the answer is told

    async def _expire(self, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s)
        self._end_locally(Status(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    async def _reached(self) -> None:
        if not self._ready.done() and not self.is_over:
            await asyncio.wait([self._ready])
        if self._status is not None and self._status != OK:
            raise self._status.error()

    async def write(self, request: Any) -> None:
        await self._reached()
        if self._status is not None:
            raise asyncio.InvalidStateError("the call is over")
        await self.up.send(self._method[1](request))

    async def done_writing(self) -> None:
        await self._reached()
        if self._status is None:
            self.up.put(OK)

    async def read(self) -> Any:
        await self._reached()
        message = await self.down.receive()
        if isinstance(message, bytes):
            return self._method[2](message)
        self._finish(message)
        if message.code is StatusCode.OK:
            return grpc.aio.EOF
        if message == CANCELLED:
            raise asyncio.CancelledError
        raise message.error()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def __await__(self) -> Any:
        return self._unary().__await__()

    async def _unary(self) -> Any:
        try:
            message = await self.read()
        except asyncio.CancelledError:
            self.cancel()
            raise
        assert message is not grpc.aio.EOF, "the handler returned nothing"
        await self.read()
        return message

    def cancel(self) -> bool:
        if self.is_over or asyncio._get_running_loop() is None:  # none: what is left of a run is taken down
            return False
        self._end_locally(CANCELLED)
        return True

    def done(self) -> bool:
        return self._status is not None

    async def code(self) -> StatusCode:
        while self._status is None:
            await self.read()
        return self._status.code

    async def initial_metadata(self) -> grpc.aio.Metadata:
        await self._reached()
        return grpc.aio.Metadata()

    wait_for_connection = _reached

    def _end_locally(self, status: Status) -> None:
        if self.is_over:
            return
        if self.server is not NOBODY:
            self.up.break_(status)
            self.down.break_(status)
            self._network.deliver(self.ends, 0.0, self._stop_handler)
        self._finish(status)

    def _finish(self, status: Status) -> None:
        if self._status is None:
            self._status = status
        self.is_over = True
        for task in self._background:
            if task is not asyncio.current_task():
                task.cancel()
        if not self._ready.done():
            self._ready.set_result(None)

    # The network's and the server's side.

    def break_(self, why: str, delay_s: float) -> None:
        """The connection is lost: the client is told, and the server's handler is cancelled."""
        if self.is_over:
            return
        self.is_over = True
        loop = asyncio.get_running_loop()
        status = Status(StatusCode.UNAVAILABLE, why)

        def tell() -> None:
            self._stop_handler()
            self.up.break_(status)
            self.down.break_(status)

        loop.call_later(delay_s, tell, context=WORLD)

    def flush(self) -> None:
        self.up.flush()
        self.down.flush()

    def _stop_handler(self) -> None:
        if self._handler is not None:
            self._handler.cancel()

    def respond(self, message: bytes | Status) -> None:
        """What the handler has to say when it ends."""
        if not self.is_over:
            self.down.put(message)
