"""The jobs that this site works on: the messages of each in order, several jobs at once. Knows no gRPC call.

A job's worker outlives the stream that its messages came by: what it has begun it ends, and keeps.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geotrain.errors import GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.view.connect import View
from site_agent.compute import Compute
from site_agent.config import SiteAgentConfig
from site_agent.held import HeldUpdates, Update
from site_agent.outlet import Outlet
from site_agent.work import JobWork, Report

logger = logging.getLogger(__name__)

# A coordinator works on one phase of a job at a time; more messages than this mean that it is not ours to trust.
MAX_MESSAGES = 64
# As many jobs as a coordinator runs by default, several times over.
MAX_WAITING = 64

# So long a site does one thing before it tells: a step of a fast round is over sooner, and telling it took longer.
TELL_AFTER_S = 0.1

IDLE = pb.Progress(phase="idle", loss=math.nan)


class Worker:
    """One job at this site.

    outlet: the stream by which it was prepared last. freed: called when it has done what it was asked. progress: what
    it does now. is_paused: as its coordinator said.
    """

    def __init__(self, work: JobWork, outlet: Outlet, freed: Callable[[], None]) -> None:
        self.outlet = outlet
        self._freed = freed
        self.progress = pb.Progress(job=work.id, phase="idle", loss=math.nan)
        self.is_paused = False
        self.is_busy = False
        self._work = work
        self._messages: asyncio.Queue[tuple[str, Any, Outlet]] = asyncio.Queue(MAX_MESSAGES)
        self._running = asyncio.create_task(self._run())
        self._telling: asyncio.Task[None] | None = None

    def is_occupied(self, outlet: Outlet) -> bool:
        """Whether it works, or may be asked to at any moment."""
        return self.is_busy or (self.outlet is outlet and not self.is_paused)

    async def take(self, kind: str, body: Any, outlet: Outlet) -> None:
        """Have a message handled after those before it. Waits while there are too many: then nothing more is read."""
        if kind == "prepare":
            self.outlet, self.is_paused = outlet, False
        elif kind == "job_paused":
            self.is_paused = True
        await self._messages.put((kind, body, outlet))

    async def end(self) -> None:
        """Stop at once, whatever is under way, and forget the job."""
        tasks = [task for task in (self._running, self._telling) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._work.end)

    async def _run(self) -> None:
        while True:
            kind, body, outlet = await self._messages.get()
            if not outlet.is_open:
                continue  # what it asked is asked again
            self.is_busy = True
            try:
                await self._handle(kind, body, outlet)
            except GeotrainError as error:
                logger.warning("%s of job %s failed: %s", kind, body.job, error)
                await outlet.send(failed(kind, body, str(error)))
            except Exception as error:
                # A bug ends this site's part in the round, not its daemon.
                logger.exception("%s of job %s", kind, body.job)
                await outlet.send(failed(kind, body, f"internal error: {error!r}"))
            self.is_busy = False
            self._show(self._work.progress("idle", getattr(body, "round", 0)), outlet)
            self._freed()

    async def _handle(self, kind: str, body: Any, outlet: Outlet) -> None:
        """Do what the message asks, in a thread, and send what comes of it."""
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
                await outlet.upload(report, self._note)
            elif isinstance(report, pb.Progress):
                self._show(report, outlet)
            else:
                await outlet.send(report)
        await working

    def _show(self, progress: pb.Progress, outlet: Outlet) -> None:
        """Say what it does now, to whoever asks and soon to the coordinator."""
        self.progress = progress
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell(outlet))

    async def _tell(self, outlet: Outlet) -> None:
        await asyncio.sleep(TELL_AFTER_S)
        told = None
        while told is not self.progress:  # it may have gone on while the message was on its way
            told = self.progress
            await outlet.send(pb.FromAgent(progress=told))

    def _note(self, note: str) -> None:
        self.progress.note = note


class SiteJobs:
    """Every job of which this agent knows."""

    def __init__(self, config: SiteAgentConfig, view: View, compute: Compute) -> None:
        self._config = config
        self._view = view
        self._compute = compute
        self._held = HeldUpdates(Path(config.site.spool_dir), config.site.name)
        self._workers: dict[str, Worker] = {}
        self._waiting: dict[str, tuple[pb.Prepare, Outlet]] = {}
        self._admitting = asyncio.Lock()
        self._steps: set[asyncio.Task[None]] = set()

    def known(self) -> list[str]:
        """The jobs of which something is kept here."""
        return sorted({*self._workers, *self._held.jobs()})

    def progress(self) -> list[pb.Progress]:
        """What this site does now: a message a job, or that it is idle."""
        return [worker.progress for worker in self._workers.values()] or [IDLE]

    async def take(self, message: pb.ToAgent, outlet: Outlet) -> None:
        """Have a message of the coordinator handled; the answers go to `outlet`."""
        kind = message.WhichOneof("body")
        if kind is None:
            return  # of a newer coordinator
        body = getattr(message, kind)
        worker = self._workers.get(body.job)
        if kind in ("job_ended", "job_paused"):
            self._waiting.pop(body.job, None)
        if kind == "job_ended":
            await self._end(body)
        elif worker is not None:
            await worker.take(kind, body, outlet)
        elif kind == "prepare":
            await self._wait(body, outlet)
        elif kind not in ("round_committed", "job_paused"):
            await outlet.send(failed(kind, body, f"job {body.job} was not prepared by this agent"))

    async def _admit(self) -> None:
        """Begin the jobs that wait, in the order in which they came, as long as there are places."""
        async with self._admitting:
            while self._waiting:
                job, waits = next(iter(self._waiting.items()))
                request, outlet = waits
                if outlet.is_open and not await self._has_place(outlet):
                    return
                if self._waiting.get(job) is waits:  # else it has ended, or was asked for anew, while room was made
                    del self._waiting[job]
                    if outlet.is_open:
                        await self._begin(request, outlet)

    async def _has_place(self, outlet: Outlet) -> bool:
        """Whether one more job may begin. Those that are paused, or of whose end we did not hear, make room; their
        updates are kept."""
        occupied = [one for one in self._workers.values() if one.is_occupied(outlet)]
        if len(occupied) >= self._config.site.max_jobs:
            return False
        stale = [job for job, one in self._workers.items() if one not in occupied]
        for job in stale[: max(0, len(self._workers) + 1 - self._config.site.max_jobs)]:
            logger.info("job %s makes room", job)
            await self._workers.pop(job).end()
            await outlet.send(pb.FromAgent(progress=pb.Progress(job=job, phase="idle", loss=math.nan)))  # its last word
        return True

    async def _begin(self, request: pb.Prepare, outlet: Outlet) -> None:
        try:
            work = JobWork(request, self._config, self._view, self._compute, self._held)
        except GeotrainError as error:
            await outlet.send(failed("prepare", request, str(error)))
            return
        self._workers[request.job] = Worker(work, outlet, self._freed)
        await self._workers[request.job].take("prepare", request, outlet)

    def _freed(self) -> None:
        """A worker may have become one that makes room."""
        if self._waiting:
            task = asyncio.create_task(self._admit())
            self._steps.add(task)
            task.add_done_callback(self._steps.discard)

    async def _wait(self, request: pb.Prepare, outlet: Outlet) -> None:
        """Have a job begin as soon as there is a place."""
        if len(self._waiting) >= MAX_WAITING and request.job not in self._waiting:
            reason = f"{len(self._waiting)} jobs wait for a place at this site already"
            await outlet.send(failed("prepare", request, reason))
            return
        self._waiting[request.job] = request, outlet
        await self._admit()
        if request.job in self._waiting:
            max_jobs = self._config.site.max_jobs
            reason = f"it waits for a place: this site works on {max_jobs} of {max_jobs} jobs (site.max_jobs)"
            logger.info("job %s: %s", request.job, reason)
            await outlet.send(pb.FromAgent(waiting=pb.Waiting(job=request.job, reason=reason)))

    async def _end(self, ended: pb.JobEnded) -> None:
        worker = self._workers.pop(ended.job, None)
        if worker is not None:
            await worker.end()
        await asyncio.to_thread(self._held.drop, ended.job)
        logger.info("job %s %s: %s", ended.job, ended.status, ended.reason)
        self._freed()


def failed(kind: str, body: Any, reason: str) -> pb.FromAgent:
    return pb.FromAgent(failed=pb.Failed(job=body.job, round=getattr(body, "round", 0), reason=reason, asked=kind))
