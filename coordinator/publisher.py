"""Makes a job's states of what its sites report, and publishes them. Knows no site's link and not what comes next.

A state counts from when the ledger says so: tensors, manifest, ledger, alias, in this order. Whoever is stopped in
between and does the same again ends with the same version.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from coordinator.config import JobConfig
from coordinator.events import UpdateArrived
from coordinator.facts import JobFacts, LocalizedFacts, RoundFacts
from coordinator.ledger import Ledger
from coordinator.reduce import OuterStep, weighted_mean
from geotrain.states.lookup import ModelLookup
from geotrain.states.publish import move_alias, write_state
from geotrain.tasks.features import Encoding, Statistics
from geotrain.tasks.model import build_model
from geotrain.updates.checks import check
from geotrain.updates.codec import decode_file
from geotrain.view.connect import View

GLOBAL = "global"


def site_scope(site: str) -> str:
    return f"site/{site}"


def weights(updates: Sequence[UpdateArrived]) -> dict[str, int]:
    return {update.site: update.samples for update in updates}


def metrics(updates: Sequence[UpdateArrived]) -> dict[str, dict[str, float]]:
    return {update.site: dict(update.metrics) for update in updates}


class Publisher:
    """The states of one job.

    model: the newest global state. state_bytes: written for states so far.
    """

    def __init__(self, job: str, config: JobConfig, *, view: View, ledger: Ledger, allowed: list[str]) -> None:
        self.model: dict[str, torch.Tensor] = {}
        self.state_bytes = 0
        self._job = job
        self._config = config
        self._view = view
        self._ledger = ledger
        self._allowed = allowed
        self._metadata: dict[str, str] = {}
        self._outer: OuterStep | None = None
        self._cut: dict[str, str] = {}
        config_json = json.dumps(asdict(config), sort_keys=True)
        self._config_hash = hashlib.sha256(config_json.encode()).hexdigest()

    def restore(self, facts: JobFacts) -> None:
        """Go on from the newest committed state, and finish what was begun behind its commit."""
        for site, localized in facts.localized.items():
            move_alias(self._view, self._config.task.name, site_scope(site), localized.version)
        if not facts.version:
            return
        move_alias(self._view, self._config.task.name, GLOBAL, facts.version)
        lookup = ModelLookup(self._view, self._config.task.name)
        state = lookup.at(facts.version)
        self.model = {name: tensor.clone() for name, tensor in state.tensors.items()}
        self._metadata = dict(state.manifest.metadata)
        self._outer = OuterStep(self._config.strategy.outer, self.model)
        self._outer.restore(lookup.resume(state.manifest))

    def use_cut(self, facts: RoundFacts) -> None:
        """Note which data the states from here on are made of. The round's cut must have been decided."""
        assert facts.cut is not None
        task = self._config.task
        unproven = {name: "looked up, not proven" for name in task.view if name not in task.proven()}
        counts = {"until_ns": facts.until_ns, "rows": facts.cut.rows, "dropped": facts.cut.dropped}
        self._cut = {**unproven, **facts.cut.proof, **{name: str(count) for name, count in counts.items()}}

    def initial(self, statistics: Mapping[str, Statistics]) -> int:
        """Write the first model. Returns its version, which is to be committed."""
        parts = [statistics[site] for site in sorted(statistics)]
        merged = parts[0]
        for part in parts[1:]:
            merged = merged.merge(part)
        encoding = Encoding.from_statistics(merged, self._config.task)
        torch.manual_seed(self._config.seed)
        model = build_model(self._config.task, encoding, self._allowed)
        self.model = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self._metadata = {"encoding": encoding.to_json(), "task": self._config.task.to_json()}
        self._outer = OuterStep(self._config.strategy.outer, self.model)
        return self._write(GLOBAL, self.model, {"round": 0}, self._outer.state())

    def reduce(self, number: int, updates: Sequence[UpdateArrived]) -> int:
        """Write the next model. Returns its version, which is to be committed."""
        assert self._outer is not None
        mean = weighted_mean([(update.samples, decode_file(update.path)) for update in updates])
        self.model = self._outer.step(self.model, mean)
        lineage = {"round": number, "weights": weights(updates), "metrics": metrics(updates)}
        return self._write(GLOBAL, self.model, lineage, self._outer.state())

    def commit(self, facts: RoundFacts) -> None:
        """From here on the round is committed, and its state the newest."""
        assert facts.commit is not None
        self._ledger.round(facts)
        move_alias(self._view, self._config.task.name, GLOBAL, facts.commit.version)

    def localized(self, update: UpdateArrived, base_version: int) -> LocalizedFacts:
        """Publish a site's own state. What the site did not adapt is the global model's, and stored once."""
        tensors = self.model | decode_file(update.path)
        scope = site_scope(update.site)
        measured = dict(update.metrics)
        version = self._write(scope, tensors, {"base_version": base_version, "metrics": measured}, {})
        facts = LocalizedFacts(
            site=update.site, committed_s=time.time(), version=version, samples=update.samples, metrics=measured
        )
        self._ledger.localized(facts)
        move_alias(self._view, self._config.task.name, scope, version)
        return facts

    def check_update(self, path: Path, *, whole: bool) -> None:
        """Raise UpdateRefused unless the spooled update may enter the mean."""
        max_norm = self._config.strategy.max_update_norm if whole else math.inf  # a localized state is no difference
        like = {name: tensor for name, tensor in self.model.items() if tensor.is_floating_point() or not whole}
        check(decode_file(path), like, max_norm=max_norm, whole=whole)

    def release(self) -> None:
        """Let go of the model of a job that has ended."""
        self.model, self._outer = {}, None

    def _write(
        self,
        scope: str,
        tensors: Mapping[str, torch.Tensor],
        lineage: Mapping[str, object],
        resume: Mapping[str, torch.Tensor],
    ) -> int:
        origin = {"job": self._job, "config_sha256": self._config_hash, "consistency": self._view.consistency}
        written = write_state(
            self._view,
            model=self._config.task.name,
            scope=scope,
            tensors=tensors,
            lineage={**origin, "cut": self._cut, **lineage},
            metadata=self._metadata,
            resume=resume,
        )
        self.state_bytes += written.bytes_written
        return written.version
