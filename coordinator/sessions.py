"""The agents' streams: what they say to which job, what they are told. Who may stay is `coordinator.membership`'s."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc

from coordinator import events, membership
from coordinator.config import CoordinatorConfig
from coordinator.jobs import Jobs
from coordinator.links import Link, Links
from coordinator.membership import GONE_AFTER, Membership
from coordinator.messages import to_event
from geotrain.errors import GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc.channels import SITE_NAME
from geotrain.rpc.tls import Peer, site_name

logger = logging.getLogger(__name__)

TICKS_PER_HEARTBEAT = 4
# An agent works on few jobs at once; what it names beyond is not looked up.
MAX_HELD_JOBS = 64


@dataclass(slots=True)
class Stream:
    """One agent's stream. admitted: None once it is its site's, else why it is refused. closed: why it is to end."""

    link: Link
    admitted: asyncio.Future[str | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    closed: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def close(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)


class Sessions:
    """Every connected agent's session.

    links: where the others find the agents. jobs: who is told what they say. membership: which sites are here.
    """

    def __init__(self, config: CoordinatorConfig, links: Links, jobs: Jobs) -> None:
        self.membership = Membership(config.heartbeat_s)
        self._config = config
        self._links = links
        self._jobs = jobs
        self._streams: dict[int, Stream] = {}
        self._numbers = count(1)
        self._ticking: asyncio.Task[None] | None = None

    async def serve(self, context: grpc.aio.ServicerContext) -> None:
        """One agent's stream, until it ends."""
        hello = await self._greeting(context)
        number, stream = next(self._numbers), Stream(Link(hello.site))
        self._streams[number] = stream
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())
        reason = "its stream broke"
        try:
            self._handle(membership.Called(number, hello.site, hello.instance, hello.version))
            if refused := await stream.admitted:
                await context.abort(grpc.StatusCode.ALREADY_EXISTS, refused)
            reason = await self._converse(stream, hello, context)
        finally:
            self._handle(membership.HungUp(number, reason))
            del self._streams[number]
            if not self._streams:
                self._ticking.cancel()
                self._ticking = None

    async def _greeting(self, context: grpc.aio.ServicerContext) -> pb.Hello:
        """The agent's first words. A stranger is refused."""
        first = None
        with contextlib.suppress(TimeoutError):
            first = await asyncio.wait_for(context.read(), self._config.heartbeat_s * GONE_AFTER)
        if not isinstance(first, pb.FromAgent) or not first.HasField("hello"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message of a session must be Hello")
        site, known = first.hello.site, self._config.sites
        if not SITE_NAME.fullmatch(site):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{site!r} is not a name for a site")
        if refused := Peer.of(context).refusal(site_name(site)):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refused)
        if known and site not in known:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"site {site!r} is not one of this coordinator's sites: {known}"
            )
        return first.hello

    async def _converse(self, stream: Stream, hello: pb.Hello, context: grpc.aio.ServicerContext) -> str:
        """Exchange messages until the stream ends, or is to end; returns why."""
        writing = asyncio.create_task(self._write(stream.link, context))
        listening = asyncio.create_task(self._listen(stream.link, context))
        telling = asyncio.create_task(self._tell_ended(stream.link, hello.held_jobs))
        try:
            await asyncio.wait([stream.closed, writing, listening], return_when=asyncio.FIRST_COMPLETED)
            return next(one.result() for one in (stream.closed, listening, writing) if one.done())
        except grpc.aio.BaseError:
            return "its stream broke"
        finally:
            for task in (writing, listening, telling):
                task.cancel()
            await asyncio.gather(writing, listening, telling, return_exceptions=True)

    async def _write(self, link: Link, context: grpc.aio.ServicerContext) -> str:
        while True:
            await context.write(await link.outgoing.get())

    async def _listen(self, link: Link, context: grpc.aio.ServicerContext) -> str:
        while (message := await context.read()) is not grpc.aio.EOF:
            link.received(message.ByteSize())
            self._take(link.site, message)
        return "it hung up"

    async def _tell_ended(self, link: Link, held_jobs: Iterable[str]) -> None:
        """An agent that was away keeps what belongs to a job, until it hears that the job has ended."""
        for job_id in list(held_jobs)[:MAX_HELD_JOBS]:
            try:
                runner = await self._jobs.find(job_id)
            except GeotrainError as error:
                logger.warning("site %s asks for job %s, which can't be read: %s", link.site, job_id, error)
                continue
            if runner is None:
                link.send(pb.ToAgent(job_ended=pb.JobEnded(job=job_id, status="failed", reason="it is not known here")))
            elif runner.log.ended:
                ended = pb.JobEnded(job=job_id, status=runner.facts.status, reason=runner.facts.reason)
                link.send(pb.ToAgent(job_ended=ended))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._config.heartbeat_s / TICKS_PER_HEARTBEAT)
            for number, stream in list(self._streams.items()):
                if stream.link.overrun:
                    self._handle(membership.HungUp(number, "it does not read its messages"))
                elif stream.link.is_heard:
                    stream.link.is_heard = False
                    self._handle(membership.Heard(number))
            self._handle(membership.Tick())

    def _handle(self, event: membership.Event) -> None:
        """Have the machine decide, and do what it says."""
        for instruction in self.membership.handle(event, now_s=time.monotonic()):
            stream = self._streams[instruction.stream]
            site = stream.link.site
            match instruction:
                case membership.Admit():
                    logger.info("site %s joined (geotrain %s)", site, self.membership.members[site].version)
                    stream.link.send(pb.ToAgent(welcome=pb.Welcome(heartbeat_s=self._config.heartbeat_s)))
                    self._links[site] = stream.link
                    self._jobs.tell(events.SiteJoined(site))
                    if not stream.admitted.done():
                        stream.admitted.set_result(None)
                case membership.Refuse(_, reason):
                    logger.warning("an agent of site %s is refused: %s", site, reason)
                    if not stream.admitted.done():
                        stream.admitted.set_result(reason)
                case membership.Drop(_, reason):
                    logger.info("site %s left: %s", site, reason)
                    del self._links[site]
                    self._jobs.tell(events.SiteLeft(site, reason))
                    stream.close(reason)

    def _take(self, site: str, message: pb.FromAgent) -> None:
        kind = message.WhichOneof("body")
        body: Any = getattr(message, kind) if kind else None
        runner = self._jobs.running(body.job) if kind not in (None, "hello") else None
        if runner is None or kind is None:
            return
        if kind == "progress":
            runner.take_progress(site, body)
            return
        if kind == "prepared":
            logger.info("job %s: site %s can run it, with %d rows", body.job, site, body.local_rows)
        try:
            event = to_event(site, kind, body, runner.config.task)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"its {kind} can't be read: {error}"
            event = events.SiteFailed(site, reason, getattr(body, "round", None), is_final=True)
        if event is not None:
            runner.offer(event)
