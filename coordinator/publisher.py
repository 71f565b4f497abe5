"""Makes a job's states of what its sites report, and publishes them. Knows no site's link and not what comes next.

A state counts from when the ledger says so: tensors, manifest, ledger, alias, in this order. Whoever is stopped in
between and does the same again ends with the same version.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from coordinator.config import JobConfig
from coordinator.events import UpdateArrived
from coordinator.facts import CommitFacts, JobFacts, LocalizedFacts, RoundFacts
from coordinator.late import earlier_cut, weights
from coordinator.ledger import Ledger
from coordinator.reduce import OuterStep, weighted_mean
from geotrain.errors import ConfigError, GeotrainError, UpdateRefused
from geotrain.program import own_version
from geotrain.states.aliases import read_head, read_manifest
from geotrain.states.gate import Decision, Measured, decide
from geotrain.states.heads import fence, move_alias
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import UnknownState
from geotrain.states.publish import Tensors, write_state
from geotrain.tasks.features import Encoding, Statistics
from geotrain.tasks.model import build_model
from geotrain.updates.checks import check
from geotrain.updates.chunks import SpooledFile
from geotrain.updates.codec import TensorFile
from geotrain.view.connect import View
from geotrain.view.keyed import Record

GLOBAL = "global"


def site_scope(site: str) -> str:
    return f"site/{site}"


def metrics(updates: Sequence[UpdateArrived]) -> dict[str, dict[str, float]]:
    return {update.site: dict(update.metrics) for update in updates}


class SpoolLost(GeotrainError):
    """A spooled update that is not there any more, or not as it came."""


def _lost(error: Exception) -> SpoolLost:
    return SpoolLost(f"spool_dir lost an update: {error}", "Look at that disk; the sites send again.")


def _own(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, to be changed in place: those that share their memory are copied."""
    places = {name: tensor.untyped_storage().data_ptr() for name, tensor in tensors.items()}
    shared = Counter(places.values())
    return {name: tensor.clone() if shared[places[name]] > 1 else tensor for name, tensor in tensors.items()}


