"""grpc.aio's channels and servers over the links of a simulation: as far as generated stubs and our handlers need them.

Messages are really serialized.
"""

import asyncio
import inspect
import math
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc
from grpc import StatusCode

from tests.simulation.rounds.network import OK, Network, Pipe, Status
from tests.simulation.rounds.processes import PROCESS, WORLD, Process

CONNECT_TIMEOUT_S = 5.0

Method = tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]]  # its name, and how its messages are written, read


class Aborted(Exception):
    """What `context.abort` raises in a handler."""


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
        self.server: Server = _NOBODY
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
        if message.code is StatusCode.CANCELLED:
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
        self._end_locally(Status(StatusCode.CANCELLED, "Locally cancelled by application!"))
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
        if self.server is not _NOBODY:
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
        loop.call_later(delay_s, lambda: (self.up.break_(status), self.down.break_(status)), context=WORLD)
        loop.call_later(delay_s, self._stop_handler, context=WORLD)

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


class Context:
    """grpc.aio.ServicerContext, as far as our handlers need it."""

    def __init__(self, call: Call, handler: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self._call = call
        self._handler = handler
        self._metadata = metadata
        self.trailing: tuple[tuple[str, str], ...] = ()
        self.status = OK

    async def read(self) -> Any:
        message = await self._call.up.receive()
        if isinstance(message, Status):
            return grpc.aio.EOF
        return self._handler.request_deserializer(message)

    async def write(self, message: Any) -> None:
        await self._call.down.send(self._handler.response_serializer(message))

    async def requests(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def abort(self, code: StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        self.status = Status(code, details, tuple(trailing_metadata) or self.trailing)
        raise Aborted

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailing = tuple(metadata)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"transport_security_type": [b"insecure"]}

    def peer(self) -> str:
        return f"ipv4:{self._call.client.name}"

    def cancelled(self) -> bool:
        return self._call.is_over

    def time_remaining(self) -> float:
        return math.inf


class Server:
    """grpc.aio.Server, as far as the daemon needs it."""

    def __init__(self, network: Network, process: Process | None = None) -> None:
        """process: the one that calls, where none is named."""
        found = process or PROCESS.get()
        assert found is not None
        self.process = found
        self.handlers: dict[str, Any] = {}
        self._network = network
        self._address = ""
        self._running: set[asyncio.Task[None]] = set()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        pass  # the registered ones are the same

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self.handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}

    def add_insecure_port(self, address: str) -> int:
        self._address = address
        return int(address.rpartition(":")[2])

    async def start(self) -> None:
        self._network.listen(self._address, self)

    async def stop(self, grace: float | None) -> None:
        self._network.hang_up(self)
        if self._running:
            await asyncio.wait(self._running, timeout=grace or 0.001)
        for task in self._running:
            task.cancel()

    def handle(self, name: str, call: Call, metadata: tuple[tuple[str, str], ...]) -> "asyncio.Task[None]":
        handler = self.handlers[name]
        context = Context(call, handler, metadata)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._perform(handler, context, call), context=self.process.context.copy())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _perform(self, handler: Any, context: Context, call: Call) -> None:
        function = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        request = context.requests() if handler.request_streaming else await context.read()
        if request is grpc.aio.EOF:
            return  # the connection broke before the request was here
        try:
            if inspect.isasyncgenfunction(function):
                async for message in function(request, context):
                    await context.write(message)
            elif (reply := await function(request, context)) is not None:
                call.respond(handler.response_serializer(reply))
        except Aborted:
            pass
        except asyncio.CancelledError:
            call.respond(Status(StatusCode.CANCELLED, "the server stops"))
            raise
        except grpc.aio.AioRpcError:
            return  # the client is gone
        except Exception as error:  # noqa: BLE001 - it is told, not hidden
            *_, where = traceback.extract_tb(error.__traceback__)
            self._network.fail(f"a handler of {self.process.name} raised {error!r} in {where.name}")
            context.status = Status(StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")
        call.respond(context.status)


_NOBODY = Server(None, Process("nobody"))  # type: ignore[arg-type]
