"""What a site does for a job, message by message: read the cut, join, train, localize. Knows no gRPC call.

`handle` is a generator: it yields progress and answers as they come, and blocks while it works.
"""

import hashlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geotrain.errors import GeotrainError
from geotrain.program import config_from_json
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.states.lookup import ModelLookup, State
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding
from geotrain.tasks.targets import check_targets
from geotrain.updates.codec import encode
from geotrain.view.connect import View
from geotrain.view.cut import Cut
from site_agent.compute import Compute
from site_agent.config import SiteAgentConfig
from site_agent.datasets import LocalDataset, load
from site_agent.held import HeldUpdate, Update
from site_agent.join.execute import Joined
from site_agent.join.sources import ReadSet
from site_agent.trainer import Trained

logger = logging.getLogger(__name__)


Report = pb.FromAgent | pb.Progress | Update


class Work:
    """The site's side of one job after another.

    view: this site's view. compute: the site's Ray cluster.
    """

    def __init__(self, config: SiteAgentConfig, view: View, compute: Compute) -> None:
        self._config = config
        self._view = view
        self._compute = compute
        # A broken session leaves its last message working; the next session's waits for it.
        self._lock = threading.Lock()
        self._job: JobWork | None = None

    def handle(self, kind: str, body: Any) -> Iterator[Report]:
        """Do what the message asks. Raises GeotrainError when the site can't, with the reason."""
        with self._lock:
            if kind == "prepare":
                yield pb.Progress(job=body.job, phase="preparing", loss=float("nan"))
                if self._job is None or self._job.id != body.job:  # else the coordinator lost us, or was restarted
                    self._compute.release()  # of a job whose end this agent did not hear of
                    self._job = JobWork(body, self._config, self._view, self._compute)
                yield self._job.prepare()
            elif self._job is None or body.job != self._job.id:
                raise GeotrainError(f"job {body.job} was not prepared by this agent")
            elif kind == "job_ended":
                self._compute.release()
                self._job.forget_update()
                self._job = None
                logger.info("job %s %s: %s", body.job, "finished" if body.finished else "failed", body.reason)
            else:
                yield from getattr(self._job, kind)(body)
            yield pb.Progress(
                job=body.job,
                round=getattr(body, "round", 0),
                phase="idle",
                rows=self._job.num_rows if self._job else 0,
                loss=self._job.loss if self._job else float("nan"),
            )


