"""What a site does for a job, on a real view, with a Ray that only takes notes."""

import errno
import json
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import safetensors.torch
import torch

from geotrain.errors import ConfigError, DataError, GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.states.lookup import ModelLookup
from geotrain.states.publish import publish
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding, Statistics
from geotrain.updates.chunks import DiskFull
from geotrain.view.connect import View, connect
from geotrain.view.cut import Cut
from geotrain.view.refusals import Refusal
from geotrain.view.scan import Scan
from geotrain.view.scanned import ScannedSet
from geotrain.view.write import write
from site_agent.config import SiteAgentConfig, SiteConfig
from site_agent.datasets import LocalDataset
from site_agent.held import HeldUpdates, Update
from site_agent.join.execute import Joined
from site_agent.trainer import Trained
from site_agent.work import JobWork
from tests.conftest import ClusterUnderTest
from tests.tasks.pumps import pumps
from tests.view.views import view_config

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

    def publish(self, value: float) -> int:
        tensors = {"body": torch.full((2,), value), "head": torch.full((1,), value), "count": torch.tensor(3)}
        metadata = {"encoding": Encoding({}, {}).to_json()}
        return publish(
            self.view, model=self.task.name, scope="global", tensors=tensors, lineage={}, metadata=metadata
        ).version


@pytest.fixture
def site(cluster: ClusterUnderTest, tmp_path: Path) -> Iterator[Site]:
    readings = {"at": NOON, "pump": "p1", "kind": "k", "pressure": 1.0, "is_new": True, "failures": 0}
    pl.DataFrame([readings] * 3).write_parquet(tmp_path / "readings.parquet")
    pl.DataFrame({"pump": ["p1"], "visited_at": [NOON]}).write_parquet(tmp_path / "visits.parquet")
    with connect(view_config(cluster)) as view:
        write(view, pl.DataFrame({"kind": ["k"], "maker": ["m"]}), "kinds", "kind")
        alarms = {"id": [1, 2], "maker": ["m", "m"], "raised_at": [NOON, NOON], "level": [1.0, 2.0]}
        write(view, pl.DataFrame(alarms), "alarms", "id")
        yield Site(view, tmp_path)


def test_a_task_that_the_site_can_run_is_accepted_with_its_rows_counted(site):
    [answer] = site.prepare()
    assert answer.prepared.local_rows == 3


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"local.visits.path": "visitors.parquet"}, DataError, "there is no file .*visitors.parquet"),
        ({"local.readings.columns.pump": "int64", "join.0.by": {"pump": "pump"}}, ConfigError, "pump"),
        ({"local.readings.columns.depth": "float64"}, DataError, "column depth"),
        ({"name": "flights"}, GeotrainError, "task.name: 'flights' is not allowed at site ewr"),
        ({"loss._target_": "os.system"}, ConfigError, "task.loss._target_: 'os.system' is not allowed here"),
    ],
)
def test_a_task_that_the_site_cannot_or_will_not_run_is_refused_before_the_first_round(site, changes, error, reason):
    # As the coordinator would send it: the site checks for itself.
    raw = json.loads(site.task.to_json())
    for path, value in changes.items():
        *parents, last = path.split(".")
        block = raw
        for name in parents:
            block = block[int(name)] if name.isdigit() else block[name]
        block[last] = value
    with pytest.raises(error, match=reason):
        site.ask("prepare", pb.Prepare(job="j", task_json=json.dumps(raw)))


def test_a_cut_is_joined_once_however_many_rounds_read_it(site):
    site.prepare()
    for number in (1, 2, 3):
        assert site.scan(number)["alarms"].rows == 2
        site.decide(number)
    assert len(site.notes.joins) == 1
    write(site.view, pl.DataFrame({"id": [1], "maker": ["m"], "raised_at": [NOON], "level": [9.0]}), "alarms", "id")
    site.scan(4)
    site.decide(4)
    assert sorted(site.notes.joins[1]["alarms"].table["level"].to_pylist()) == [2.0, 9.0]


