"""Runs one job: feeds events to its state machine and performs the instructions. Decides nothing itself."""

import asyncio
import logging
import math
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from coordinator import events, history, instructions
from coordinator.config import JobConfig
from coordinator.eventlog import EventLog
from coordinator.events import Event
from coordinator.facts import JobFacts, RoundFacts
from coordinator.job import Job
from coordinator.ledger import Ledger
from coordinator.links import Links
from coordinator.performer import Performer
from coordinator.publisher import Publisher, SpoolLost
from coordinator.rules import Rules
from geotrain.errors import ConfigError, Fenced, GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc.channels import retry_delays_s
from geotrain.view.connect import View
from geotrain.view.keyed import Conflict
from geotrain.view.refusals import Refusal

logger = logging.getLogger(__name__)

Stop = instructions.End | instructions.Suspend
T = TypeVar("T")

TICK_S = 0.5
MAX_WAITING = 10_000


class JobRunner:
    """One job to its end, from its launch or from where another coordinator left it.

    facts: what the ledger says, as read or written last. machine: what decides now; None while the job does not run.
    waiting: for what it waits that no machine knows of, since waiting_since_s: the view; "" where it does not.
    control: held by who pauses, resumes or cancels it.
    progress: what each site said last. log: what happened, for those who follow.
    view: where states and the ledger go. links: the connected agents. spool_dir: this job's own folder.
    """

    def __init__(
        self,
        job_id: str,
        config: JobConfig,
        *,
        view: View,
        links: Links,
        spool_dir: Path,
        allowed: list[str],
        epoch: int,
    ) -> None:
        self.id = job_id
        self.config = config
        self.spool_dir = spool_dir
        self.ledger = Ledger(view, job_id, epoch=epoch)
        self.publisher = Publisher(job_id, config, view=view, ledger=self.ledger, allowed=allowed)
        self.facts = JobFacts()
        self.machine: Job | None = None
        self.progress: dict[str, pb.Progress] = {}
        self.log = EventLog(job_id)
        self.waiting = ""
        self.waiting_since_s = 0.0
        self.control = asyncio.Lock()
        self._asked: events.PauseAsked | events.CancelAsked | None = None
        self._view = view
        self._links = links
        self._events: asyncio.Queue[Event] = asyncio.Queue(MAX_WAITING)
        self._said = pb.PhaseEvent()

    def offer(self, event: Event) -> None:
        """Take an event for the job. Dropped, and said so, when the job is hopelessly behind."""
        if isinstance(event, events.SiteLeft):  # who comes back says what it does then
            self.progress.pop(event.site, None)
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            logger.error("job %s: dropped %s, %d events are waiting", self.id, event, MAX_WAITING)

    def ask(self, event: events.PauseAsked | events.CancelAsked) -> None:
        """Have the job stopped. It is not forgotten while the view is away."""
        self._asked = event
        self.offer(event)

    def refusal(self, header: pb.UpdateHeader) -> str | None:
        """Why an update is not taken, whatever is in it; None where it is."""
        if self.machine is None:
            return f"job {self.id} does not run now: {self.waiting or self.facts.reason or self.facts.status}"
        return self.machine.refusal(header.site, header.round) or None

    def take_progress(self, site: str, progress: pb.Progress) -> None:
        """Show a site's progress to those who follow, if it is news. Byte counts are the coordinator's own."""
        if site in self._links:
            progress.bytes_up = self._links[site].bytes_up
            progress.bytes_down = self._links[site].bytes_down + self.publisher.state_bytes
        before, self.progress[site] = self.progress.get(site), progress
        if before is not None and _news(before) == _news(progress):
            return
        self.log.add(pb.JobEvent(time_s=time.time(), site=pb.SiteEvent(site=site, progress=progress)))

    def tell(self, facts: JobFacts) -> None:
        """Show those who follow what the ledger says, unless they have seen it happen."""
        self.facts = facts
        if self.log.num_events:
            return
        for event in history.told(
            facts, self.config, consistency=self._view.consistency, num_racks=self._view.num_racks
        ):
            self.log.add(event)

    async def settle(self) -> None:
        """Keep leaders before this one from writing of this job, and finish what they began behind a commit."""
        facts = await asyncio.to_thread(self.ledger.fence)
        await asyncio.to_thread(self.publisher.settle, facts)
        self.tell(facts)

    async def requeue(self) -> None:
        """Note that a paused job may go on. Raises ViewError or Fenced."""
        await asyncio.to_thread(self.ledger.config)  # its record as it is now
        await asyncio.to_thread(self.ledger.note, "queued", "")
        logger.info("job %s is resumed", self.id)

    async def run(self) -> None:
        """Run the job until it ends or is paused. Cancelled or fenced, it is left to who takes it next."""
        try:
            try:
                stopped = await self._patiently(self._go_on)
            except Fenced:
                raise
            except GeotrainError as error:
                stopped = instructions.End("failed", str(error))
            except Exception as error:
                # A bug ends this job with its story, not the daemon.
                logger.exception("job %s", self.id)
                stopped = instructions.End("failed", f"internal error: {error!r}")
            await self._patiently(lambda: self.stop(stopped))
        except Fenced as error:
            logger.warning("job %s: %s; it goes on there", self.id, error.what)
            self._let_go()

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do it, and again while the view is away or has changed under it, in bounded steps."""
        delays_s = retry_delays_s()
        while True:
            try:
                return await step()
            except (Conflict, Refusal, SpoolLost) as error:
                if not self.waiting:
                    self.waiting_since_s = time.time()
                where = "its spool" if isinstance(error, SpoolLost) else "the view"
                self.waiting = f"waiting for {where}: {error.what}"
                logger.warning("job %s: %s; going on from what the ledger says", self.id, error.what)
                self.machine = None
                self._say(self._round.round, "waiting", self.waiting)
            await asyncio.sleep(next(delays_s))

    async def _go_on(self) -> Stop:
        """From what the ledger says on, until the job ends or is paused."""
        facts = await asyncio.to_thread(self.ledger.take)
        try:
            await asyncio.to_thread(self._restore, facts)
        except ConfigError as error:
            return instructions.Suspend(f"it can't go on: {error}")
        self.waiting = ""
        return await self._loop(facts)

    def _restore(self, facts: JobFacts) -> None:
        # Sites keep what they sent until the ledger says that it counts: they are asked again.
        shutil.rmtree(self.spool_dir, ignore_errors=True)
        self.publisher.settle(facts)
        self.publisher.restore(facts)
        self.facts = facts
        if self._round.cut:
            self.publisher.use_cut(self._round)

    @property
    def _round(self) -> RoundFacts:
        """The newest round that the ledger knows."""
        return self.facts.rounds[-1] if self.facts.rounds else RoundFacts(round=0)

    async def _loop(self, facts: JobFacts) -> Stop:
        job = self.machine = Job(Rules.of(self.config), now_s=time.monotonic(), facts=facts)
        self.tell(facts)
        if job.round:
            logger.info("job %s: goes on in round %d, base version %d", self.id, job.round, job.base_version)
        performer = Performer(self.id, self.config, self.ledger, self.publisher, self._links, self.log)
        self._events = asyncio.Queue(MAX_WAITING)
        for site in self._links:
            self.offer(events.SiteJoined(site))
        if self._asked:
            self.offer(self._asked)
        while True:
            self._say(job.round, job.phase, job.reason)
            try:
                async with asyncio.timeout(TICK_S):
                    event = await self._events.get()
            except TimeoutError:
                event = events.Tick()
            pending = job.handle(event, now_s=time.monotonic())
            while pending:
                instruction = pending.pop(0)
                logger.debug("job %s: %s", self.id, type(instruction).__name__)
                self._say(job.round, job.phase, job.reason)
                if isinstance(instruction, Stop):
                    if isinstance(instruction, instructions.End) and not instruction.finished:
                        logger.warning("job %s, what led to its end:\n  %s", self.id, "\n  ".join(job.story))
                    return instruction
                self.facts, answer = await performer.perform(instruction, self.facts)
                if answer is not None:
                    pending += job.handle(answer, now_s=time.monotonic())

    def _say(self, number: int, phase: str, reason: str) -> None:
        """Tell where the job stands, when that has changed."""
        stands = pb.PhaseEvent(round=number, phase=str(phase), reason=reason)
        if stands != self._said:
            self._said = stands
            logger.info("job %s: round %d %s: %s", self.id, number, phase, reason)
            self.log.add(pb.JobEvent(time_s=time.time(), phase=stands))

    async def stop(self, stopped: Stop) -> None:
        """Note that the job is paused or has ended, then tell its sites. Raises ViewError or Fenced."""
        status = "paused" if isinstance(stopped, instructions.Suspend) else stopped.status
        await asyncio.to_thread(self.ledger.config)  # its record as it is now
        await asyncio.to_thread(self.ledger.note, status, stopped.reason)
        logger.info("job %s %s: %s", self.id, status, stopped.reason)
        self.facts = replace(self.facts, status=status, reason=stopped.reason, since_s=time.time())
        self._let_go()
        # What was paused begins with what the sites keep.
        await asyncio.to_thread(shutil.rmtree, self.spool_dir, ignore_errors=True)
        if isinstance(stopped, instructions.Suspend):
            paused = pb.JobPaused(job=self.id, reason=stopped.reason)
            self._links.send(tuple(self.config.sites), pb.ToAgent(job_paused=paused))
            self._say(self._round.round, status, stopped.reason)
        else:
            ended = pb.JobEnded(job=self.id, status=status, reason=stopped.reason)
            self._links.send(tuple(self.config.sites), pb.ToAgent(job_ended=ended))
            self.facts = replace(self.facts, ended_s=self.facts.since_s)
            self.log.add(pb.JobEvent(time_s=self.facts.ended_s, ended=ended))

    def _let_go(self) -> None:
        """Of all that only a running job needs."""
        self.machine, self._asked, self.waiting = None, None, ""
        self.publisher.release()


def _news(progress: pb.Progress) -> tuple[object, ...]:
    """What makes a site's progress worth telling: heartbeats alone move the last bytes."""
    loss = None if math.isnan(progress.loss) else progress.loss
    counts = progress.bytes_up >> 20, progress.bytes_down >> 20
    return progress.phase, progress.round, progress.rows, loss, progress.note, *counts
