"""The agent's side of the gRPC session: finds the leader, dials, hands messages to the jobs.

Heartbeats come from here, not from the work: a site that trains for long is slow, not dead.
"""

import asyncio
import logging
import secrets
import time
from contextlib import suppress
from pathlib import Path

import grpc

from geotrain.errors import SessionRefused, ViewError
from geotrain.lease import read_lease
from geotrain.program import own_version
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import open_channel, retry_delays_s
from geotrain.rpc.parts import Stub
from geotrain.rpc.tls import Identity
from geotrain.view.connect import View
from site_agent import life
from site_agent.config import SiteAgentConfig
from site_agent.jobs import SiteJobs
from site_agent.outlet import Outlet

logger = logging.getLogger(__name__)

# One read from one's own rack.
LEASE_DEADLINE_S = 1.0

REFUSALS = (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)


class Session:
    """Keeps one agent connected to whoever leads until cancelled. view: where the lease is read.

    With every heartbeat it touches `<site.spool_dir>/<site.name>.joined`: how old that file is tells a health check.
    """

    def __init__(self, config: SiteAgentConfig, jobs: SiteJobs, view: View, identity: Identity | None = None) -> None:
        self._config = config
        self._jobs = jobs
        self._view = view
        self._identity = identity
        self._instance = secrets.token_hex(8)
        self._sign = Path(config.site.spool_dir) / f"{config.site.name}.joined"
        self._events: asyncio.Queue[life.Event] = asyncio.Queue()

    async def run(self) -> None:
        """Find the leader, dial, serve, and again when the stream breaks. Raises SessionRefused if this agent is not
        wanted."""
        machine = life.Life(
            self._config.site.name, self._config.coordinator, now_s=time.monotonic(), delays_s=retry_delays_s
        )
        tasks: set[asyncio.Task[None]] = set()
        stream: asyncio.Task[None] | None = None
        said = ""
        try:
            while True:
                event = await self._next(machine.due_s)
                for instruction in machine.handle(event, now_s=time.monotonic()):
                    match instruction:
                        case life.ReadLease():
                            tasks.add(asyncio.create_task(self._read_lease()))
                        case life.Dial(address):
                            tasks.add(stream := asyncio.create_task(self._dial(address)))
                        case life.HangUp():
                            assert stream is not None
                            stream.cancel()
                        case life.GiveUp(reason):
                            raise SessionRefused(
                                f"the coordinator refused this agent: {reason}",
                                "Give each site one agent, under a name that the coordinator knows (site.name).",
                            )
                for task in [task for task in tasks if task.done()]:
                    tasks.remove(task)
                    if not task.cancelled():
                        task.result()  # nothing, or a bug of ours
                if machine.reason != said:
                    said = machine.reason
                    logger.info("%s: %s", machine.phase, said)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self, due_s: float) -> life.Event:
        try:
            async with asyncio.timeout(max(0.0, due_s - time.monotonic())):
                return await self._events.get()
        except TimeoutError:
            return life.Tick()

    async def _read_lease(self) -> None:
        event: life.Event
        try:
            event = life.LeaseRead(await asyncio.to_thread(read_lease, self._view, deadline_s=LEASE_DEADLINE_S))
        except ViewError as error:
            event = life.LeaseUnread(f"the lease can't be read: {error.what}")
        self._events.put_nowait(event)

    async def _dial(self, address: str) -> None:
        event: life.Event = life.Broken(f"hung up on {address}")
        try:
            async with open_channel(address, self._identity) as channel:
                await self._serve(Stub(channel), address)
            event = life.Broken(f"the coordinator at {address} hung up")
        except grpc.aio.AioRpcError as error:
            reason = f"{address}: {error.code().name.lower()}: {error.details()}"
            event = life.Broken(reason)
            if error.code() in REFUSALS:
                event = life.Refused(reason, is_double=error.code() is grpc.StatusCode.ALREADY_EXISTS)
        finally:
            self._events.put_nowait(event)

    async def _serve(self, stub: rpc.CoordinatorStub, address: str) -> None:
        site, call = self._config.site.name, stub.Session()
        outlet = Outlet(call, stub, silence_s=self._config.upload_deadline_s)
        held_jobs = await asyncio.to_thread(self._jobs.known)
        hello = pb.Hello(site=site, version=own_version(), instance=self._instance, held_jobs=held_jobs)
        await outlet.send(pb.FromAgent(hello=hello))
        heartbeat: asyncio.Task[None] | None = None
        try:
            async for message in call:
                if message.HasField("welcome"):
                    self._events.put_nowait(life.Welcomed())
                    logger.info("joined the coordinator at %s as site %s", address, site)
                    heartbeat = asyncio.create_task(self._heartbeat(outlet, message.welcome.heartbeat_s))
                else:
                    await self._jobs.take(message, outlet)
        finally:
            outlet.close()
            if heartbeat is not None:
                heartbeat.cancel()
            call.cancel()

    async def _heartbeat(self, outlet: Outlet, interval_s: float) -> None:
        while outlet.is_open:
            for progress in self._jobs.progress():
                await outlet.send(pb.FromAgent(progress=progress))
            if outlet.is_open:
                self._give_sign()
            await asyncio.sleep(interval_s)

    def _give_sign(self) -> None:
        with suppress(OSError):  # of a full disk: heartbeats go on
            self._sign.parent.mkdir(parents=True, exist_ok=True)
            self._sign.touch()