def test_a_set_that_is_only_looked_up_is_not_reported_and_is_joined_anew_at_every_cut(site):
    site.prepare(pumps({"name": site.task.name, "view.kinds.key": "kind", "join.1.plan": "lookup"}))
    for number in (1, 2):
        [answer] = site.ask("scan_cut", pb.ScanCut(job="j", round=number, until_ns=FAR_FUTURE_NS + number))
        assert [report.set for report in answer.cut_report.sets] == ["alarms"]
        site.decide(number)
    assert len(site.notes.joins) == 2


def test_rows_that_other_sites_read_differently_are_left_out_of_the_join(site):
    site.prepare()
    site.scan()
    request = pb.ListCutRows(job="j", round=1)
    request.sets.add(set="alarms", partitions=range(4096))
    [answer] = site.ask("list_cut_rows", request)
    [listed] = answer.cut_rows.sets
    assert len(listed.digests) == 40
    site.decide(drop=listed.digests[:20])
    assert site.notes.joins[0]["alarms"].num_rows == 1


def test_an_update_is_what_training_changed_of_the_base_that_the_round_names(site):
    site.prepare()
    site.scan()
    site.decide()
    version = site.publish(5.0)
    site.publish(6.0)
    [update] = site.ask("train", pb.Train(job="j", round=1, base_version=version))
    assert isinstance(update, Update)
    assert (update.header.site, update.header.round, update.header.samples) == ("ewr", 1, 10)
    tensors = safetensors.torch.load(update.path.read_bytes()[: update.header.num_bytes])
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"body": [1.0, 1.0], "head": [1.0]}


@pytest.fixture
def reads(site, monkeypatch):
    """The versions that the site has read, in order, and who read them; once it fails for each of `fail`."""
    reads, read = SimpleNamespace(versions=[], threads=set(), fail=[]), ModelLookup.at

    def at(lookup, version):
        reads.versions.append(version)
        reads.threads.add(threading.current_thread())
        if version in reads.fail:
            reads.fail.remove(version)
            raise Refusal("reading: nobody answers", "see its nodes")
        return read(lookup, version)

    monkeypatch.setattr(ModelLookup, "at", at)
    return reads


def test_the_next_base_is_read_when_it_is_committed_and_not_again_when_it_is_trained_from(site, reads):
    site.prepare()
    version = site.publish(5.0)
    site.ask("round_committed", pb.RoundCommitted(job="j", round=1, version=version))
    site.scan()
    site.decide()
    site.ask("train", pb.Train(job="j", round=2, base_version=version))
    assert reads.versions == [version]
    assert threading.current_thread() not in reads.threads


def test_a_base_that_could_not_be_read_ahead_or_is_another_one_is_read_when_it_is_asked_for(site, reads):
    site.prepare()
    site.scan()
    site.decide()
    first, second = site.publish(5.0), site.publish(6.0)
    reads.fail = [first]
    site.ask("round_committed", pb.RoundCommitted(job="j", round=1, version=first))
    site.ask("train", pb.Train(job="j", round=2, base_version=first))
    assert reads.versions == [first, first]
    site.ask("round_committed", pb.RoundCommitted(job="j", round=2, version=first))
    site.ask("train", pb.Train(job="j", round=3, base_version=second))
    assert sorted(reads.versions) == [first, first, first, second]


def test_workers_are_given_their_rows_once_for_one_encoding(site):
    site.prepare()
    site.scan()
    site.decide()
    for number in (1, 2):
        site.ask("train", pb.Train(job="j", round=number, base_version=site.publish(float(number))))
    assert len(site.notes.encodings) == 1


def test_what_was_trained_is_sent_again_and_not_trained_again_also_after_a_restart(site):
    site.prepare()
    site.scan()
    site.decide()
    asked = pb.Train(job="j", round=1, base_version=site.publish(5.0))
    [sent] = site.ask("train", asked)
    assert site.ask("train", asked) == [sent]
    site.start()
    [answer] = site.prepare()
    assert (answer.prepared.held.round, answer.prepared.held.base_version) == (1, asked.base_version)
    assert answer.prepared.cut_round == 0
    assert site.ask("train", asked) == [sent]
    assert site.notes.num_trained == 1


