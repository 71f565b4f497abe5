"""grpc.aio's servers over the links of a simulation, as far as our handlers need them. Knows nothing of who calls."""

import asyncio
import inspect
import math
import traceback
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import grpc
from grpc import StatusCode

from tests.simulation.rounds.network import OK, Network, Status
from tests.simulation.rounds.processes import PROCESS, Process

if TYPE_CHECKING:
    from tests.simulation.rounds.calls import Call


class Aborted(Exception):
    """What `context.abort` raises in a handler."""


class Context:
    """grpc.aio.ServicerContext, as far as our handlers need it."""

    def __init__(self, call: "Call", handler: Any, metadata: tuple[tuple[str, str], ...]) -> None:
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

    def handle(self, name: str, call: "Call", metadata: tuple[tuple[str, str], ...]) -> "asyncio.Task[None]":
        handler = self.handlers[name]
        context = Context(call, handler, metadata)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._perform(handler, context, call), context=self.process.context.copy())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _perform(self, handler: Any, context: Context, call: "Call") -> None:
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


NOBODY = Server(None, Process("nobody"))  # type: ignore[arg-type]
