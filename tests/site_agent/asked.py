"""A site that is asked one thing after the other, on a real view, with a Ray that only takes notes."""

from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from geotrain.rpc import coordinator_pb2 as pb
from geotrain.states.publish import publish
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding, Statistics
from geotrain.view.connect import View
from geotrain.view.cut import Cut
from geotrain.view.scan import Scan
from geotrain.view.scanned import ScannedSet
from site_agent.config import SiteAgentConfig, SiteConfig
from site_agent.datasets import LocalDataset
from site_agent.held import HeldUpdates
from site_agent.join.execute import Joined
from site_agent.trainer import Trained
from site_agent.work import JobWork
from tests.tasks.pumps import pumps

FAR_FUTURE_NS = 2**62
NOON = datetime(2024, 1, 1, 12)


class Read(ScannedSet):
    """A set that was read, in this process."""

    @property
    def num_rows(self) -> int:
        return self.table.num_rows

    def without(self, dropped: Any) -> "Read":
        return Read(super().without(dropped).table)


class Notes:
    """Stands in for the site's Ray: notes what it is asked, and trains by adding 1."""

    def __init__(self) -> None:
        self.released: list[str] = []
        self.joins: list[dict[str, Any]] = []
        self.encodings: list[Encoding] = []
        self.num_trained = 0

    def read(self, view: View, task: TaskConfig, cut: Cut) -> dict[str, Any]:
        metadata = ("__digest", "__generation")
        scans = {
            name: Scan(view.config, name, task.view[name].columns, cut=cut, metadata=metadata) for name in task.proven()
        }
        return {name: Read(ScannedSet.read(scan).table) for name, scan in scans.items()}

    def join(
        self, view: View, task: TaskConfig, local: dict[str, LocalDataset], read: dict[str, Any], cut: Cut
    ) -> Joined:
        self.joins.append(read)
        return Joined(blocks=[], num_rows=len(local[task.rows.dataset].frame))

    def statistics(self, task: TaskConfig, joined: Joined) -> Statistics:
        return Statistics()

    def is_training(self, job: str) -> bool:
        return True

    def start_training(
        self, job: str, task: TaskConfig, encoding: Encoding, joined: Joined, seed: tuple[object, ...]
    ) -> None:
        self.encodings.append(encoding)

    def train(self, job: str, base: dict[str, torch.Tensor], number: int) -> Trained:
        self.num_trained += 1
        return Trained({name: tensor + 1 for name, tensor in base.items()}, 10, {"loss": 0.5})

    def localize(self, job: str, base: dict[str, torch.Tensor], rounds: int) -> Trained:
        return Trained(base | {"head": base["head"] + 1}, 10, {"localized": 0.7})

    def release(self, job: str) -> None:
        self.released.append(job)


class Site:
    """A site that is asked one thing after the other, and says what it answers."""

    def __init__(self, view: View, data_dir: Path) -> None:
        self.view = view
        self.notes = Notes()
        # A model of the test's own, so that versions count from 1.
        self.task = pumps({"name": f"pumps-{data_dir.name}"})
        self._data_dir = data_dir
        self.start()

    def start(self) -> None:
        """As a new process does: what was in memory is gone."""
        self.held = HeldUpdates(self._data_dir / "spool", "ewr")
        self.work: JobWork | None = None

    def ask(self, kind: str, body: Any) -> list[Any]:
        """The site's answers but for its progress."""
        if self.work is None:
            site = SiteConfig(name="ewr", rack=1, data_dir=str(self._data_dir), allowed_jobs=["pumps*"])
            config = SiteAgentConfig(site=site, view=self.view.config)
            self.work = JobWork(body, config, self.view, self.notes, self.held)  # type: ignore[arg-type]
        return [report for report in self.work.handle(kind, body) if not isinstance(report, pb.Progress)]

    def prepare(self, task: TaskConfig | None = None) -> list[Any]:
        return self.ask("prepare", pb.Prepare(job="j", task_json=(task or self.task).to_json(), seed=1))

    def scan(self, number: int = 1) -> dict[str, pb.SetFingerprints]:
        [answer] = self.ask("scan_cut", pb.ScanCut(job="j", round=number, until_ns=FAR_FUTURE_NS))
        return {report.set: report for report in answer.cut_report.sets}

    def decide(self, number: int = 1, drop: bytes = b"") -> None:
        decided = pb.CutDecided(job="j", round=number)
        if drop:
            decided.drop.add(set="alarms", digests=drop)
        assert self.ask("cut_decided", decided) == []

    def get_ready(self) -> None:
        """Up to where it can be asked to train."""
        self.prepare()
        self.scan()
        self.decide()

    def publish(self, value: float) -> int:
        tensors = {"body": torch.full((2,), value), "head": torch.full((1,), value), "count": torch.tensor(3)}
        metadata = {"encoding": Encoding({}, {}).to_json()}
        return publish(
            self.view, model=self.task.name, scope="global", tensors=tensors, lineage={}, metadata=metadata
        ).version
