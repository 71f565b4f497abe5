"""Runs one job: feeds events to its state machine and performs the instructions. Decides nothing itself."""

import asyncio
import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from coordinator import events, instructions
from coordinator.config import JobConfig
from coordinator.events import Event
from coordinator.instructions import Instruction
from coordinator.job import Job, Rules
from coordinator.ledger import Ledger
from coordinator.links import Links
from coordinator.reduce import OuterStep, weighted_mean
from geotrain.errors import GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.states.publish import publish
from geotrain.tasks.features import Encoding, Statistics
from geotrain.tasks.model import build_model
from geotrain.updates.checks import check
from geotrain.updates.codec import decode_file
from geotrain.view.connect import View

logger = logging.getLogger(__name__)

TICK_S = 0.5
MAX_EVENTS = 10_000


class JobRunner:
    """One job from its launch to its end.

    view: where states and the ledger go. links: the connected agents. spool_dir: this job's own folder.
    """

    def __init__(
        self, job_id: str, config: JobConfig, *, view: View, links: Links, spool_dir: Path, allowed: list[str]
    ) -> None:
        self.id = job_id
        self.config = config
        self.spool_dir = spool_dir
        self.model: dict[str, torch.Tensor] = {}
        self.history: list[pb.JobEvent] = []
        self.ended = False
        self._happened = asyncio.Event()
        self._view = view
        self._links = links
        self._allowed = allowed
        self._ledger = Ledger(view, job_id)
        self._events: asyncio.Queue[Event] = asyncio.Queue(MAX_EVENTS)
        self._metadata: dict[str, str] = {}
        self._outer: OuterStep | None = None
        self._cut_lineage: dict[str, str] = {}
        self._bytes_at_commit = (0, 0)
        self._state_bytes = 0
        config_json = json.dumps(asdict(config), sort_keys=True)
        self._config_hash = hashlib.sha256(config_json.encode()).hexdigest()

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
            progress.bytes_down = self._links[site].bytes_down + self._state_bytes
        self._emit(pb.JobEvent(site=pb.SiteEvent(site=site, progress=progress)))

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

    async def run(self) -> pb.JobEnded:
        """Run the job to its end. Never raises: what goes wrong is the job's reason to fail."""
        try:
            await asyncio.to_thread(self._ledger.job, "running", "", asdict(self.config))
            ended = await self._loop()
        except GeotrainError as error:
            ended = pb.JobEnded(job=self.id, finished=False, reason=str(error))
        except asyncio.CancelledError:
            await self._finish(pb.JobEnded(job=self.id, finished=False, reason="the coordinator was stopped"))
            raise
        except Exception as error:
            # A bug ends this job with its story, not the daemon.
            logger.exception("job %s", self.id)
            ended = pb.JobEnded(job=self.id, finished=False, reason=f"internal error: {error!r}")
        await self._finish(ended)
        return ended

    async def _loop(self) -> pb.JobEnded:
        rules = Rules(
            sites=tuple(sorted(self.config.sites)),
            min_sites=self.config.min_sites,
            rounds=self.config.rounds,
            gather_deadline_s=self.config.gather_deadline_s,
            phase_deadline_s=self.config.phase_deadline_s,
            skew_margin_s=self.config.skew_margin_s,
        )
        job = Job(rules, now_s=time.time())
        self._emit(
            pb.JobEvent(
                started=pb.JobStarted(
                    sites=rules.sites,
                    rounds=rules.rounds,
                    consistency=self._view.consistency,
                    racks=self._view.num_racks,
                )
            )
        )
        self._bytes_at_commit = self._bytes_now()
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
                await self._open_round(instruction)
            case instructions.ListCutRows(sites, number, partitions):
                sets = [pb.SetPartitions(set=name, partitions=pids) for name, pids in partitions.items()]
                self._links.send(sites, pb.ToAgent(list_cut_rows=pb.ListCutRows(job=self.id, round=number, sets=sets)))
            case instructions.DecideCut():
                self._decide_cut(instruction)
            case instructions.AskStatistics(sites, number):
                message = pb.ReportStatistics(job=self.id, round=number)
                self._links.send(sites, pb.ToAgent(report_statistics=message))
            case instructions.PublishInitial(statistics):
                return events.Published(await asyncio.to_thread(self._publish_initial, statistics))
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

    async def _open_round(self, instruction: instructions.ScanCut) -> None:
        await asyncio.to_thread(
            self._ledger.open_round,
            instruction.round,
            base_version=instruction.base_version,
            until_ns=instruction.until_ns,
            sites=instruction.sites,
        )
        task = self.config.task
        unproven = {name: "looked up, not proven" for name in task.view if name not in task.proven()}
        self._cut_lineage = {"until_ns": str(instruction.until_ns), **unproven}
        message = pb.ScanCut(job=self.id, round=instruction.round, until_ns=instruction.until_ns)
        self._links.send(instruction.sites, pb.ToAgent(scan_cut=message))

    def _decide_cut(self, cut: instructions.DecideCut) -> None:
        dropped = sum(len(digests) for digests in cut.drop.values())
        self._cut_lineage |= {
            name: hashlib.sha256(fingerprints.tobytes()).hexdigest() for name, fingerprints in cut.fingerprints.items()
        }
        self._cut_lineage |= {"rows": str(cut.rows), "dropped": str(dropped)}
        drop = [
            pb.SetDigests(set=name, digests=np.ascontiguousarray(digests).tobytes())
            for name, digests in cut.drop.items()
        ]
        self._links.send(cut.sites, pb.ToAgent(cut_decided=pb.CutDecided(job=self.id, round=cut.round, drop=drop)))
        self._emit(pb.JobEvent(cut=pb.CutEvent(round=cut.round, rows=cut.rows, dropped=dropped, equal=cut.equal)))

    def _publish_initial(self, statistics: Mapping[str, Statistics]) -> int:
        parts = [statistics[site] for site in sorted(statistics)]
        merged = parts[0]
        for part in parts[1:]:
            merged = merged.merge(part)
        encoding = Encoding.from_statistics(merged, self.config.task)
        torch.manual_seed(self.config.seed)
        model = build_model(self.config.task, encoding, self._allowed)
        self.model = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self._metadata = {"encoding": encoding.to_json(), "task": self.config.task.to_json()}
        self._outer = OuterStep(self.config.strategy.outer, self.model)
        return self._publish("global", self.model, {"round": 0})

    def _publish(self, scope: str, tensors: dict[str, torch.Tensor], lineage: dict[str, object]) -> int:
        published = publish(
            self._view,
            model=self.config.task.name,
            scope=scope,
            tensors=tensors,
            lineage={
                "job": self.id,
                "config_sha256": self._config_hash,
                "consistency": self._view.consistency,
                "cut": self._cut_lineage,
                **lineage,
            },
            metadata=self._metadata,
        )
        self._state_bytes += published.bytes_written
        return published.version

    async def _publish_round(self, instruction: instructions.PublishRound) -> events.Published:
        version = await asyncio.to_thread(self._reduce_and_publish, instruction)
        sites = tuple(update.site for update in instruction.updates)
        message = pb.RoundCommitted(job=self.id, round=instruction.round, version=version)
        self._links.send(sites, pb.ToAgent(round_committed=message))
        bytes_up, bytes_down = self._bytes_now()
        self._emit(
            pb.JobEvent(
                round=pb.RoundEvent(
                    round=instruction.round,
                    seconds=instruction.seconds,
                    version=version,
                    bytes_up=max(0, bytes_up - self._bytes_at_commit[0]),
                    bytes_down=max(0, bytes_down - self._bytes_at_commit[1]),
                    loss={update.site: update.metrics["loss"] for update in instruction.updates},
                    reason=instruction.reason,
                )
            )
        )
        self._bytes_at_commit = (bytes_up, bytes_down)
        return events.Published(version)

    def _bytes_now(self) -> tuple[int, int]:
        """Bytes up and down, of the job's sites that are connected, since they joined."""
        links = [self._links[site] for site in self.config.sites if site in self._links]
        return sum(link.bytes_up for link in links), sum(link.bytes_down + self._state_bytes for link in links)

    def _reduce_and_publish(self, instruction: instructions.PublishRound) -> int:
        assert self._outer is not None
        mean = weighted_mean([(update.samples, decode_file(update.path)) for update in instruction.updates])
        self.model = self._outer.step(self.model, mean)
        weights = {update.site: update.samples for update in instruction.updates}
        metrics = {update.site: dict(update.metrics) for update in instruction.updates}
        version = self._publish(
            "global", self.model, {"round": instruction.round, "weights": weights, "metrics": metrics}
        )
        self._ledger.commit_round(
            instruction.round, version=version, weights=weights, metrics=metrics, reason=instruction.reason
        )
        for update in instruction.updates:
            update.path.unlink()
        return version

    async def _publish_localized(self, instruction: instructions.PublishLocalized) -> events.LocalizedPublished:
        update = instruction.update
        # What the site did not adapt is the global model's; content addressing stores it once.
        tensors = self.model | decode_file(update.path)
        scope = f"site/{update.site}"
        lineage = {"base_version": instruction.base_version, "metrics": dict(update.metrics)}
        version = await asyncio.to_thread(self._publish, scope, tensors, lineage)
        update.path.unlink()
        self._emit(
            pb.JobEvent(
                localized=pb.LocalizedEvent(
                    site=update.site,
                    state=f"{self.config.task.name}/{scope}@{version}",
                    rows=update.samples,
                    metrics=update.metrics,
                )
            )
        )
        return events.LocalizedPublished(update.site)

    def check_update(self, path: Path, *, whole: bool) -> None:
        """Raise UpdateRefused unless the spooled update may enter the mean. Runs in a thread."""
        max_norm = self.config.strategy.max_update_norm if whole else math.inf  # a localized state is no difference
        like = {name: tensor for name, tensor in self.model.items() if tensor.is_floating_point() or not whole}
        check(decode_file(path), like, max_norm=max_norm, whole=whole)

    async def _finish(self, ended: pb.JobEnded) -> None:
        logger.info("job %s %s: %s", self.id, "finished" if ended.finished else "failed", ended.reason)
        status = "finished" if ended.finished else "failed"
        try:
            await asyncio.to_thread(self._ledger.job, status, ended.reason, asdict(self.config))
        except GeotrainError as error:
            logger.error("job %s: its end could not be noted in the view: %s", self.id, error)
        self._links.send(tuple(self.config.sites), pb.ToAgent(job_ended=ended))
        self.ended = True
        self.model, self._outer = {}, None  # an ended job keeps its history, not its model
        self._emit(pb.JobEvent(ended=ended))
        await asyncio.to_thread(shutil.rmtree, self.spool_dir, ignore_errors=True)

    def _emit(self, event: pb.JobEvent) -> None:
        event.time_s = time.time()
        event.job = self.id
        if len(self.history) < MAX_EVENTS or not event.HasField("site"):
            self.history.append(event)
        happened, self._happened = self._happened, asyncio.Event()
        happened.set()
