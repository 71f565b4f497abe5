"""The jobs of one term of a leader: launched, taken up again from the ledger, run, stopped. Knows no stream, no phase.

Several run at once, one of a model at a time: two would publish their versions between one another.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from coordinator import events, instructions
from coordinator.config import CoordinatorConfig, JobConfig
from coordinator.events import Event
from coordinator.ledger import UNFINISHED, Ledger, listed, unfinished
from coordinator.links import Links
from coordinator.reduce import OuterStep
from coordinator.requests import REQUEST_ID, new_request_id
from coordinator.runner import JobRunner
from geotrain.errors import ConfigError, GeotrainError
from geotrain.program import config_from_json
from geotrain.tasks.targets import check_targets
from geotrain.updates.chunks import clear
from geotrain.view.connect import View
from geotrain.view.keyed import Conflict

logger = logging.getLogger(__name__)

T = TypeVar("T")
Action = Literal["pause", "resume", "cancel"]

# Jobs that have ended are told from memory so many; others are read from the ledger.
MAX_ENDED = 16
# Of those so many are listed.
MAX_LISTED = 100


class TooManyJobs(GeotrainError):
    """A launch that would have to wait behind more jobs than may."""


class NoSuchJob(GeotrainError):
    """The view has no such job."""


class Jobs:
    """Every job that this leader knows: those that run, wait, are paused or have ended lately.

    view: where states and the ledger go. links: the agents that are connected. epoch: of the term.
    runners: by job, in the order in which they came to be known.
    """

    def __init__(self, config: CoordinatorConfig, view: View, links: Links, *, epoch: int) -> None:
        self.runners: dict[str, JobRunner] = {}
        self._config = config
        self._view = view
        self._links = links
        self._epoch = epoch
        self._waiting: dict[str, JobRunner] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._taking = asyncio.Lock()
        self._steps: set[asyncio.Task[Any]] = set()

    async def recover(self) -> None:
        """Take up the jobs that were left unfinished, in the order of their launches; nothing runs yet.

        What a term before this one has spooled is of no use: sites keep what they sent until it counts, and are asked
        again. Raises ViewError where they can't be read; then it may be called again. Raises Fenced.
        """
        await asyncio.to_thread(clear, Path(self._config.spool_dir))
        for job_id in await asyncio.to_thread(unfinished, self._view):
            if job_id not in self.runners:
                await self._recall(job_id)

    async def run(self) -> None:
        """Run the jobs in the order of their launches until cancelled: then they are left to whoever leads next."""
        async with asyncio.TaskGroup() as group:
            while True:
                while runner := self._next():
                    del self._waiting[runner.id]
                    self._running[runner.id] = group.create_task(self._run(runner))
                self._changed.clear()
                await self._changed.wait()

    def _next(self) -> JobRunner | None:
        """The job that may start now; None where none may."""
        if len(self._running) >= self._config.max_running_jobs:
            return None
        models = {self.runners[job_id].config.task.name for job_id in self._running}
        return next((runner for runner in self._waiting.values() if runner.config.task.name not in models), None)

    async def _run(self, runner: JobRunner) -> None:
        try:
            await runner.run()
        finally:
            del self._running[runner.id]
            self._changed.set()
            ended = [past.id for past in self.runners.values() if past.log.ended]
            for job_id in ended[: max(0, len(ended) - MAX_ENDED)]:
                del self.runners[job_id]

    def _wait(self, runner: JobRunner) -> None:
        runner.facts = replace(runner.facts, status="queued", reason="", since_s=time.time())
        self._waiting[runner.id] = runner
        self._changed.set()

    def running(self, job_id: str) -> JobRunner | None:
        """The job, where it is running here."""
        return self.runners[job_id] if job_id in self._running else None

    def tell(self, event: Event) -> None:
        """Let every running job know what happened to a site."""
        for job_id in self._running:
            self.runners[job_id].offer(event)

    async def find(self, job_id: str) -> JobRunner | None:
        """The job; also one that ended before this coordinator started; None where there is none. Raises ViewError."""
        return self.runners.get(job_id) or await self._undisturbed(self._find(job_id))

    async def _find(self, job_id: str) -> JobRunner | None:
        async with self._taking:
            return self.runners.get(job_id) or await self._recall(job_id)

    async def past(self) -> tuple[list[dict[str, Any]], int]:
        """The newest of the jobs that are in the view only, as their records have them, and how many older ones there
        are: all have ended. Raises ViewError."""
        rows = [row for row in await asyncio.to_thread(listed, self._view) if row["job"] not in self.runners]
        return rows[-MAX_LISTED:], max(0, len(rows) - MAX_LISTED)

    async def launch(self, job_json: str, request_id: str = "") -> str:
        """Note a new job, and have it run; returns its id. The same request again is the same job.

        Raises ConfigError for what is no job, TooManyJobs where it can't wait, ViewError where it can't be noted.
        """
        config = config_from_json(JobConfig, job_json)
        await asyncio.to_thread(self._check, config)
        if request_id and not REQUEST_ID.fullmatch(request_id):
            raise ConfigError(
                f"request_id must be lower-case letters, digits and -, at most 48, got {request_id!r}",
                "Launch again with another one, or with none.",
            )
        job_id = f"{config.task.name}-{request_id or new_request_id()}"
        return await self._undisturbed(self._launch(job_id, config))

    async def _launch(self, job_id: str, config: JobConfig) -> str:
        async with self._taking:
            known = self.runners.get(job_id)
            if known is None:
                num_jobs = len(self._waiting) + len(self._running)
                if num_jobs >= self._config.max_running_jobs + self._config.max_queued_jobs:
                    raise TooManyJobs(
                        f"{len(self._waiting)} jobs are waiting already (max_queued_jobs)",
                        "Launch again when one has ended.",
                    )
                runner = self._runner(job_id, config)
                try:
                    await asyncio.to_thread(runner.ledger.launch, asdict(config))
                except Conflict:
                    known = await self._recall(job_id)
                else:
                    runner.tell(await asyncio.to_thread(runner.ledger.facts))
                    self.runners[job_id] = runner
                    self._wait(runner)
                    logger.info("job %s launched: %d rounds at %s", job_id, config.rounds, ", ".join(config.sites))
        if known is not None and known.config != config:
            raise ConfigError(
                f"request_id: job {job_id} was launched with another configuration",
                "Launch it under a request id of its own.",
            )
        return job_id

    async def control(self, job_id: str, action: Action, reason: str) -> tuple[str, str]:
        """Pause, resume or cancel a job; returns its status and the reason once the ledger says so.

        What changes nothing is no error. Raises NoSuchJob; ViewError where it can't be noted; ConfigError where a job
        can't be resumed here.
        """
        runner = await self.find(job_id)
        if runner is None:
            raise NoSuchJob(f"no job {job_id!r} was launched on this view", "See which there are with `geotrain jobs`.")
        await self._undisturbed(self._control(runner, action, reason))
        return runner.facts.status, runner.facts.reason

    async def _control(self, runner: JobRunner, action: Action, reason: str) -> None:
        async with runner.control:
            stop = instructions.Suspend(reason) if action == "pause" else instructions.End("cancelled", reason)
            if runner.log.ended:
                return
            if action == "resume":
                if runner.facts.status == "paused":
                    await asyncio.to_thread(self._check, runner.config)
                    await runner.requeue()
                    self._wait(runner)
            elif task := self._running.get(runner.id):
                runner.ask(events.PauseAsked(reason) if action == "pause" else events.CancelAsked(reason))
                await asyncio.wait([task])
            elif action == "cancel" or runner.facts.status != "paused":
                waited = self._waiting.pop(runner.id, None)
                try:
                    await runner.stop(stop)
                except GeotrainError:
                    if waited:
                        self._wait(waited)
                    raise

    async def _recall(self, job_id: str) -> JobRunner | None:
        """The job as the ledger has it; None where it has none that can be told here. An unfinished one goes on."""
        ledger = Ledger(self._view, job_id, epoch=self._epoch)
        text = await asyncio.to_thread(ledger.config)
        if text is None:
            return None
        facts = await asyncio.to_thread(ledger.facts)
        try:
            config = config_from_json(JobConfig, text)
        except GeotrainError as error:
            if facts.status in UNFINISHED:
                logger.error("job %s: its configuration can't be read: %s", job_id, error)
                await asyncio.to_thread(ledger.note, "failed", f"its configuration can't be read: {error}")
            return None
        runner = self._runner(job_id, config)
        if facts.status not in UNFINISHED:
            runner.tell(facts)
            return runner
        await runner.settle()
        self.runners[job_id] = runner
        try:
            await asyncio.to_thread(self._check, config)
        except GeotrainError as error:
            logger.error("job %s can't go on here: %s", job_id, error)
            await runner.stop(instructions.Suspend(f"it can't go on here: {error}"))
        if runner.facts.status != "paused":
            logger.info("job %s was left unfinished, and goes on", job_id)
            self._wait(runner)
        return runner

    def _runner(self, job_id: str, config: JobConfig) -> JobRunner:
        return JobRunner(
            job_id,
            config,
            view=self._view,
            links=self._links,
            spool_dir=Path(self._config.spool_dir) / job_id,
            allowed=self._config.allowed_targets,
            epoch=self._epoch,
        )

    def _check(self, config: JobConfig) -> None:
        """Raise ConfigError unless the job may run here. Not on the loop: torch.optim is slow to import."""
        check_targets(config.task, self._config.allowed_targets)
        OuterStep.check(config.strategy.outer)
        strangers = sorted(set(config.sites) - set(self._config.sites)) if self._config.sites else []
        if strangers:
            raise ConfigError(
                f"sites: {', '.join(strangers)} unknown to this coordinator",
                f"Choose from its sites: {', '.join(self._config.sites)}.",
            )

    async def _undisturbed(self, step: Coroutine[Any, Any, T]) -> T:
        """Do it to its end, though who asked may hang up: the view and the memory must say the same."""
        task = asyncio.create_task(step)
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        return await asyncio.shield(task)
