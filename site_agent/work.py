"""What a site does for a job, message by message: read the cut, join, train, localize. Knows no gRPC call.

`handle` is a generator: it yields progress and answers as they come, and blocks while it works.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geotrain.errors import GeotrainError, ViewError
from geotrain.program import config_from_json
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.states.lookup import ModelLookup, State
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding
from geotrain.tasks.targets import check_targets
from geotrain.updates.codec import Layout
from geotrain.view.connect import View
from geotrain.view.cut import Cut
from site_agent.compute import Compute
from site_agent.config import SiteAgentConfig
from site_agent.datasets import LocalDataset, load
from site_agent.held import HeldUpdates, Update
from site_agent.join.execute import Joined
from site_agent.join.sources import ReadSet
from site_agent.trainer import Trained

logger = logging.getLogger(__name__)


Report = pb.FromAgent | pb.Progress | Update


class JobWork:
    """One job at this site. `handle` has each message answered by the method of its name, one at a time.

    view: this site's view. compute: the site's Ray cluster. held: where updates wait for their rounds' commits.
    Raises GeotrainError for a request that is no job for this site.
    """

    def __init__(
        self, request: pb.Prepare, config: SiteAgentConfig, view: View, compute: Compute, held: HeldUpdates
    ) -> None:
        self.id = request.job
        self.num_rows = 0
        self.loss = float("nan")
        self._request = request
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
        self._reading = ThreadPoolExecutor(1)
        self._read_ahead: tuple[int, Future[State]] | None = None
        self._held = held
        self._cut_round = 0
        self._cut_number = 0
        self._has_ended = False

    def handle(self, kind: str, body: Any) -> Iterator[Report]:
        """Do what the message asks. Raises GeotrainError when the site can't, with the reason."""
        try:
            yield from getattr(self, kind)(body)
        finally:
            if self._has_ended:  # meanwhile: nobody else lets go of what was started since
                self._compute.release(self.id)

    def end(self) -> None:
        """Let go of everything but the update, also while a message is being handled."""
        self._has_ended = True
        self._reading.shutdown(wait=False)
        self._compute.release(self.id)

    def prepare(self, request: pb.Prepare) -> Iterator[Report]:
        """Check everything that can be checked before the first round: trust, files, columns. Say what is here already:
        a job goes on after either end was restarted."""
        yield self.progress("preparing", 0)
        if request != self._request:
            raise GeotrainError(
                f"job {self.id}: it was prepared here with another task or seed", "Launch a changed task as a new job."
            )
        if not any(fnmatchcase(self._task.name, allowed) for allowed in self._site.allowed_jobs):
            raise GeotrainError(
                f"task.name: {self._task.name!r} is not allowed at site {self._site.name}",
                f"It runs {', '.join(self._site.allowed_jobs) or 'nothing'}; add the name to site.allowed_jobs there.",
            )
        check_targets(self._task, self._site.allowed_targets)
        self._local = {
            name: load(Path(self._site.data_dir), name, dataset) for name, dataset in self._task.local.items()
        }
        rows = len(self._local[self._task.rows.dataset].frame)
        number = self._cut_number
        prepared = pb.Prepared(job=self.id, local_rows=rows, cut_round=self._cut_round, cut_number=number)
        if update := self._held.of(self.id):
            prepared.held.CopyFrom(pb.Held(round=update.header.round, base_version=update.header.base_version))
        yield pb.FromAgent(prepared=prepared)

    def job_paused(self, paused: pb.JobPaused) -> Iterator[Report]:
        """Free the workers; the joined rows and the update are kept."""
        logger.info("job %s is paused: %s", self.id, paused.reason)
        self._compute.release(self.id)
        return iter(())

    def scan_cut(self, request: pb.ScanCut) -> Iterator[Report]:
        yield self.progress("scanning", request.round)
        self._cut, self._cut_round, self._cut_number = Cut(until_ns=request.until_ns), 0, request.number
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
            yield self.progress("joining", decided.round)
            self._joined = self._compute.join(self._view, self._task, self._local, self._sets, self._cut)
            self._joined_cut_id = self._cut_id
            self._encoding_json = ""
            self.num_rows = self._joined.num_rows
        self._cut_round = decided.round

    def report_statistics(self, request: pb.ReportStatistics) -> Iterator[Report]:
        yield self.progress("summarizing", request.round)
        statistics = self._compute.statistics(self._task, self._rows())
        yield pb.FromAgent(statistics=pb.StatisticsReport(job=self.id, statistics_json=statistics.to_json()))

    def train(self, request: pb.Train) -> Iterator[Report]:
        if held := self._same_update(request.round, request.base_version):
            yield self.progress("uploading", request.round)
            yield held
            return
        logger.info("job %s: trains round %d from version %d", self.id, request.round, request.base_version)
        yield self.progress("training", request.round)
        base = self._base(request.base_version)
        layout = Layout.of({name: tensor for name, tensor in base.items() if tensor.is_floating_point()})
        self._held.reserve(self.id, layout)
        result = self._compute.train(self.id, base, request.round)
        self.loss = result.metrics["loss"]
        yield self.progress("uploading", request.round)
        header = pb.UpdateHeader(round=request.round, kind=pb.UpdateHeader.DIFFERENCE, ahead_bytes=request.ahead_bytes)
        yield self._keep(header, request.base_version, result, layout, lambda name: result.tensors[name] - base[name])

    def localize(self, request: pb.Localize) -> Iterator[Report]:
        if held := self._same_update(0, request.base_version):
            yield self.progress("uploading", 0)
            yield held
            return
        logger.info("job %s: localizes version %d", self.id, request.base_version)
        yield self.progress("localizing", 0)
        base = self._base(request.base_version)
        self._held.reserve(self.id, Layout.of(base))
        result = self._compute.localize(self.id, base, request.rounds)
        yield self.progress("uploading", 0)
        # What did not change is in the view already.
        changed = {name: tensor for name, tensor in result.tensors.items() if not torch.equal(tensor, base[name])}
        header = pb.UpdateHeader(kind=pb.UpdateHeader.LOCALIZED, ahead_bytes=request.ahead_bytes)
        yield self._keep(header, request.base_version, result, Layout.of(changed), changed.__getitem__)

    def round_committed(self, committed: pb.RoundCommitted) -> Iterator[Report]:
        number = committed.round
        # What is trained next is trained from there: it is read while the cut is scanned.
        self._read_ahead = committed.version, self._reading.submit(self._lookup.at, committed.version)
        why = f", without this site: {committed.reason}" if committed.reason else ""
        logger.info("job %s: round %d committed as version %d%s", self.id, number, committed.version, why)
        held = self._held.of(self.id)
        if (
            held
            and held.header.round
            and (held.header.round == committed.counted or held.header.round < committed.oldest)
        ):
            self._held.release(self.id)
        return iter(())

    def _same_update(self, number: int, base_version: int) -> Update | None:
        """What was asked, where it was done before."""
        held = self._held.of(self.id)
        return held if held and (held.header.round, held.header.base_version) == (number, base_version) else None

    def _base(self, version: int) -> dict[str, torch.Tensor]:
        """The published state, read from this site's own rack; the workers get its encoding when it is new."""
        self._base_state = state = self._state(version)  # held: its unchanged tensors need not be read again
        encoding_json = state.manifest.metadata["encoding"]
        if encoding_json != self._encoding_json or not self._compute.is_training(self.id):
            encoding = Encoding.from_json(encoding_json)
            self._compute.start_training(self.id, self._task, encoding, self._rows(), self._seed)
            self._encoding_json = encoding_json
        return dict(state.tensors)

    def _state(self, version: int) -> State:
        ahead, self._read_ahead = self._read_ahead, None
        if ahead and ahead[0] == version:
            with suppress(ViewError):  # of a moment ago
                return ahead[1].result()
        return self._lookup.at(version)

    def _rows(self) -> Joined:
        if self._joined is None:
            raise GeotrainError(f"job {self.id}: no cut was decided before training")
        return self._joined

    def progress(self, phase: str, number: int) -> pb.Progress:
        return pb.Progress(job=self.id, round=number, phase=phase, rows=self.num_rows, loss=self.loss)

    def _keep(
        self,
        header: pb.UpdateHeader,
        base_version: int,
        result: Trained,
        layout: Layout,
        tensor_of: Callable[[str], torch.Tensor],
    ) -> Update:
        """An update on its way, kept here until its round is committed."""
        said = pb.UpdateHeader(
            job=self.id,
            site=self._site.name,
            samples=result.samples,
            metrics=result.metrics,
            base_version=base_version,
            cut_number=self._cut_number,
        )
        said.MergeFrom(header)
        return self._held.write(said, layout, tensor_of)
