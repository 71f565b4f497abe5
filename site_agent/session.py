"""The agent's side of the gRPC session: dials, hands messages to the work, sends back what it answers.

Heartbeats come from here, not from the work: a site that trains for long is slow, not dead.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version

import grpc

from geotrain.errors import GeotrainError, SessionRefused
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import CHUNK_BYTES, open_channel, retry_delays_s
from geotrain.updates.chunks import split
from site_agent.config import SiteAgentConfig
from site_agent.held import Update
from site_agent.work import Report, Work

logger = logging.getLogger(__name__)

UPLOAD_ATTEMPTS = 4
# A coordinator works on one phase at a time; more messages than this mean that it is not ours to trust.
MAX_INCOMING = 64

REFUSALS = (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)


class Session:
    """Keeps one agent connected to the coordinator until cancelled."""

    def __init__(self, config: SiteAgentConfig, work: Work) -> None:
        self._config = config
        self._work = work
        self._welcomed = False
        self._writing = asyncio.Lock()
        self._progress = pb.Progress(phase="idle", loss=float("nan"))

    async def run(self) -> None:
        """Dial, serve, and dial again when the stream breaks. Raises SessionRefused if this agent is not wanted."""
        delays = retry_delays_s()
        async with open_channel(self._config.coordinator) as channel:
            while True:
                welcomed_before, self._welcomed = self._welcomed, False
                try:
                    await self._serve(rpc.CoordinatorStub(channel))
                    reason = "the coordinator hung up"
                except grpc.aio.AioRpcError as error:
                    # Right after a broken stream the coordinator may still hold our old one.
                    returning = welcomed_before and error.code() is grpc.StatusCode.ALREADY_EXISTS
                    if error.code() in REFUSALS and not returning:
                        raise SessionRefused(
                            f"the coordinator at {self._config.coordinator} refused this agent: {error.details()}",
                            "Give each site one agent, under a name that the coordinator knows (site.name).",
                        ) from None
                    reason = f"{error.code().name.lower()}: {error.details()}"
                if self._welcomed:
                    delays = retry_delays_s()
                self._welcomed = self._welcomed or welcomed_before
                delay_s = next(delays)
                logger.info(
                    "no session with %s (%s), trying again in %.1f s", self._config.coordinator, reason, delay_s
                )
                await asyncio.sleep(delay_s)

    async def _serve(self, stub: rpc.CoordinatorStub) -> None:
        call = stub.Session()
        incoming: asyncio.Queue[pb.ToAgent] = asyncio.Queue(MAX_INCOMING)
        await self._write(call, pb.FromAgent(hello=pb.Hello(site=self._config.site.name, version=_own_version())))
        background: list[asyncio.Task[None]] = []
        try:
            async for message in call:
                if message.HasField("welcome"):
                    self._welcomed = True
                    logger.info(
                        "joined the coordinator at %s as site %s", self._config.coordinator, self._config.site.name
                    )
                    background = [
                        asyncio.create_task(self._heartbeat(call, message.welcome.heartbeat_s)),
                        asyncio.create_task(self._work_off(call, stub, incoming)),
                    ]
                else:
                    # Full: we stop reading, and the coordinator sees that we do not keep up.
                    await incoming.put(message)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            call.cancel()

    async def _write(self, call: grpc.aio.StreamStreamCall, message: pb.FromAgent) -> None:
        async with self._writing:
            await call.write(message)

    async def _heartbeat(self, call: grpc.aio.StreamStreamCall, interval_s: float) -> None:
        while True:
            await self._write(call, pb.FromAgent(progress=self._progress))
            await asyncio.sleep(interval_s)

    async def _work_off(
        self, call: grpc.aio.StreamStreamCall, stub: rpc.CoordinatorStub, incoming: asyncio.Queue[pb.ToAgent]
    ) -> None:
        """Handle messages one after the other, in the order of their arrival."""
        while True:
            message = await incoming.get()
            kind = message.WhichOneof("body")
            if kind is None:
                continue  # of a newer coordinator
            body = getattr(message, kind)
            try:
                async for answer in self._handle(kind, body, stub):
                    await self._write(call, answer)
            except GeotrainError as error:
                logger.warning("%s of job %s failed: %s", kind, body.job, error)
                self._progress = pb.Progress(job=body.job, phase="idle", loss=float("nan"))
                await self._write(call, _failed(body, str(error)))
            except Exception as error:
                # A bug ends this site's part in the round, not its daemon.
                logger.exception("%s of job %s", kind, body.job)
                self._progress = pb.Progress(job=body.job, phase="idle", loss=float("nan"))
                await self._write(call, _failed(body, f"internal error: {error!r}"))

    async def _handle(self, kind: str, body: object, stub: rpc.CoordinatorStub) -> AsyncIterator[pb.FromAgent]:
        """The messages that answer one message; the work itself runs in a thread."""
        loop = asyncio.get_running_loop()
        reports: asyncio.Queue[Report | None] = asyncio.Queue()

        def work() -> None:
            try:
                for report in self._work.handle(kind, body):
                    loop.call_soon_threadsafe(reports.put_nowait, report)
            finally:
                loop.call_soon_threadsafe(reports.put_nowait, None)

        working = asyncio.create_task(asyncio.to_thread(work))
        while (report := await reports.get()) is not None:
            if isinstance(report, Update):
                await self._upload(stub, report)
            elif isinstance(report, pb.Progress):
                self._progress = report
                yield pb.FromAgent(progress=report)
            else:
                yield report
        await working

    async def _upload(self, stub: rpc.CoordinatorStub, update: Update) -> None:
        """Send an update; a broken stream is tried again. Raises GeotrainError with the coordinator's reason."""

        async def parts() -> AsyncIterator[pb.UploadPart]:
            yield pb.UploadPart(header=update.header)
            for offset, data, crc32 in split(update.data, CHUNK_BYTES):
                yield pb.UploadPart(chunk=pb.Chunk(offset=offset, data=bytes(data), crc32=crc32))

        for attempt, delay_s in enumerate(retry_delays_s(), start=1):
            try:
                receipt = await stub.Upload(parts(), timeout=self._config.upload_deadline_s)
            except grpc.aio.AioRpcError as error:
                if attempt == UPLOAD_ATTEMPTS:
                    raise GeotrainError(f"the update could not be sent: {error.details()}") from None
                await asyncio.sleep(delay_s)
                continue
            if not receipt.accepted:
                raise GeotrainError(f"the coordinator refused the update: {receipt.reason}")
            return


def _failed(body: object, reason: str) -> pb.FromAgent:
    number = getattr(body, "round", 0)
    return pb.FromAgent(failed=pb.Failed(job=getattr(body, "job", ""), round=number, reason=reason))


def _own_version() -> str:
    try:
        return version("geotrain")
    except PackageNotFoundError:
        return "source tree"
