"""Histories of one model's states, drawn from a seed: leaders, people and collectors, killed at any of their writes.

They run one at a time in this process, each coming upon the others between two of its writes; the cluster and the
readers are other processes. Knows no verdict but that what is needed is there, whole.
"""

import contextlib
import copy
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import torch

from geotrain.errors import Fenced, GeotrainError
from geotrain.states.aliases import head_of, pin, promote, rollback, unpin
from geotrain.states.collect import collect, retention
from geotrain.states.heads import fence, move_alias
from geotrain.states.lookup import ModelLookup, State
from geotrain.states.manifest import ALIASES, MANIFESTS, TENSORS, Manifest, UnknownState, head_key, reference
from geotrain.states.publish import write_state
from geotrain.view.connect import View
from geotrain.view.query import read_set
from geotrain.view.removal import digest_of
from tests.simulation.rounds.patches import AtOnce
from tests.simulation.states.writes import Client, Killed
from tests.states.clock import GRACE_S, Clock

SCOPE = "global"
NUM_ACTS = 14
NUM_NEWEST = 2
MAX_DEPTH = 2


class Violation(AssertionError):
    """A promise that was broken."""


def tensors(value: int) -> dict[str, torch.Tensor]:
    """States share parts, and come back to those that others had before them."""
    return {"body": torch.full((6,), float(value // 3)), "head": torch.full((4,), float(value))}


def check_whole(state: State) -> None:
    """Raises Violation where tensors and manifest are not of one state."""
    value = state.manifest.lineage["value"]
    if not all(torch.equal(state.tensors[name], tensor) for name, tensor in tensors(value).items()):
        raise Violation(f"{state.manifest.reference} has tensors of another state")


class World:
    """One history. story: what happened, for whoever has to understand it."""

    def __init__(self, view: View, clock: Clock, seed: int, *, cuts: bool) -> None:
        self.model = f"m{seed}"
        self.story: list[str] = []
        self.went_back_to: set[int] = set()
        self._random = Random(seed)
        self._calm = view
        self._view = copy.copy(view)
        self._client = Client(view.client, self._random, self._before_a_write, self._tell)
        self._view.client = self._client
        self._view.threads = AtOnce()
        self._clock = clock
        self._cuts = cuts
        self._cut_writes = 0  # until the site that is cut off is back
        self._depth = 0
        self._epoch = 1
        self._fenced = 0
        self._committed = 0
        self._pending: dict[str, Any] | None = None
        self._published: set[int] = set()
        self._production = 0
        self._readers: list[tuple[Manifest, float]] = []

    def run(self) -> int:
        """Plays the history to its end. Returns the version in production. Raises Violation."""
        for _ in range(NUM_ACTS):
            self._act()
        return self._settle()

    def _before_a_write(self) -> None:
        if self._cut_writes:
            self._cut_writes -= 1
            if not self._cut_writes:
                self._tell("the site that was cut off is back")
                self._clock.control.order("heal")
        if self._depth < MAX_DEPTH and self._random.random() < 0.25:
            self._act()

    # Who does what.

    def _act(self) -> None:
        acts: dict[Callable[[], None], int] = {
            self._lead: 6 if not self._depth else 0,
            self._take_over: 3,
            self._publish: 2,
            self._publish_again: 4,
            self._go_back: 2,
            self._go_forward: 2,
            self._pin: 1,
            self._unpin: 1,
            self._collect: 6 if not self._depth else 12,  # all the while
            self._pass_time: 4,
            self._begin_to_read: 2,
            self._end_to_read: 2,
            self._cut_off: 12 if self._cuts and self._depth and not self._cut_writes else 0,  # amid others' writes
        }
        (act,) = self._random.choices(list(acts), list(acts.values()))
        self._tell(act.__name__.strip("_").replace("_", " "))
        self._depth += 1
        try:
            act()
        except Killed:
            pass
        except Violation:
            raise
        except GeotrainError as error:
            self._tell(f"it ends: {error.what}")
        finally:
            self._depth -= 1
        self.check()

    def _lead(self) -> None:
        """The coordinator of this epoch finishes what was begun, and publishes the next."""
        epoch, view = self._epoch, self._view
        if self._fenced < epoch:
            fence(view, self.model, SCOPE, epoch=epoch)
            self._fenced = max(self._fenced, epoch)
        if self._committed:
            move_alias(view, self.model, SCOPE, self._committed, epoch=epoch)
        self._pending = self._pending or self._fields("job")
        fields = self._pending
        version = write_state(view, epoch=epoch, **fields).version
        if epoch < self._epoch:
            raise Fenced("the ledger is of a later epoch")
        self._committed, self._pending = version, None
        self._published.add(version)
        self._tell(f"version {version} is committed under epoch {epoch}")
        move_alias(view, self.model, SCOPE, version, epoch=epoch)

    def _take_over(self) -> None:
        self._epoch += 1
        self._lead()

    def _publish(self) -> None:
        """Somebody who is no coordinator has a candidate."""
        self._publish_fields(self._fields("by hand"))

    def _publish_again(self) -> None:
        """Somebody is killed before the manifest, and calls again when the parts are old."""
        fields = self._fields("by hand")
        self._client.doomed = MANIFESTS
        with contextlib.suppress(Killed):
            write_state(self._view, **fields)
        self._client.doomed = ""
        self._clock.advance(GRACE_S * self._random.choice([0.6, 1.01]))
        self._publish_fields(fields)

    def _publish_fields(self, fields: dict[str, Any]) -> None:
        version = write_state(self._view, **fields).version
        self._published.add(version)
        move_alias(self._view, self.model, SCOPE, version, alias="candidate")

    def _go_back(self) -> None:
        version = self._any_version()
        self.went_back_to.add(version)
        rollback(self._view, self.model, SCOPE, version)

    def _go_forward(self) -> None:
        promote(self._view, self.model, SCOPE, self._any_version())

    def _pin(self) -> None:
        pin(self._view, self.model, SCOPE, self._any_version())

    def _unpin(self) -> None:
        for version in list(self._head().get("pins", {}))[:1]:
            unpin(self._view, self.model, SCOPE, version)

    def _collect(self) -> None:
        found = collect(self._view, num_newest=NUM_NEWEST, grace_s=GRACE_S)
        self._tell(f"given up: {found.retired}, removed: {found.removed} and {found.num_parts_removed} parts")

    def _pass_time(self) -> None:
        self._clock.advance(GRACE_S * self._random.choice([0.05, 0.2, 0.3, 0.6, 1.01]))

    def _cut_off(self) -> None:
        self._clock.control.order("cut:site=lga")
        self._cut_writes = self._random.randrange(2, 8)

    def _begin_to_read(self) -> None:
        """A reader has a manifest, and no part yet. It has its grace to fetch them."""
        version = self._head().get("aliases", {}).get("production")
        if version:
            record = self._calm.get(MANIFESTS, reference(self.model, SCOPE, version), reads="linearizable")
            if record is None:
                raise Violation(f"production points to {version}, which is not there")
            self._readers.append((Manifest.from_bytes(record.bins["manifest"]), self._clock.ahead_s))

    def _end_to_read(self) -> None:
        for manifest, began_s in self._readers:
            if self._clock.ahead_s - began_s < GRACE_S:
                there = self._calm.exist(TENSORS, sorted(manifest.parts))
                if not all(there):
                    raise Violation(f"{manifest.reference} lost parts within its readers' grace")
        self._readers.clear()

    def _fields(self, job: str) -> dict[str, Any]:
        value = self._random.randrange(12)
        lineage = {"job": job, "value": value, "drawn": self._random.random()}
        named = list(tensors(value).items())
        return {"model": self.model, "scope": SCOPE, "tensors": named, "lineage": lineage, "metadata": {}}

    # What is promised.

    def check(self) -> None:
        """Raises Violation unless all that aliases and pins name is there, whole, and no alias went back by itself."""
        head = self._head()
        lookup = ModelLookup(self._calm, self.model)
        for version in {*head.get("aliases", {}).values(), *head.get("pins", {})}:
            if version not in self._published:
                raise Violation(f"version {version} is named, and was never committed")
            try:
                check_whole(lookup.at(version))
            except GeotrainError as error:
                raise Violation(f"version {version} is named, and can't be read: {error.what}") from None
        production = head.get("aliases", {}).get("production", 0)
        if production < self._production and production not in self.went_back_to:
            raise Violation(f"production went back from {self._production} to {production}")
        self._production = production

    def _settle(self) -> int:
        """All is well again, and everybody ends; returns the version in production."""
        self._tell("all is well again")
        self._clock.control.order("heal")
        self._client.send_late()
        self._view = self._calm
        self._epoch += 1
        try:
            self._lead()
        except UnknownState as error:
            raise Violation(f"version {self._committed} is committed: {error.what}") from None
        for _ in range(3):
            self._clock.advance(GRACE_S * 1.01)
            self._collect()
        self.check()
        self._check_nothing_is_left()
        return self._production

    def _check_nothing_is_left(self) -> None:
        head = self._head()
        needed = {reference(self.model, SCOPE, version) for version in retention(head_of(head), NUM_NEWEST)}
        parts = set()
        for row in read_set(self._calm, MANIFESTS, ["manifest", "epoch"]):
            manifest = Manifest.from_bytes(row["manifest"])
            parts |= manifest.parts
            is_draft = "epoch" in row and manifest.version > head["newest"]
            if manifest.reference not in needed and not is_draft:
                raise Violation(f"{manifest.reference} is still there, and nothing needs it")
        held = self._calm.client.query(self._calm.config.namespace, TENSORS).results({}, {"nobins": True})
        if {bytes(key[3]) for key, _, _ in held} != {digest_of(self._calm, TENSORS, part) for part in parts}:
            raise Violation(f"{len(held)} parts are there, and {len(parts)} are named")

    def _head(self) -> Mapping[str, Any]:
        record = self._calm.get(ALIASES, head_key(self.model, SCOPE), reads="linearizable")
        return record.bins if record else {}

    def _any_version(self) -> int:
        return self._random.choice(sorted(self._published) or [1])

    def _tell(self, text: str) -> None:
        self.story.append(f"{self._clock.ahead_s:8.1f} s {'  ' * self._depth}{text}")


def until(fact: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    """Waits for a fact. Raises Violation where it does not come to be."""
    end_s = time.monotonic() + deadline_s
    while not fact():
        if time.monotonic() > end_s:
            raise Violation(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.01)
