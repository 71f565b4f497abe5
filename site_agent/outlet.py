"""Where a site's answers go: one stream to the coordinator, for as long as it stands. Knows no job and no work."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from site_agent.held import Update
from site_agent.upload import send_update


class Outlet:
    """One stream. What is sent when it is gone, or is on its way then, is dropped: the coordinator asks again when the
    agent is back.

    silence_s: how long the coordinator may say nothing during an upload.
    """

    def __init__(self, call: grpc.aio.StreamStreamCall, stub: rpc.CoordinatorStub, *, silence_s: float) -> None:
        self._call = call
        self._stub = stub
        self._silence_s = silence_s
        self._writing = asyncio.Lock()
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_open(self) -> bool:
        return not self._closed.done()

    async def send(self, message: pb.FromAgent) -> None:
        async with self._writing:
            await self._while_open(self._write(message))

    async def upload(self, update: Update, note: Callable[[str], None]) -> None:
        """Send an update while the stream stands. Raises GeotrainError with the coordinator's reason."""
        await self._while_open(send_update(self._stub, update, silence_s=self._silence_s, note=note))

    def close(self) -> None:
        if self.is_open:
            self._closed.set_result(None)

    async def _write(self, message: pb.FromAgent) -> None:
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            self.close()  # whoever reads the stream learns why

    async def _while_open(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it, or give it up when the stream is closed: a coordinator that has fallen silent must not hold us."""
        working = asyncio.create_task(work)
        try:
            if self.is_open:
                await asyncio.wait([working, self._closed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
        if not working.done():
            await asyncio.wait([working])
        # gRPC cancels whoever waits for a call that was cancelled; that is not our own cancellation.
        if not working.cancelled() and (error := working.exception()):
            raise error
