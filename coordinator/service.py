"""The coordinator's gRPC service: messages to events and back. Takes no decision about a round."""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import torch

from coordinator import events
from coordinator.config import CoordinatorConfig, JobConfig
from coordinator.events import Event
from coordinator.ledger import UNFINISHED, Ledger, unfinished
from coordinator.links import Link, Links
from coordinator.messages import to_event
from coordinator.reduce import OuterStep
from coordinator.runner import JobRunner
from geotrain.errors import GeotrainError, UpdateRefused
from geotrain.program import config_from_json
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import SITE_NAME
from geotrain.tasks.targets import check_targets
from geotrain.updates.chunks import Spool
from geotrain.view.connect import View

logger = logging.getLogger(__name__)

SILENT_HEARTBEATS = 4


class CoordinatorService(rpc.CoordinatorServicer):
    """Answers agents and launches, and runs the launched jobs one after the other."""

    def __init__(self, config: CoordinatorConfig, view: View) -> None:
        self._config = config
        self._view = view
        self._links = Links()
        self._jobs: dict[str, JobRunner] = {}
        self._running: JobRunner | None = None
        self._queue: asyncio.Queue[JobRunner] = asyncio.Queue()

    async def recover(self) -> None:
        """Queue the jobs that were left unfinished, in the order of their launches. Raises ViewError."""
        for job_id in await asyncio.to_thread(unfinished, self._view):
            runner = await self._recall(job_id)
            if runner is not None:
                logger.info("job %s was left unfinished, and goes on", job_id)
                self._jobs[job_id] = runner
                self._queue.put_nowait(runner)

    async def _recall(self, job_id: str) -> JobRunner | None:
        """The job as the ledger has it; None where it has none that can be run here."""
        ledger = Ledger(self._view, job_id)
        text = await asyncio.to_thread(ledger.config)
        if text is None:
            return None
        try:
            config = config_from_json(JobConfig, text)
            self._check_launch(config)
        except GeotrainError as error:
            reason = f"it can't go on here: {error}"
            logger.error("job %s: %s", job_id, reason)
            await asyncio.to_thread(ledger.end, "failed", reason)
            return None
        return self._runner(job_id, config)

    async def _past(self, job_id: str) -> JobRunner | None:
        """A job that ended before this coordinator started, for those who follow it."""
        ledger = Ledger(self._view, job_id)
        text = await asyncio.to_thread(ledger.config)
        if text is None:
            return None
        facts = await asyncio.to_thread(ledger.facts)
        if facts.status in UNFINISHED:
            return None
        runner = self._runner(job_id, config_from_json(JobConfig, text))
        runner.tell(facts)
        return runner

    def _runner(self, job_id: str, config: JobConfig) -> JobRunner:
        return JobRunner(
            job_id,
            config,
            view=self._view,
            links=self._links,
            spool_dir=Path(self._config.spool_dir) / job_id,
            allowed=self._config.allowed_targets,
        )

    async def run_jobs(self) -> None:
        """Run queued jobs in the order of their launches, until cancelled."""
        while True:
            runner = await self._queue.get()
            self._running = runner
            await runner.run()
            self._running = None

    # One stream per agent.

    async def Session(self, _: object, context: grpc.aio.ServicerContext) -> None:  # noqa: N802 - gRPC's name
        hello = await self._read(context)
        if hello is None or not hello.HasField("hello"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message of a session must be Hello")
        site = hello.hello.site
        await self._refuse_strangers(site, context)
        link = Link(site)
        self._links[site] = link
        logger.info("site %s joined (geotrain %s)", site, hello.hello.version)
        link.send(pb.ToAgent(welcome=pb.Welcome(heartbeat_s=self._config.heartbeat_s)))
        writer = asyncio.create_task(self._write(link, context))
        reason = "its stream broke"
        try:
            self._tell_job(events.SiteJoined(site))
            reason = await self._listen(link, context)
        finally:
            writer.cancel()
            del self._links[site]
            logger.info("site %s left: %s", site, reason)
            self._tell_job(events.SiteLeft(site, reason))

    async def _refuse_strangers(self, site: str, context: grpc.aio.ServicerContext) -> None:
        if not SITE_NAME.fullmatch(site):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{site!r} is not a name for a site")
        known = self._config.sites
        if known and site not in known:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"site {site!r} is not one of this coordinator's sites: {known}"
            )
        if site in self._links:
            await context.abort(
                grpc.StatusCode.ALREADY_EXISTS, f"another agent is connected as site {site!r}; a site has one agent"
            )

    async def _read(self, context: grpc.aio.ServicerContext) -> pb.FromAgent | None:
        """The agent's next message; None when it has hung up. TimeoutError when it is silent for too long."""
        message = await asyncio.wait_for(context.read(), self._config.heartbeat_s * SILENT_HEARTBEATS)
        return None if message is grpc.aio.EOF else message

    async def _write(self, link: Link, context: grpc.aio.ServicerContext) -> None:
        while True:
            await context.write(await link.outgoing.get())

    async def _listen(self, link: Link, context: grpc.aio.ServicerContext) -> str:
        """Take the agent's messages until the stream ends; returns why it ended."""
        while not link.overrun.is_set():
            try:
                message = await self._read(context)
            except TimeoutError:
                return f"silent for {SILENT_HEARTBEATS} heartbeats of {self._config.heartbeat_s:g} s"
            if message is None:
                return "it hung up"
            link.bytes_up += message.ByteSize()
            self._take(link.site, message)
        return "it does not read its messages"

    def _take(self, site: str, message: pb.FromAgent) -> None:
        runner = self._running
        kind = message.WhichOneof("body")
        body: Any = getattr(message, kind) if kind else None
        if runner is None or body is None or body.job != runner.id:
            return
        if kind == "progress":
            runner.progress(site, body)
            return
        if kind == "prepared":
            logger.info("job %s: site %s can run it, with %d rows", body.job, site, body.local_rows)
        try:
            event = to_event(site, kind, body, runner.config.task)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"its {kind} can't be read: {error}"
            event = events.SiteFailed(site, reason, getattr(body, "round", 0) or None)
        if event is not None:
            runner.offer(event)

    def _tell_job(self, event: Event) -> None:
        if self._running is not None:
            self._running.offer(event)

    # One call per update.

    async def Upload(  # noqa: N802
        self, parts: AsyncIterator[pb.UploadPart], context: grpc.aio.ServicerContext
    ) -> pb.UploadReceipt:
        first = await anext(parts)
        header = first.header
        runner = self._running
        if runner is None or header.job != runner.id:
            return pb.UploadReceipt(accepted=False, reason=f"job {header.job} is not running")
        if header.site not in self._links or header.site not in runner.config.sites:
            return pb.UploadReceipt(accepted=False, reason=f"site {header.site} has no session")
        try:
            path = await self._spool(runner, header, parts)
        except UpdateRefused as refused:
            logger.warning("update of %s for round %d refused: %s", header.site, header.round, refused)
            runner.offer(events.SiteFailed(header.site, f"update refused: {refused.what}", header.round or None))
            return pb.UploadReceipt(accepted=False, reason=str(refused))
        runner.offer(events.UpdateArrived(header.site, header.round, header.samples, dict(header.metrics), path))
        return pb.UploadReceipt(accepted=True)

    async def _spool(self, runner: JobRunner, header: pb.UpdateHeader, parts: AsyncIterator[pb.UploadPart]) -> Path:
        """The update's path once it is complete and fit for the mean. Raises UpdateRefused."""
        if header.samples < 1:
            raise UpdateRefused("the update was trained on no samples", "Check the site's rows and the task's split.")
        if (header.kind == pb.UpdateHeader.LOCALIZED) != (header.round == 0):
            raise UpdateRefused("the update's kind does not fit its round: 0 is for localized states only")
        if not math.isfinite(header.metrics.get("loss", math.nan)):
            raise UpdateRefused("the update's metrics lack a finite loss")
        link = self._links[header.site]
        # A name of its own: a further attempt must not touch what was accepted.
        path = runner.spool_dir / f"{header.site}-{header.round}-{secrets.token_hex(4)}.safetensors"
        spool = Spool(path, num_bytes=header.num_bytes, sha256=header.sha256, max_bytes=self._config.max_update_bytes)
        with spool:
            async for part in parts:
                link.bytes_up += part.ByteSize()
                spool.add(part.chunk.offset, part.chunk.data, part.chunk.crc32)
            await asyncio.to_thread(spool.finish)
        try:
            await asyncio.to_thread(
                runner.publisher.check_update, path, whole=header.kind == pb.UpdateHeader.DIFFERENCE
            )
        except UpdateRefused:
            path.unlink()
            raise
        return path

    # Launches.

    async def Launch(  # noqa: N802
        self, request: pb.LaunchRequest, context: grpc.aio.ServicerContext
    ) -> pb.LaunchReply:
        try:
            config = config_from_json(JobConfig, request.job_json)
            # In a thread: the first optimizer makes torch import for seconds, and agents must be heard meanwhile.
            await asyncio.to_thread(self._check_launch, config)
        except GeotrainError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        job_id = f"{config.task.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        if self._running is not None and self._queue.qsize() >= self._config.max_queued_jobs:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._queue.qsize()} jobs are waiting already (max_queued_jobs); launch again when one has ended",
            )
        runner = self._runner(job_id, config)
        try:
            await asyncio.to_thread(runner.ledger.launch, asdict(config))
        except GeotrainError as error:
            await context.abort(grpc.StatusCode.INTERNAL, f"the job could not be noted in the view: {error}")
        self._queue.put_nowait(runner)
        self._jobs[job_id] = runner
        logger.info("job %s launched: %d rounds at %s", job_id, config.rounds, ", ".join(config.sites))
        return pb.LaunchReply(job=job_id)

    def _check_launch(self, config: JobConfig) -> None:
        check_targets(config.task, self._config.allowed_targets)
        OuterStep(config.strategy.outer, {"w": torch.zeros(1)})
        strangers = sorted(set(config.sites) - set(self._config.sites)) if self._config.sites else []
        if strangers:
            raise GeotrainError(
                f"sites: {', '.join(strangers)} unknown to this coordinator",
                f"Choose from its sites: {', '.join(self._config.sites)}.",
            )

    async def Follow(  # noqa: N802
        self, request: pb.FollowRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.JobEvent]:
        try:
            runner = self._jobs.get(request.job) or await self._past(request.job)
        except GeotrainError as error:
            await context.abort(grpc.StatusCode.INTERNAL, f"job {request.job} can't be read: {error}")
        if runner is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no job {request.job!r} was launched here")
        async for event in runner.follow():
            yield event