@pytest.mark.parametrize(
    ("committed", "is_held"),
    [
        (pb.RoundCommitted(job="j", round=1, version=2, counted=1, oldest=1), False),
        (pb.RoundCommitted(job="j", round=1, version=2, oldest=1, reason="it sent nothing"), True),
        (pb.RoundCommitted(job="j", round=2, version=3, counted=1, oldest=1), False),
        (pb.RoundCommitted(job="j", round=1, version=2, oldest=2, reason="it sent nothing"), False),
    ],
    ids=["counted", "left out, may still be", "counted late", "too late"],
)
def test_an_update_is_kept_until_it_is_counted_or_can_be_no_more(site, committed, is_held):
    site.prepare()
    site.scan()
    site.decide()
    site.ask("train", pb.Train(job="j", round=1, base_version=site.publish(5.0)))
    [answer] = site.prepare()
    assert answer.prepared.HasField("held")
    site.ask("round_committed", committed)
    [answer] = site.prepare()
    assert answer.prepared.HasField("held") == is_held


def test_a_localized_state_is_kept_whatever_round_is_committed(site):
    site.prepare()
    site.scan()
    site.decide()
    site.ask("localize", pb.Localize(job="j", base_version=site.publish(5.0)))
    site.ask("round_committed", pb.RoundCommitted(job="j", round=1, version=2, oldest=2))
    [answer] = site.prepare()
    assert answer.prepared.HasField("held")


def test_a_paused_job_frees_its_workers_and_keeps_its_update_and_its_cut(site):
    site.prepare()
    site.scan()
    site.decide()
    asked = pb.Train(job="j", round=1, base_version=site.publish(5.0))
    [sent] = site.ask("train", asked)
    assert site.ask("job_paused", pb.JobPaused(job="j", reason="kim asks")) == []
    assert site.notes.released == ["j"]
    [answer] = site.prepare()
    assert (answer.prepared.held.round, answer.prepared.cut_round) == (1, 1)
    assert site.ask("train", asked) == [sent]


def test_workers_that_were_started_while_their_job_ended_are_let_go(site):
    site.prepare()
    site.scan()
    site.decide()
    training = site.work.handle("train", pb.Train(job="j", round=1, base_version=site.publish(5.0)))
    next(training)
    site.work.end()
    site.notes.released.clear()
    list(training)
    assert site.notes.released == ["j"]


def test_a_job_that_comes_back_with_another_task_is_refused(site):
    site.prepare()
    with pytest.raises(GeotrainError, match="another task or seed"):
        site.ask("prepare", pb.Prepare(job="j", task_json=site.task.to_json(), seed=2))


def test_a_full_disk_is_said_before_anything_is_trained(site, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    site.prepare()
    site.scan()
    site.decide()
    asked = pb.Train(job="j", round=1, base_version=site.publish(5.0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(DiskFull, match="No space left on device"):
            site.ask("train", asked)
    assert site.notes.num_trained == 0
    [update] = site.ask("train", asked)
    assert update.header.round == 1


def test_an_update_from_another_base_or_of_another_round_is_trained(site):
    site.prepare()
    site.scan()
    site.decide()
    first, second = site.publish(5.0), site.publish(6.0)
    for number, version in ((1, first), (1, second), (2, second)):
        [update] = site.ask("train", pb.Train(job="j", round=number, base_version=version))
        assert (update.header.round, update.header.base_version) == (number, version)
    assert site.notes.num_trained == 3


def test_who_is_prepared_again_says_which_cut_it_has_joined_and_keeps_it(site):
    [answer] = site.prepare()
    assert answer.prepared.cut_round == 0
    site.scan(3)
    [answer] = site.prepare()
    assert answer.prepared.cut_round == 0
    site.decide(3)
    [answer] = site.prepare()
    assert answer.prepared.cut_round == 3
    site.ask("train", pb.Train(job="j", round=3, base_version=site.publish(5.0)))
    assert len(site.notes.joins) == 1


def test_a_localized_state_sends_only_what_the_site_changed(site):
    site.prepare()
    site.scan()
    site.decide()
    [update] = site.ask("localize", pb.Localize(job="j", base_version=site.publish(5.0)))
    assert update.header.kind == pb.UpdateHeader.LOCALIZED
    assert safetensors.torch.load(update.path.read_bytes()[: update.header.num_bytes]).keys() == {"head"}
