"""The demo takes the same overrides as a launch, and refuses what it has no data or no rack for."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from geotrain.errors import ConfigError
from geotrain.program import to_config
from sim.config import SimConfig, register

register()
CONFIGS = Path(__file__).parents[2] / "configs"


def composed(name: str, *overrides: str) -> Any:
    with initialize_config_module("configs", version_base="1.3"):
        return to_config(compose(name, list(overrides)))


def sim(*overrides: str) -> SimConfig:
    config = composed("sim", "output_dir=somewhere", *overrides)
    assert isinstance(config, SimConfig)
    return config


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["rounds=3", "strategy=nesterov", "task.training.epochs=1"],
        ["experiment=diloco"],
        ["sites=[ewr,lga]", "seed=7", "task.model.width=16", "strategy.outer.lr=0.5"],
    ],
)
def test_a_job_is_the_same_whether_the_demo_or_a_launch_composes_it(overrides: list[str]) -> None:
    launched = asdict(composed("launch", "coordinator=c:1", *overrides))
    assert asdict(sim(*overrides).launch("c:1")) == launched


@pytest.mark.parametrize("scenario", sorted(path.stem for path in (CONFIGS / "scenario").glob("*.yaml")))
def test_every_scenario_composes(scenario: str) -> None:
    assert sim(f"scenario={scenario}").sites


def test_what_is_typed_beats_the_scenario() -> None:
    assert sim("scenario=smoke").rounds == 1
    assert sim("scenario=smoke", "rounds=2", "days_a_month=3").rounds == 2


def test_agents_have_patience_with_a_simulated_cluster_that_takes_in_the_data() -> None:
    assert sim().view_of("jfk", ["127.0.0.1:1"]).connect_timeout_s == 30
    assert sim("view.connect_timeout_s=60").view_of("jfk", ["127.0.0.1:1"]).connect_timeout_s == 60


def test_an_external_cluster_is_named_by_its_hosts() -> None:
    config = sim("cluster=external", "cluster.hosts=[10.0.0.1:3000]", "view.require_strong_consistency=false")
    view = config.view_of("jfk", config.cluster.hosts)
    assert view.connect_timeout_s == 5.0
    assert (view.hosts, view.rack, view.require_strong_consistency) == (["10.0.0.1:3000"], 2, False)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["cluster=external"], "cluster.hosts"),
        (["cluster.hosts=[10.0.0.1:3000]"], "cluster.hosts"),
        (["sites=[ewr,sfo]"], "no data for 'sfo'"),
        (["cluster.racks={jfk: 1, lga: 2}", "~cluster.racks.ewr"], "cluster.racks"),
        (["days_a_month=0"], "days_a_month"),
        (["capture_bytes=0"], "capture_bytes"),
        (["rounds=0"], "rounds"),
    ],
)
def test_a_refusal_names_the_field(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        sim(*overrides)
