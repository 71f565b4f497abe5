"""What must hold at every step of a run. Sees every write that takes effect, and every training.

It knows the records and their words, and computes for itself what a committed state must be.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch

from coordinator.facts import LocalizedFacts, RoundFacts
from coordinator.ledger import JOBS, ROUNDS
from geotrain.states.manifest import ALIASES, MANIFESTS, TENSORS, Manifest
from geotrain.states.tensors import DTYPES
from tests.simulation.rounds.processes import Process
from tests.simulation.rounds.records import Generations
from tests.simulation.rounds.site import SAMPLES, trained
from tests.simulation.rounds.store import Store, Write

LEASES = "gt_lease"
LEARNING_RATE, MOMENTUM = 0.7, 0.9
OUTER = {"_target_": "torch.optim.SGD", "lr": LEARNING_RATE, "momentum": MOMENTUM, "nesterov": True}
DISCOUNT = 0.5  # of an update that is late
ENDED = ("finished", "failed", "cancelled")

Tensors = dict[str, torch.Tensor]


class Violation(AssertionError):
    """A promise that was broken."""


class Invariants:
    """The checks of one run. rows: on which each site trained each round of a job."""

    def __init__(self, store: Store, rows: Mapping[tuple[str, str, int], Generations]) -> None:
        self._store = store
        self._rows = rows
        self._models: dict[str, str] = {}  # by job
        self._velocity: dict[tuple[str, int], Tensors] = {}  # of a model, by version
        self._epochs: dict[tuple[str, Any], int] = {}
        self._taken: dict[str, int] = {}  # by model: under which epoch its job was taken last
        self._leaders: dict[int, Process] = {}
        self._committed: set[tuple[str, int]] = set()  # scope and version

    def written(self, write: Write) -> None:
        """Raises Violation."""
        if write.set_name == LEASES:
            self._lease(write)
            return
        self._fenced(write)
        match write.set_name:
            case name if name == ALIASES:
                self._alias(write)
            case name if name == MANIFESTS:
                self._manifest(write)
            case name if name == ROUNDS and "/site/" in write.key:
                self._localized(write)
            case name if name == ROUNDS:
                self._round(write)
            case name if name == JOBS:
                self._job(write)

    # Who writes.

    def _lease(self, write: Write) -> None:
        epoch = write.after["epoch"]
        if write.before and epoch < write.before["epoch"]:
            raise Violation(f"the lease went back from epoch {write.before['epoch']} to {epoch}")
        if self._leaders.setdefault(epoch, write.process) is not write.process:
            raise Violation(f"epoch {epoch} has two leaders")

    def _fenced(self, write: Write) -> None:
        epoch = write.after.get("epoch")
        if epoch is None:
            return
        key = (write.set_name, write.key)
        model = self._model_of(write)
        newest = max(self._epochs.get(key, 0), self._taken.get(model, 0))
        if epoch < newest:
            raise Violation(f"a write of epoch {epoch} to {key} landed under epoch {newest}")
        self._epochs[key] = epoch
        if write.set_name == ALIASES:  # a leader fences the heads last: what is of the job's ledger is fenced by now
            self._taken[str(write.key).partition("/")[0]] = epoch
        if self._leaders.get(epoch) is not write.process:
            raise Violation(f"{write.process.name} writes {key} under epoch {epoch}, which is not its own")

    def _model_of(self, write: Write) -> str:
        """Of whose ledger the record is; none where it is a state's."""
        return self.model(str(write.key).partition("/")[0]) if write.set_name in (JOBS, ROUNDS) else ""

    # What is written.

    def _job(self, write: Write) -> None:
        before = write.before or {"status": "queued"}
        status = write.after["status"]
        if before["status"] in ENDED and status != before["status"]:
            raise Violation(f"job {write.key} was {before['status']}, and is {status}")

    def _alias(self, write: Write) -> None:
        before = write.before or {"newest": 0, "aliases": {}}
        for name, version in before["aliases"].items():
            if write.after["aliases"].get(name, 0) < version:
                raise Violation(f"alias {name} of {write.key} went back from {version}")
        if write.after["newest"] < before["newest"]:
            raise Violation(f"{write.key} went back from version {before['newest']} to {write.after['newest']}")
        for version in write.after["aliases"].values():
            if (write.key, version) not in self._committed:
                raise Violation(f"an alias of {write.key} points to version {version}, which is not committed")
            self.state(write.key, version)

    def _manifest(self, write: Write) -> None:
        manifest = Manifest.from_bytes(write.after["manifest"])
        counts = (f"{manifest.model}/{manifest.scope}", manifest.version) in self._committed
        if write.before and counts and write.before["manifest"] != write.after["manifest"]:
            raise Violation(f"{write.key} counts already, and was written over")

    def _localized(self, write: Write) -> None:
        if not self._is_new(write):
            return
        facts = LocalizedFacts.from_json(write.after["facts"])
        job, _, _ = write.key.partition("/")
        self._commits(f"{self.model(job)}/site/{facts.site}", facts.version)

    def _round(self, write: Write) -> None:
        was = _facts(write.before)
        if was and was.commit:
            self._is_new(write)
            return
        facts = _facts(write.after)
        if facts is None or not facts.commit:
            return
        job = write.key.rpartition("/")[0]
        if not all(past and past.commit for past in (self.facts(job, number) for number in range(facts.round))):
            raise Violation(f"round {write.key} is committed before those before it")
        self._commits(f"{self.model(job)}/global", facts.commit.version)
        self._reduced(job, facts)
        if facts.round:
            self._on_one_cut(job, facts)

    def _is_new(self, write: Write) -> bool:
        """Whether this is what makes it count."""
        if write.before and write.before["facts"] and write.before["facts"] != write.after["facts"]:
            raise Violation(f"{write.key} counts already, and is written again")
        return bool(write.after["facts"]) and not (write.before and write.before["facts"])

    def _commits(self, scope: str, version: int) -> None:
        head = self._store.records.get((ALIASES, scope))
        newest = head.bins["newest"] if head else 0
        if version != newest + 1:
            raise Violation(f"{scope}@{version} is committed after version {newest}")
        self._committed.add((scope, version))
        self.state(scope, version)

    def _on_one_cut(self, job: str, facts: RoundFacts) -> None:
        """What the ledger does not call late, or of an earlier cut, was trained on the rows that it names."""
        assert facts.commit is not None
        assert facts.cut is not None
        others = {*facts.commit.staleness, *facts.commit.earlier_cut}
        sites = [site for site in facts.commit.weights if site not in others]
        read = [self._rows[job, site, facts.round] for site in sites]
        if any(rows != read[0] or len(rows) != facts.cut.rows for rows in read):
            raise Violation(f"round {facts.round} counts {sites} as of one cut of {facts.cut.rows} rows: {read}")

    def _reduced(self, job: str, facts: RoundFacts) -> None:
        """The committed state is the reduction of the updates that the ledger names."""
        assert facts.commit is not None
        model = self.model(job)
        found = self.state(f"{model}/global", facts.commit.version)
        if facts.round == 0:
            self._velocity[model, facts.commit.version] = {}
            return
        weights, late = facts.commit.weights, facts.commit.staleness
        expected_weights = {site: SAMPLES[site] * (1 + late.get(site, 0)) ** -DISCOUNT for site in weights}
        if expected_weights != dict(weights):
            raise Violation(f"round {facts.round} counts {weights}, by the sites' samples {expected_weights}")
        before = self.base_version(job, facts)
        base, velocity = self.state(f"{model}/global", before), self._velocity[model, before]
        moved = self._velocity[model, facts.commit.version] = {}
        total = sum(weights.values())
        for name, tensor in base.items():
            steps = [
                self._difference(job, site, facts.round - late.get(site, 0), name) * (weight / total)
                for site, weight in weights.items()
            ]
            gradient = -torch.stack(steps).sum(0)
            moved[name] = velocity[name] * MOMENTUM + gradient if name in velocity else gradient
            expected = tensor - LEARNING_RATE * (gradient + MOMENTUM * moved[name])
            if not torch.allclose(found[name], expected, atol=1e-6):
                raise Violation(f"round {facts.round}: version {facts.commit.version} is not what {weights} give")

    def _difference(self, job: str, site: str, number: int, name: str) -> torch.Tensor:
        facts = self.facts(job, number)
        assert facts is not None
        base = self.state(f"{self.model(job)}/global", self.base_version(job, facts))[name]
        return trained(site, number, name, base) - base

    # What the records say.

    def model(self, job: str) -> str:
        if job not in self._models:
            config = json.loads(self._store.records[JOBS, job].bins["config"])
            self._models[job] = str(config["task"]["name"])
        return self._models[job]

    def facts(self, job: str, number: int) -> RoundFacts | None:
        record = self._store.records.get((ROUNDS, f"{job}/{number}"))
        return _facts(record.bins) if record else None

    def base_version(self, job: str, facts: RoundFacts) -> int:
        first = self.facts(job, 0)
        assert first is not None
        assert first.commit is not None
        return facts.base_version or first.commit.version  # round 1 is opened before there is a first model

    def state(self, scope: str, version: int) -> Tensors:
        """Whole, as a reader would find it. Raises Violation where it is not."""
        record = self._store.records.get((MANIFESTS, f"{scope}@{version}"))
        if record is None:
            raise Violation(f"{scope}@{version} is named, and not there")
        manifest = Manifest.from_bytes(record.bins["manifest"])
        tensors = {}
        for name, entry in manifest.tensors.items():
            if missing := [part for part in entry.parts if (TENSORS, part) not in self._store.records]:
                raise Violation(f"{scope}@{version} can be seen, and lacks part {missing[0]} of {name}")
            data = bytearray().join(self._store.records[TENSORS, part].bins["data"] for part in entry.parts)
            tensors[name] = torch.frombuffer(data, dtype=DTYPES[entry.dtype]).reshape(entry.shape)
        return tensors


def _facts(bins: Mapping[str, Any] | None) -> RoundFacts | None:
    return RoundFacts.from_json(bins["facts"]) if bins and bins["facts"] else None