class Publisher:
    """The states of one job. What fails in `reduce` leaves the model between two states: `restore` it then.

    model: the newest global state. state_bytes: written for states so far. decision: which alias is to point to the
    global state that was written last, and why.
    """

    def __init__(self, job: str, config: JobConfig, *, view: View, ledger: Ledger, allowed: list[str]) -> None:
        self.model: dict[str, torch.Tensor] = {}
        self.state_bytes = 0
        self.decision = Decision("production", "")
        self._job = job
        self._config = config
        self._view = view
        self._ledger = ledger
        self._allowed = allowed
        self._metadata: dict[str, str] = {}
        self._outer: OuterStep | None = None
        self._cut: dict[str, str] = {}
        self._cut_number = 1
        self._config_sha256 = ""
        # By scope, as it was when the state was written whose alias is moved next.
        self._heads: dict[str, Record | None] = {}

    def settle(self, facts: JobFacts) -> None:
        """Keep leaders before this one from publishing, and finish what they began behind a commit."""
        scopes: dict[str, CommitFacts | LocalizedFacts | None] = {GLOBAL: facts.newest}
        scopes |= {site_scope(site): own for site, own in facts.localized.items()}
        if max((past.round for past in facts.committed), default=0) == self._config.rounds:
            scopes |= {site_scope(site): None for site in self._config.sites if site not in facts.localized}
        for scope, committed in scopes.items():
            if committed:
                self._move_alias(scope, committed)
            else:
                fence(self._view, self._config.task.name, scope, epoch=self._ledger.epoch)

    def restore(self, facts: JobFacts) -> None:
        """Go on from the newest committed state. Raises ConfigError where it was made with another configuration."""
        self._config_sha256 = facts.config_sha256
        if not facts.version:
            return
        lookup = ModelLookup(self._view, self._config.task.name)
        state = lookup.at(facts.version)
        if state.manifest.lineage["config_sha256"] != facts.config_sha256:
            raise ConfigError(
                f"job {self._job}: its configuration was changed since version {facts.version} was made with it",
                "Cancel it, and launch what has changed as a new job.",
            )
        self.model = _own(state.tensors)
        self._metadata = dict(state.manifest.metadata)
        self._outer = OuterStep(self._config.strategy.outer, self.model)
        self._outer.restore(_own(lookup.resume(state.manifest)))

    def use_cut(self, facts: RoundFacts) -> None:
        """Note which data the states from here on are made of. The round's cut must have been decided."""
        assert facts.cut is not None
        self._cut_number = facts.cut_number
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
        self.model = _own(model.state_dict())
        self._metadata = {"encoding": encoding.to_json(), "task": self._config.task.to_json()}
        self._outer = OuterStep(self._config.strategy.outer, self.model)
        self.decision = self._decide(GLOBAL, {}, {})
        lineage = {"round": 0, **self._noted(self.decision)}
        return self._write(GLOBAL, self.model.items(), lineage, self._outer.state())

    def reduce(self, number: int, updates: Sequence[UpdateArrived]) -> int:
        """Write the next model. Returns its version, which is to be committed. Raises SpoolLost."""
        assert self._outer is not None
        weight = weights(updates, number, self._config.strategy.staleness_discount)
        measured = metrics(updates)
        self.decision = self._decide(GLOBAL, measured, weight)
        lineage = {"round": number, "weights": weight, "metrics": measured, **self._noted(self.decision)}
        lineage |= self._earlier(updates, number)
        try:
            with ExitStack() as files:
                opened = [(weight[update.site], files.enter_context(SpooledFile(update.path))) for update in updates]
                return self._write(GLOBAL, self._moved(self._outer, opened), lineage, self._outer.state())
        except (UpdateRefused, OSError) as error:  # it was fit when it came
            raise _lost(error) from None

    def _moved(
        self, outer: OuterStep, updates: Sequence[tuple[float, SpooledFile]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors of the next model, each as soon as it has taken its step: the one before is on its way then.

        Ends with UpdateRefused or OSError, and no manifest names the tensors, unless every update is still as it came.
        """
        moved = updates[0][1].entries.keys()
        for name in moved:  # in the order of the files: so they are checked while they are read
            outer.step(name, weighted_mean(updates, name))
            yield name, self.model[name]
        yield from ((name, tensor) for name, tensor in self.model.items() if name not in moved)
        for _, update in updates:
            update.check_intact()

    def commit(self, facts: RoundFacts) -> None:
        """From here on the round is committed, and its state the newest."""
        assert facts.commit is not None
        self._ledger.round(facts)
        self._move_alias(GLOBAL, facts.commit)

    def localized(self, update: UpdateArrived, base_version: int) -> LocalizedFacts:
        """Publish a site's own state. What the site did not adapt is the global model's, and stored once.

        Raises SpoolLost.
        """
        scope = site_scope(update.site)
        measured = dict(update.metrics)
        decision = self._decide(scope, {update.site: measured}, {update.site: 1.0})
        try:
            with SpooledFile(update.path) as file:
                file.check_intact()
                own = ((name, file.tensor(name) if name in file.entries else kept) for name, kept in self.model.items())
                lineage = {"base_version": base_version, "metrics": measured, **self._earlier([update], 0)}
                version = self._write(scope, own, lineage | self._noted(decision), ())
        except (UpdateRefused, OSError) as error:  # it was fit when it came
            raise _lost(error) from None
        facts = LocalizedFacts(
            site=update.site,
            committed_s=time.time(),
            version=version,
            samples=update.samples,
            metrics=measured,
            alias=decision.alias,
            gate=decision.reason,
        )
        self._ledger.localized(facts)
        self._move_alias(scope, facts)
        return facts

    def _earlier(self, updates: Sequence[UpdateArrived], number: int) -> dict[str, object]:
        """What a lineage says of updates that were made of other data than its cut."""
        earlier = earlier_cut(updates, number, self._cut_number)
        return {"earlier_cut": earlier} if earlier else {}

    def check_update(self, path: Path, *, whole: bool) -> None:
        """Raise UpdateRefused unless the spooled update may enter the mean."""
        max_norm = self._config.strategy.max_update_norm if whole else math.inf  # a localized state is no difference
        like = {name: tensor for name, tensor in self.model.items() if tensor.is_floating_point() or not whole}
        with TensorFile(path) as file:
            check(file, like, max_norm=max_norm, whole=whole)

    def release(self) -> None:
        """Let go of the model of a job that has ended."""
        self.model, self._outer = {}, None

    def _write(
        self,
        scope: str,
        tensors: Tensors,
        lineage: Mapping[str, object],
        resume: Tensors,
    ) -> int:
        origin = {
            "job": self._job,
            "config_sha256": self._config_sha256,
            "code": own_version(),
            "consistency": self._view.consistency,
        }
        written = write_state(
            self._view,
            model=self._config.task.name,
            scope=scope,
            tensors=tensors,
            lineage={**origin, "cut": self._cut, **lineage},
            metadata=self._metadata,
            resume=resume,
            epoch=self._ledger.epoch,
        )
        self.state_bytes += written.bytes_written
        self._heads[scope] = written.head
        return written.version

    def _decide(self, scope: str, measured: Measured, weight: Mapping[str, float]) -> Decision:
        """Decide which alias is to point to a state of the scope that measures so."""
        gate = self._config.gate
        if not gate.metric:
            return Decision("production", "")
        try:
            head = read_head(self._view, self._config.task.name, scope)
            production = read_manifest(self._view, head.model, scope, head.aliases.get("production", 0))
        except UnknownState:
            return decide(gate, measured, None, weight)
        current = production.lineage.get("metrics", {})
        # A site's own state says what that one site has measured.
        return decide(gate, measured, current if scope == GLOBAL else dict.fromkeys(measured, current), weight)

    def _noted(self, decision: Decision) -> dict[str, object]:
        """What a state's lineage says of the decision on it."""
        return {"gate": {"alias": decision.alias, "reason": decision.reason}} if self._config.gate.metric else {}

    def _move_alias(self, scope: str, committed: CommitFacts | LocalizedFacts) -> None:
        move_alias(
            self._view,
            self._config.task.name,
            scope,
            committed.version,
            alias=committed.alias,
            epoch=self._ledger.epoch,
            who=f"job {self._job}",
            why=committed.gate,
            seen=self._heads.pop(scope, None),
        )
