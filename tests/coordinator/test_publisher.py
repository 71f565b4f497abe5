"""What a job publishes of spooled updates, on a real view."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import xxhash

from coordinator.config import JobConfig
from coordinator.events import UpdateArrived
from coordinator.facts import CommitFacts, JobFacts, LocalizedFacts, RoundFacts
from coordinator.publisher import Publisher, SpoolLost
from geotrain.program import config_from_json
from geotrain.states.aliases import read_head
from geotrain.states.lookup import ModelLookup
from geotrain.tasks.features import Moments, Statistics
from geotrain.updates.chunks import Spool
from geotrain.view.connect import View, connect
from tests.conftest import ClusterUnderTest
from tests.coordinator.test_service import job_json
from tests.updates.files import encoded
from tests.view.views import view_config

MOMENTUM = {"outer": {"_target_": "torch.optim.SGD", "lr": 0.7, "momentum": 0.9, "nesterov": True}}
SITES = ("ewr", "jfk")


class World:
    """A job that has its first model."""

    def __init__(self, view: View, folder: Path) -> None:
        self.view = view
        self._folder = folder
        config = json.loads(job_json(strategy=MOMENTUM))
        config["task"]["name"] = self.model = f"published-{folder.name}"
        self.config_json = json.dumps(config)
        self.config = config_from_json(JobConfig, self.config_json)
        self.publisher = self.new_publisher()
        task = self.config.task
        self.statistics = Statistics(
            {name: Moments(2, 0.0, 2.0) for name in task.numeric()}, {name: {"a": 100} for name in task.categorical()}
        )
        self.first = self.publisher.initial({"ewr": self.statistics})
        self.commit(0, self.first)

    def new_publisher(self) -> Publisher:
        ledger = SimpleNamespace(epoch=1, round=lambda facts: None, localized=lambda facts: None)
        publisher = Publisher("j", self.config, view=self.view, ledger=ledger, allowed=["geotrain.*", "torch.*"])  # type: ignore[arg-type]
        publisher.restore(JobFacts())
        return publisher

    def commit(self, number: int, version: int) -> None:
        self.facts = JobFacts(rounds=(RoundFacts(round=number, commit=CommitFacts(committed_s=0.0, version=version)),))
        self.publisher.commit(self.facts.rounds[0])

    def arrived(self, site: str, value: float, samples: int) -> UpdateArrived:
        like = self.publisher.model
        data = encoded({name: torch.full_like(tensor, value) for name, tensor in like.items()})
        path = self._folder / f"{site}-{value}.safetensors"
        spool = Spool(path, num_bytes=len(data), xxh3=xxhash.xxh3_128_digest(data), max_bytes=1 << 30)
        spool.add(0, data)
        spool.finish()
        return UpdateArrived(site, 1, samples, {"loss": 0.5}, path)


@pytest.fixture
def world(cluster: ClusterUnderTest, tmp_path: Path) -> Iterator[World]:
    with connect(view_config(cluster)) as view:
        yield World(view, tmp_path)


@pytest.mark.parametrize("harm", ["changed", "shortened", "removed"])
def test_an_update_that_the_disk_has_spoiled_is_not_published_and_the_round_can_be_done_again(world, harm):
    first, second = world.arrived("ewr", 0.5, 10), world.arrived("jfk", 1.0, 30)
    before = second.path.read_bytes()
    spoilt = bytearray(before)
    spoilt[-100] ^= 1
    second.path.write_bytes({"changed": spoilt, "shortened": before[:-100], "removed": b""}[harm])
    if harm == "removed":
        second.path.unlink()
    with pytest.raises(SpoolLost, match="spool_dir lost an update"):
        world.publisher.reduce(1, (first, second))
    assert ModelLookup(world.view, world.model).latest().manifest.version == world.first

    second.path.write_bytes(before)
    world.publisher.restore(world.facts)
    version = world.publisher.reduce(1, (first, second))
    assert version == world.first + 1
    undisturbed = world.new_publisher()
    undisturbed.restore(world.facts)
    assert undisturbed.reduce(1, (first, second)) == version  # the same tensors and lineage: the same manifest


def test_rounds_after_a_restart_are_the_same_bits_as_without_one(world):
    for number in (1, 2, 3):
        updates = tuple(world.arrived(site, number + 0.1 * at, 10 + at) for at, site in enumerate(SITES))
        world.commit(number, world.publisher.reduce(number, updates))
        restarted = world.new_publisher()
        restarted.restore(world.facts)
        assert restarted.model.keys() == world.publisher.model.keys()
        assert all(torch.equal(tensor, world.publisher.model[name]) for name, tensor in restarted.model.items())
        if number == 2:
            world.publisher = restarted


def test_tensors_that_are_equal_do_not_move_together_after_a_restart(world):
    update = world.arrived("ewr", 0.0, 10)
    for tensor in world.publisher.model.values():
        tensor.zero_()  # equal content of equal shape is one record, and one tensor of a look-up
    world.commit(1, world.publisher.reduce(1, (update,)))
    world.publisher.restore(world.facts)
    tensors = [tensor for tensor in world.publisher.model.values() if tensor.numel()]
    assert len({tensor.shape for tensor in tensors}) < len(tensors)
    assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors)


def test_tensors_that_a_model_uses_twice_do_not_move_together(world, monkeypatch):
    layer = torch.nn.Linear(2, 2)
    monkeypatch.setattr("coordinator.publisher.build_model", lambda *_: torch.nn.Sequential(layer, layer))
    publisher = world.new_publisher()
    publisher.initial({"ewr": world.statistics})
    assert publisher.model.keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert len({tensor.data_ptr() for tensor in publisher.model.values()}) == 4


def with_gate(world: World, **gate: float) -> None:
    changes = {"gate": {"metric": "loss", **gate}}
    world.config = config_from_json(JobConfig, json.dumps(json.loads(world.config_json) | changes))
    world.publisher = world.new_publisher()
    world.publisher.restore(world.facts)


def next_round(world: World, number: int, loss: float) -> tuple[int, str]:
    """Publishes a round of this loss. Returns its version, and where it went."""
    updates = tuple(
        replace(world.arrived(site, number + 0.1 * at, 10), metrics={"loss": loss}) for at, site in enumerate(SITES)
    )
    version = world.publisher.reduce(number, updates)
    decided = world.publisher.decision
    commit = CommitFacts(committed_s=0.0, version=version, alias=decided.alias, gate=decided.reason)
    world.facts = JobFacts(rounds=(RoundFacts(round=number, commit=commit),))
    world.publisher.commit(world.facts.rounds[0])
    return version, decided.alias


def test_a_gate_lets_a_state_that_is_no_better_be_a_candidate_and_says_why(world):
    with_gate(world, min_gain=0.01)
    lookup = ModelLookup(world.view, world.model)
    first, alias = next_round(world, 1, 0.5)
    assert alias == "production"  # nobody has measured the first model
    assert next_round(world, 2, 0.495)[1] == "candidate"
    assert lookup.latest().manifest.version == first
    better, alias = next_round(world, 3, 0.4)
    assert alias == "production"
    assert lookup.latest().manifest.version == better
    lineage = lookup.latest().manifest.lineage["gate"]
    assert (lineage["alias"], "+0.1 better" in lineage["reason"]) == ("production", True)
    note = read_head(world.view, world.model, "global").history[-1]
    assert (note["who"], note["why"]) == ("job j", lineage["reason"])


def test_a_leader_that_takes_over_points_the_alias_that_the_ledger_names(world):
    with_gate(world, min_gain=0.01)
    first, _ = next_round(world, 1, 0.5)
    version, alias = next_round(world, 2, 0.5)
    assert alias == "candidate"
    successor = world.new_publisher()
    successor.settle(world.facts)
    assert ModelLookup(world.view, world.model).latest().manifest.version == first
    assert ModelLookup(world.view, world.model, alias="candidate").latest().manifest.version == version


def test_a_gate_judges_a_sites_own_states_by_what_that_site_has_measured(world, monkeypatch):
    with_gate(world, min_gain=0.01)
    lookup = ModelLookup(world.view, world.model, "site/ewr")

    def own_state(value: float, loss: float) -> LocalizedFacts:
        update = replace(world.arrived("ewr", value, 10), metrics={"loss": loss})
        return world.publisher.localized(update, world.first)

    first = own_state(1.0, 0.5)
    assert (first.alias, first.gate) == ("production", "it is the first")
    second = own_state(2.0, 0.495)
    assert (second.alias, "min_gain is 0.01" in second.gate) == ("candidate", True)
    assert lookup.latest().manifest.version == first.version
    third = own_state(3.0, 0.4)
    assert lookup.latest().manifest.version == third.version
    assert lookup.latest().manifest.lineage["gate"]["reason"] == third.gate
    monkeypatch.setattr(world.publisher, "_move_alias", lambda *_: None)  # it is stopped before
    fourth = own_state(4.0, 0.395)
    world.new_publisher().settle(replace(world.facts, localized={"ewr": fourth}))
    head = read_head(world.view, world.model, "site/ewr")
    assert head.aliases == {"production": third.version, "candidate": fourth.version}
    assert head.history[-1]["why"] == fourth.gate
