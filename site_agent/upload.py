"""Sends an update from its file to the coordinator, and goes on where a broken connection left it. Decides nothing."""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import IO

import grpc

from geotrain.errors import GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import CHUNK_BYTES, retry_delays_s
from geotrain.rpc.parts import Chunk, ChunkPart
from site_agent.held import Update, is_whole

logger = logging.getLogger(__name__)

# In a row, and none of them got further than the one before.
MAX_FAILURES = 4
# From the disk at once.
READ_BYTES = 1 << 20


class BrokenUpload(Exception):
    """An attempt that ended without a receipt."""


async def send_update(
    stub: rpc.CoordinatorStub, update: Update, *, silence_s: float, note: Callable[[str], None]
) -> None:
    """Send an update until the coordinator has it.

    silence_s: how long the coordinator may say nothing in an attempt. note: told why it is not further.
    Raises GeotrainError with the coordinator's reason for not taking it, or where it can't be sent.
    """
    delays_s, failures, furthest = retry_delays_s(), 0, 0
    ahead_bytes = min(update.header.ahead_bytes, update.header.num_bytes)
    while True:
        attempt = _Attempt(stub, update, silence_s, ahead_bytes)
        ahead_bytes = 0  # of the next: this one may have brought something
        try:
            receipt = await attempt.run()
            if receipt.accepted:
                return
            if not await asyncio.to_thread(is_whole, update):
                raise GeotrainError(f"{update.path} was damaged on this site's disk, its update is lost")
            if not receipt.again:
                raise GeotrainError(f"the coordinator refused the update: {receipt.reason}")
            reason = receipt.reason
        except BrokenUpload as broken:
            failures = 1 if attempt.acknowledged > furthest else failures + 1
            furthest, reason = max(furthest, attempt.acknowledged), f"the upload broke: {broken}"
            if failures >= MAX_FAILURES:
                raise GeotrainError(f"the update could not be sent: {broken}") from None
            if failures == 1:
                delays_s = retry_delays_s()
        logger.warning("round %d's update is not sent yet: %s", update.header.round, reason)
        note(reason)
        await asyncio.sleep(next(delays_s))


class _Attempt:
    """One call. ahead_bytes: sent before the first answer. acknowledged: bytes that the coordinator has said it has."""

    def __init__(self, stub: rpc.CoordinatorStub, update: Update, silence_s: float, ahead_bytes: int) -> None:
        self.acknowledged = 0
        self._ahead_bytes = ahead_bytes
        self._update = update
        self._silence_s = silence_s
        self._call = stub.Upload()

    async def run(self) -> pb.UploadReceipt:
        """The coordinator's receipt. Raises BrokenUpload."""
        try:
            with self._update.path.open("rb", buffering=0) as file:
                return await self._send(file)
        except (TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise BrokenUpload(_described(error, self._silence_s)) from None
        finally:
            self._call.cancel()

    async def _send(self, file: IO[bytes]) -> pb.UploadReceipt:
        header = pb.UpdateHeader()
        header.CopyFrom(self._update.header)
        header.ahead_bytes = self._ahead_bytes
        async with asyncio.timeout(self._silence_s):
            await self._call.write(pb.UploadPart(header=header))
            await self._send_until(file, 0, self._ahead_bytes)
        sent = None
        while True:
            async with asyncio.timeout(self._silence_s):
                answer = await self._call.read()
                if answer is grpc.aio.EOF:
                    raise BrokenUpload("the coordinator hung up")
                if answer.HasField("receipt"):
                    return answer.receipt
                self.acknowledged = answer.credit.received
                if sent is None:  # where something is here already, what was sent ahead is passed over
                    sent = self.acknowledged or self._ahead_bytes
                sent = await self._send_until(file, sent, min(answer.credit.until, self._update.header.num_bytes))

    async def _send_until(self, file: IO[bytes], sent: int, until: int) -> int:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # its last answer says why it ended
            while sent < until:
                chunks = await asyncio.to_thread(_read, file, sent, min(until - sent, READ_BYTES))
                if not chunks:
                    raise BrokenUpload(f"{self._update.path} ends at byte {sent}")
                for data in chunks:
                    await self._call.write(ChunkPart(Chunk(sent, data)))
                    sent += len(data)
        return sent


def _read(file: IO[bytes], start: int, num_bytes: int) -> list[bytes]:
    """The file's bytes from `start` on, in chunks."""
    ends = range(start, start + num_bytes, CHUNK_BYTES)
    chunks = (os.pread(file.fileno(), min(CHUNK_BYTES, start + num_bytes - at), at) for at in ends)
    return [chunk for chunk in chunks if chunk]


def _described(error: Exception, silence_s: float) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name.lower()}: {error.details()}"
    return f"the coordinator was silent for {silence_s:g} s" if isinstance(error, TimeoutError) else str(error)