class JobWork:
    """One job at this site. Each public method answers the message of the same name."""

    def __init__(self, request: pb.Prepare, config: SiteAgentConfig, view: View, compute: Compute) -> None:
        self.id = request.job
        self.num_rows = 0
        self.loss = float("nan")
        self._task = config_from_json(TaskConfig, request.task_json)
        self._seed = (request.seed, config.site.name)
        self._site = config.site
        self._view = view
        self._compute = compute
        self._local: dict[str, LocalDataset] = {}
        self._cut = Cut(until_ns=0)
        self._sets: dict[str, ReadSet] = {}
        self._lookup = ModelLookup(view, self._task.name)
        self._cut_id: bytes = b""
        self._joined: Joined | None = None
        self._joined_cut_id: bytes = b""
        self._encoding_json = ""
        self._base_state: State | None = None
        self._held = HeldUpdate(Path(config.site.spool_dir) / f"{config.site.name}.update")
        self._cut_round = 0

    def prepare(self) -> pb.FromAgent:
        """Check everything that can be checked before the first round: trust, files, columns. Say what is here already:
        a job goes on after either end was restarted."""
        check_targets(self._task, self._site.allowed_targets)
        self._local = {
            name: load(Path(self._site.data_dir), name, dataset) for name, dataset in self._task.local.items()
        }
        rows = len(self._local[self._task.rows.dataset].frame)
        prepared = pb.Prepared(job=self.id, local_rows=rows, cut_round=self._cut_round)
        if update := self._held.of(self.id):
            prepared.held.CopyFrom(pb.Held(round=update.header.round, base_version=update.header.base_version))
        return pb.FromAgent(prepared=prepared)

    def scan_cut(self, request: pb.ScanCut) -> Iterator[Report]:
        yield self._progress("scanning", request.round)
        self._cut, self._cut_round = Cut(until_ns=request.until_ns), 0
        self._sets = self._compute.read(self._view, self._task, self._cut)
        report = pb.CutReport(job=self.id, round=request.round)
        for name, read in self._sets.items():
            report.sets.add(set=name, rows=read.num_rows, fingerprints=read.fingerprints().astype("<u8").tobytes())
        self._cut_id = b"".join(fingerprint.fingerprints for fingerprint in report.sets)
        if self._sets.keys() != self._task.view.keys():  # what is looked up may change with every cut
            self._cut_id += request.until_ns.to_bytes(8)
        yield pb.FromAgent(cut_report=report)

    def list_cut_rows(self, request: pb.ListCutRows) -> Iterator[Report]:
        answer = pb.CutRows(job=self.id, round=request.round)
        for wanted in request.sets:
            rows = self._sets[wanted.set].rows_in(wanted.partitions)
            answer.sets.add(set=wanted.set, digests=rows.digests.tobytes(), generations=rows.generations.tolist())
        yield pb.FromAgent(cut_rows=answer)

    def cut_decided(self, decided: pb.CutDecided) -> Iterator[Report]:
        """Drop the rows that sites read in different versions; join anew unless the cut is the last one's."""
        for dropped in decided.drop:
            digests = np.frombuffer(dropped.digests, np.uint8).reshape(-1, 20)
            self._sets[dropped.set] = self._sets[dropped.set].without(digests)
            self._cut_id += dropped.digests
        if self._joined is None or self._cut_id != self._joined_cut_id:
            yield self._progress("joining", decided.round)
            self._joined = self._compute.join(self._view, self._task, self._local, self._sets, self._cut)
            self._joined_cut_id = self._cut_id
            self._encoding_json = ""
            self.num_rows = self._joined.num_rows
        self._cut_round = decided.round

    def report_statistics(self, request: pb.ReportStatistics) -> Iterator[Report]:
        yield self._progress("summarizing", request.round)
        statistics = self._compute.statistics(self._task, self._rows())
        yield pb.FromAgent(statistics=pb.StatisticsReport(job=self.id, statistics_json=statistics.to_json()))

    def train(self, request: pb.Train) -> Iterator[Report]:
        if held := self._same_update(request.round, request.base_version):
            yield self._progress("uploading", request.round)
            yield held
            return
        logger.info("job %s: trains round %d from version %d", self.id, request.round, request.base_version)
        yield self._progress("training", request.round)
        base = self._base(request.base_version)
        result = self._compute.train(base, request.round)
        self.loss = result.metrics["loss"]
        yield self._progress("uploading", request.round)
        difference = {
            name: result.tensors[name] - tensor for name, tensor in base.items() if tensor.is_floating_point()
        }
        header = pb.UpdateHeader(round=request.round, kind=pb.UpdateHeader.DIFFERENCE)
        yield self._update(header, request.base_version, difference, result)

    def localize(self, request: pb.Localize) -> Iterator[Report]:
        if held := self._same_update(0, request.base_version):
            yield self._progress("uploading", 0)
            yield held
            return
        logger.info("job %s: localizes version %d", self.id, request.base_version)
        yield self._progress("localizing", 0)
        base = self._base(request.base_version)
        result = self._compute.localize(base, request.rounds)
        # What did not change is in the view already.
        changed = {name: tensor for name, tensor in result.tensors.items() if not torch.equal(tensor, base[name])}
        yield self._update(pb.UpdateHeader(kind=pb.UpdateHeader.LOCALIZED), request.base_version, changed, result)

    def round_committed(self, committed: pb.RoundCommitted) -> Iterator[Report]:
        logger.info("job %s: round %d committed as version %d", self.id, committed.round, committed.version)
        held = self._held.of(self.id)
        if held and held.header.round == committed.round:
            self._held.drop()
        return iter(())

    def forget_update(self) -> None:
        """The job has ended: whatever waits for a commit waits in vain."""
        if self._held.of(self.id):
            self._held.drop()

    def _same_update(self, number: int, base_version: int) -> Update | None:
        """What was asked, where it was done before."""
        held = self._held.of(self.id)
        return held if held and (held.header.round, held.header.base_version) == (number, base_version) else None

    def _base(self, version: int) -> dict[str, torch.Tensor]:
        """The published state, read from this site's own rack; the workers get its encoding when it is new."""
        self._base_state = state = self._lookup.at(version)  # held: its unchanged tensors need not be read again
        encoding_json = state.manifest.metadata["encoding"]
        if encoding_json != self._encoding_json or not self._compute.is_training:
            self._compute.start_training(self._task, Encoding.from_json(encoding_json), self._rows(), self._seed)
            self._encoding_json = encoding_json
        return dict(state.tensors)

    def _rows(self) -> Joined:
        if self._joined is None:
            raise GeotrainError(f"job {self.id}: no cut was decided before training")
        return self._joined

    def _progress(self, phase: str, number: int) -> pb.Progress:
        return pb.Progress(job=self.id, round=number, phase=phase, rows=self.num_rows, loss=self.loss)

    def _update(
        self, header: pb.UpdateHeader, base_version: int, tensors: dict[str, torch.Tensor], result: Trained
    ) -> Update:
        """An update on its way, kept here until its round is committed."""
        data = encode(tensors)
        said = pb.UpdateHeader(
            job=self.id,
            site=self._site.name,
            samples=result.samples,
            metrics=result.metrics,
            num_bytes=len(data),
            sha256=hashlib.sha256(data).digest(),
            base_version=base_version,
        )
        said.MergeFrom(header)
        update = Update(header=said, data=data)
        self._held.keep(update)
        return update
