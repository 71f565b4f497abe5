"""Every configuration that can be chosen composes into a valid one."""

from importlib.resources import files

import pytest
from hydra import compose, initialize_config_module

import coordinator.config
import sim.cluster.config
import sim.config
import site_agent.config
from geotrain.errors import ConfigError
from geotrain.program import to_config

for program in (coordinator.config, site_agent.config, sim.config, sim.cluster.config):
    program.register()


def options(group: str) -> list[str]:
    return sorted(entry.name.removesuffix(".yaml") for entry in (files("configs") / group).iterdir())


def composed(config_name: str, *overrides: str) -> object:
    # The demo's folder is the run's, which only a running program has.
    folder = ["output_dir=outputs"] if config_name == "sim" else []
    with initialize_config_module("configs", version_base="1.3"):
        return to_config(compose(config_name, overrides=[*folder, *overrides]))


@pytest.mark.parametrize("site", sorted({*options("site")} - {"own"}))
def test_every_site_composes_and_reads_from_its_own_rack(site):
    config = composed("site_agent", f"site={site}")
    assert config.site.name == site
    assert config.view.rack == config.site.rack


def test_a_region_of_ones_own_is_named_on_the_command_line():
    config = composed("site_agent", "site=own", "site.name=fra", "site.rack=4", "site.data_dir=data")
    assert (config.site.name, config.view.rack) == ("fra", 4)
    with pytest.raises(ConfigError, match=r"site\.name"):
        composed("site_agent", "site=own")


@pytest.mark.parametrize("strategy", options("strategy"))
def test_every_strategy_composes(strategy):
    assert isinstance(composed("launch", f"strategy={strategy}"), coordinator.config.LaunchConfig)


@pytest.mark.parametrize("program", ["launch", "sim"])
def test_a_gate_is_set_on_the_command_line_and_needs_its_metric(program):
    assert not composed(program).gate.metric
    assert composed(program, "gate.metric=auc", "gate.min_gain=0.01").gate.min_gain == 0.01
    with pytest.raises(ConfigError, match=r"gate\.metric must name"):
        composed(program, "gate.min_gain=0.01")


@pytest.mark.parametrize("experiment", options("experiment"))
@pytest.mark.parametrize("program", ["launch", "sim"])
def test_every_experiment_composes_for_a_launch_and_for_the_demo(program, experiment):
    assert isinstance(composed(program, f"experiment={experiment}"), coordinator.config.JobConfig)


@pytest.mark.parametrize("scenario", options("scenario"))
def test_every_scenario_composes(scenario):
    assert isinstance(composed("sim", f"scenario={scenario}"), sim.config.SimConfig)


@pytest.mark.parametrize("cluster", options("cluster"))
def test_every_cluster_composes(cluster):
    hosts = ["cluster.hosts=[10.0.0.7:3000]"] if cluster == "external" else []
    assert isinstance(composed("sim", f"cluster={cluster}", *hosts), sim.config.SimConfig)


def test_an_experiment_wins_over_the_defaults_and_the_command_line_over_the_experiment():
    assert composed("launch", "experiment=diloco").rounds == 3
    assert composed("launch", "experiment=diloco").strategy == composed("launch", "strategy=nesterov").strategy
    assert composed("launch", "experiment=diloco", "rounds=4").rounds == 4


def test_a_job_is_overridden_in_the_demo_as_in_a_launch():
    overrides = ("rounds=3", "strategy=nesterov", "task.training.epochs=2")
    demo, launch = composed("sim", *overrides), composed("launch", *overrides)
    assert (demo.rounds, demo.strategy, demo.task) == (launch.rounds, launch.strategy, launch.task)
