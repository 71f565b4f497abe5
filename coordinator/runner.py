"""Runs one job: feeds events to its state machine and performs the instructions. Decides nothing itself."""

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from coordinator import events, history, instructions
from coordinator.config import JobConfig
from coordinator.events import Event
from coordinator.facts import CommitFacts, CutFacts, JobFacts, RoundFacts, proof
from coordinator.instructions import Instruction
from coordinator.job import Job, Rules
from coordinator.ledger import Ledger, TakenOver
from coordinator.links import Links
from coordinator.publisher import Publisher, metrics, weights
from geotrain.errors import GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.tasks.features import Statistics
from geotrain.view.connect import Conflict, View

logger = logging.getLogger(__name__)

TICK_S = 0.5
MAX_EVENTS = 10_000


class JobRunner:
    """One job to its end, from its launch or from where another coordinator left it.

    view: where states and the ledger go. links: the connected agents. spool_dir: this job's own folder.
    """

    def __init__(
        self, job_id: str, config: JobConfig, *, view: View, links: Links, spool_dir: Path, allowed: list[str]
    ) -> None:
        self.id = job_id
        self.config = config
        self.spool_dir = spool_dir
        self.ledger = Ledger(view, job_id)
        self.publisher = Publisher(job_id, config, view=view, ledger=self.ledger, allowed=allowed)
        self.history: list[pb.JobEvent] = []
        self.ended = False
        self._happened = asyncio.Event()
        self._view = view
        self._links = links
        self._events: asyncio.Queue[Event] = asyncio.Queue(MAX_EVENTS)
        self._round = RoundFacts(round=0)
        self._bytes_at_commit = (0, 0)

    def offer(self, event: Event) -> None:
        """Take an event for the job. Dropped, and said so, when the job is hopelessly behind."""
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            logger.error("job %s: dropped %s, %d events are waiting", self.id, event, MAX_EVENTS)

    def progress(self, site: str, progress: pb.Progress) -> None:
        """Show a site's progress to those who follow. Byte counts are the coordinator's own."""
        if site in self._links:
            progress.bytes_up = self._links[site].bytes_up
            progress.bytes_down = self._links[site].bytes_down + self.publisher.state_bytes
        self._emit(pb.JobEvent(time_s=time.time(), site=pb.SiteEvent(site=site, progress=progress)))

    async def follow(self) -> AsyncIterator[pb.JobEvent]:
        """Everything that happened so far, then what happens next, until the job's end."""
        position = 0
        while True:
            while position < len(self.history):
                yield self.history[position]
                position += 1
            if self.ended:
                return
            await self._happened.wait()

    def tell(self, facts: JobFacts) -> None:
        """Show those who follow what the ledger says, unless they have seen it happen."""
        if self.history:
            return
        for event in history.told(
            facts, self.config, consistency=self._view.consistency, num_racks=self._view.num_racks
        ):
            self.ended = self.ended or event.HasField("ended")
            self._emit(event)

    async def run(self) -> None:
        """Run the job to its end; what goes wrong is its reason to fail. Cancelled, it is left to who takes it next."""
        try:
            while True:
                try:
                    facts = await asyncio.to_thread(self.ledger.take)
                    await asyncio.to_thread(self._restore, facts)
                    ended = await self._loop(facts)
                    break
                except Conflict as error:
                    # What a coordinator before us sent may have been applied only now.
                    logger.warning("job %s: %s; going on from what the ledger says", self.id, error.what)
        except TakenOver as error:
            logger.error("job %s: %s", self.id, error)
            self._end(pb.JobEnded(job=self.id, finished=False, reason=error.what))
            return
        except GeotrainError as error:
            ended = pb.JobEnded(job=self.id, finished=False, reason=str(error))
        except Exception as error:
            # A bug ends this job with its story, not the daemon.
            logger.exception("job %s", self.id)
            ended = pb.JobEnded(job=self.id, finished=False, reason=f"internal error: {error!r}")
        await self.finish(ended)

    def _restore(self, facts: JobFacts) -> None:
        # Sites keep what they sent until the ledger says that it counts: they are asked again.
        shutil.rmtree(self.spool_dir, ignore_errors=True)
        self.publisher.restore(facts)
        self._round = facts.rounds[-1] if facts.rounds else RoundFacts(round=0)
        if self._round.cut:
            self.publisher.use_cut(self._round)

    async def _loop(self, facts: JobFacts) -> pb.JobEnded:
        rules = Rules(
            sites=tuple(sorted(self.config.sites)),
            min_sites=self.config.min_sites,
            rounds=self.config.rounds,
            gather_deadline_s=self.config.gather_deadline_s,
            phase_deadline_s=self.config.phase_deadline_s,
            skew_margin_s=self.config.skew_margin_s,
        )
        job = Job(rules, now_s=time.time(), facts=facts)
        self.tell(facts)
        if job.round:
            logger.info("job %s: goes on in round %d, base version %d", self.id, job.round, job.base_version)
        self._bytes_at_commit = self._bytes_now()
        self._events = asyncio.Queue(MAX_EVENTS)
        for site in self._links:
            self.offer(events.SiteJoined(site))
        said = ""
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), TICK_S)
            except TimeoutError:
                event = events.Tick()
            pending = job.handle(event, now_s=time.time())
            while pending:
                instruction = pending.pop(0)
                logger.debug("job %s: %s", self.id, type(instruction).__name__)
                if isinstance(instruction, instructions.End):
                    if not instruction.finished:
                        logger.warning("job %s, what led to its end:\n  %s", self.id, "\n  ".join(job.story))
                    return pb.JobEnded(job=self.id, finished=instruction.finished, reason=instruction.reason)
                answer = await self._perform(instruction)
                if answer is not None:
                    pending += job.handle(answer, now_s=time.time())
            if job.reason != said:
                said = job.reason
                logger.info("job %s: round %d %s: %s", self.id, job.round, job.phase, said)

    async def _perform(self, instruction: Instruction) -> Event | None:
        """Do what the machine asks; the answer, where there is one at once, is its next event."""
        match instruction:
            case instructions.Prepare(site):
                prepare = pb.Prepare(job=self.id, task_json=self.config.task.to_json(), seed=self.config.seed)
                self._links.send((site,), pb.ToAgent(prepare=prepare))
            case instructions.ScanCut():
                await self._scan_cut(instruction)
            case instructions.ListCutRows(sites, number, partitions):
                sets = [pb.SetPartitions(set=name, partitions=pids) for name, pids in partitions.items()]
                self._links.send(sites, pb.ToAgent(list_cut_rows=pb.ListCutRows(job=self.id, round=number, sets=sets)))
            case instructions.DecideCut():
                await self._decide_cut(instruction)
            case instructions.AskStatistics(sites, number):
                message = pb.ReportStatistics(job=self.id, round=number)
                self._links.send(sites, pb.ToAgent(report_statistics=message))
            case instructions.PublishInitial(statistics):
                return await self._publish_initial(statistics)
            case instructions.Train(sites, number, base_version):
                self._links.send(
                    sites, pb.ToAgent(train=pb.Train(job=self.id, round=number, base_version=base_version))
                )
            case instructions.PublishRound():
                return await self._publish_round(instruction)
            case instructions.Localize(sites, base_version):
                localize = pb.Localize(job=self.id, base_version=base_version, rounds=self.config.rounds)
                self._links.send(sites, pb.ToAgent(localize=localize))
            case instructions.PublishLocalized():
                return await self._publish_localized(instruction)
        return None

    async def _scan_cut(self, scan: instructions.ScanCut) -> None:
        if scan.round != self._round.round:  # else it is the cut of a round that the ledger knows already
            self._round = RoundFacts(
                round=scan.round,
                base_version=scan.base_version,
                until_ns=scan.until_ns,
                sites=scan.sites,
                opened_s=time.time(),
            )
            await asyncio.to_thread(self.ledger.round, self._round)
        message = pb.ScanCut(job=self.id, round=scan.round, until_ns=scan.until_ns)
        self._links.send(scan.sites, pb.ToAgent(scan_cut=message))

    async def _decide_cut(self, decided: instructions.DecideCut) -> None:
        cut = CutFacts(
            decided_s=time.time(),
            rows=decided.rows,
            dropped=sum(len(digests) for digests in decided.drop.values()),
            equal=decided.equal,
            proof=proof(decided.fingerprints),
        )
        if self._round.commit is None:  # else sites come late to localize, and the ledger has it
            self._round = replace(self._round, cut=cut)
            await asyncio.to_thread(self.ledger.round, self._round)
            self._emit(history.cut_event(decided.round, cut))
        self.publisher.use_cut(replace(self._round, cut=cut))
        drop = [
            pb.SetDigests(set=name, digests=np.ascontiguousarray(digests).tobytes())
            for name, digests in decided.drop.items()
        ]
        message = pb.CutDecided(job=self.id, round=decided.round, drop=drop)
        self._links.send(decided.sites, pb.ToAgent(cut_decided=message))

    async def _publish_initial(self, statistics: Mapping[str, Statistics]) -> events.Published:
        version = await asyncio.to_thread(self.publisher.initial, statistics)
        first = RoundFacts(round=0, commit=CommitFacts(committed_s=time.time(), version=version))
        await asyncio.to_thread(self.publisher.commit, first)
        return events.Published(version)

    async def _publish_round(self, instruction: instructions.PublishRound) -> events.Published:
        updates = instruction.updates
        version = await asyncio.to_thread(self.publisher.reduce, instruction.round, updates)
        bytes_now = self._bytes_now()
        commit = CommitFacts(
            committed_s=time.time(),
            version=version,
            weights=weights(updates),
            metrics=metrics(updates),
            seconds=instruction.seconds,
            bytes_up=max(0, bytes_now[0] - self._bytes_at_commit[0]),
            bytes_down=max(0, bytes_now[1] - self._bytes_at_commit[1]),
            reason=instruction.reason,
        )
        self._bytes_at_commit = bytes_now
        self._round = replace(self._round, commit=commit)
        await asyncio.to_thread(self.publisher.commit, self._round)
        for update in updates:
            update.path.unlink()
        message = pb.RoundCommitted(job=self.id, round=instruction.round, version=version)
        self._links.send(tuple(update.site for update in updates), pb.ToAgent(round_committed=message))
        self._emit(history.round_event(self._round))
        return events.Published(version)

    def _bytes_now(self) -> tuple[int, int]:
        """Bytes up and down, of the job's sites that are connected, since they joined."""
        links = [self._links[site] for site in self.config.sites if site in self._links]
        state_bytes = self.publisher.state_bytes
        return sum(link.bytes_up for link in links), sum(link.bytes_down + state_bytes for link in links)

    async def _publish_localized(self, instruction: instructions.PublishLocalized) -> events.LocalizedPublished:
        update = instruction.update
        facts = await asyncio.to_thread(self.publisher.localized, update, instruction.base_version)
        update.path.unlink()
        self._emit(history.localized_event(facts, self.config.task.name))
        return events.LocalizedPublished(update.site)

    async def finish(self, ended: pb.JobEnded) -> None:
        """End the job, and say so."""
        status = "finished" if ended.finished else "failed"
        logger.info("job %s %s: %s", self.id, status, ended.reason)
        try:
            await asyncio.to_thread(self.ledger.end, status, ended.reason)
        except GeotrainError as error:
            logger.error("job %s: its end could not be noted in the view: %s", self.id, error)
        self._links.send(tuple(self.config.sites), pb.ToAgent(job_ended=ended))
        self._end(ended)
        await asyncio.to_thread(shutil.rmtree, self.spool_dir, ignore_errors=True)

    def _end(self, ended: pb.JobEnded) -> None:
        self.ended = True
        self.publisher.release()
        self._emit(pb.JobEvent(time_s=time.time(), ended=ended))

    def _emit(self, event: pb.JobEvent) -> None:
        event.job = self.id
        if len(self.history) < MAX_EVENTS or not event.HasField("site"):
            self.history.append(event)
        happened, self._happened = self._happened, asyncio.Event()
        happened.set()
