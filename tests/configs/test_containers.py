"""The compose files: every command is one that its program takes, and the regions are apart."""

import os
import re
import subprocess
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir, initialize_config_module

import coordinator.config
import sim.cluster.config
import sim.wan.config
import site_agent.config
from geotrain.program import to_config
from tests.conftest import ROOT

for program in (coordinator.config, site_agent.config, sim.cluster.config, sim.wan.config):
    program.register()

REGIONS = {"ewr", "jfk", "lga"}
SETTINGS = {"GEOTRAIN_SITE": "fra", "GEOTRAIN_RACK": "4", "GEOTRAIN_VIEW": "10.0.0.7:3000"}


def services(file: str, *, with_comments: bool = False) -> dict[str, Any]:
    """with_comments: as an operator makes it who takes the sign off the lines that are settings."""
    text = (ROOT / file).read_text()
    text = text.replace("# - ", "- ") if with_comments else text
    text = re.sub(r"\$\{(\w+):[-?]([^}]*)\}", lambda found: SETTINGS.get(found[1], found[2]), text)
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


MULTISITE = services("docker-compose.multisite.yml")


def configured(command: list[str]) -> Any:
    name = {"coordinator.launch": "launch"}.get(command[0], command[0])
    with initialize_config_module("configs", version_base="1.3"):
        return to_config(compose(name, overrides=command[1:]))


@pytest.mark.parametrize("name", [name for name in MULTISITE if re.match("coordinator|agent|job", name)])
def test_what_a_container_starts_is_a_valid_configuration_with_mutual_tls(name):
    config = configured(MULTISITE[name]["command"])
    assert config.tls.cert == "/run/tls/cert.pem"
    mounted = [volume for volume in MULTISITE[name]["volumes"] if ":/run/tls" in volume]
    who = {"coordinator": "coordinator", "job": "operator"}.get(name.partition("-")[0], name.partition("-")[2])
    assert mounted == [f"tls-{who}:/run/tls:ro"], "its own certificate, and no other"


def test_the_cluster_and_the_wide_area_are_valid_configurations_of_the_same_regions():
    with initialize_config_dir(str(ROOT / "deploy/multisite"), version_base="1.3"):
        overrides = ["hydra.searchpath=[pkg://configs]"]
        cluster = to_config(compose("multisite_cluster", overrides=overrides))
        wan = to_config(compose("multisite_wan", overrides=overrides))
    assert set(cluster.client_sites) == set(cluster.client_addresses) == REGIONS
    assert cluster.links == wan.links
    listened = {route.listen.rpartition(":")[2]: route for route in wan.routes.values()}
    for home in ("ewr", "jfk"):
        config = configured(MULTISITE[f"coordinator-{home}"]["command"])
        for site, address in config.advertise_to.items():
            route = listened[address.rpartition(":")[2]]
            assert (route.site, route.target_site, route.target) == (site, home, config.advertise)


def test_only_the_nodes_and_the_wide_area_are_in_more_than_one_region():
    nodes = {name for name in MULTISITE if re.match("node|aerospike|community", name)}
    assert {name for name, service in MULTISITE.items() if len(service["networks"]) > 1} == {"wan", *nodes}
    assert MULTISITE["cluster"]["networks"] == ["nodes"]
    for name, service in MULTISITE.items():
        region = name.rpartition("-")[2]
        if region in REGIONS and name not in nodes:
            assert service["networks"] == [region]


def test_a_container_stands_for_each_node_of_the_simulated_cluster_where_its_clients_are_sent():
    with initialize_config_dir(str(ROOT / "deploy/multisite"), version_base="1.3"):
        cluster = to_config(compose("multisite_cluster", overrides=["hydra.searchpath=[pkg://configs]"]))
    assert set(cluster.nodes) == REGIONS
    for at, name in enumerate(cluster.nodes):
        program, of, life, *targets = MULTISITE[f"node-{name}"]["command"]
        assert (program, of, life) == ("sim.node", f"--name={name}", f"--life=cluster:{cluster.life_port}")
        found_at = {site: address.replace("{node}", name) for site, address in cluster.client_addresses.items()}
        assert {host.rpartition(":")[0] for host in found_at.values()} == {f"node-{name}"}
        assert targets == [f"cluster:{int(address.rpartition(':')[2]) + at}" for address in found_at.values()]
        agent = configured(MULTISITE[f"agent-{name}"]["command"])
        assert agent.view.hosts == [f"node-{name}:{int(found_at[name].rpartition(':')[2]) + at}"]


def test_nothing_waits_for_what_another_profile_has():
    """Compose takes no file in which a service depends on one that its profile does not have."""
    assert (ROOT / ".env").read_text() == "COMPOSE_PROFILES=simulated\n"
    for service in MULTISITE.values():
        for name in service.get("depends_on", {}):
            assert MULTISITE[name].get("profiles", service.get("profiles")) == service.get("profiles")


@pytest.mark.parametrize("edition", ["enterprise", "community"])
def test_each_region_finds_a_node_of_aerospike_where_it_finds_the_simulated_one(edition):
    prefix = {"enterprise": "aerospike", "community": "community"}[edition]
    for region in sorted(REGIONS):
        node = MULTISITE[f"{prefix}-{region}"]
        agent = configured(MULTISITE[f"agent-{region}"]["command"])
        assert node["networks"][region] == {"aliases": [f"node-{region}"]}
        assert agent.view.hosts == [f"node-{region}:{node['environment']['PORT']}"]
        assert node["environment"]["RACK"] == str(agent.view.rack)
        assert node["profiles"] == [f"aerospike-{edition}"]


@pytest.mark.parametrize("edition", ["enterprise", "community"])
def test_a_node_of_aerospike_starts_with_its_own_id_port_and_rack(edition, tmp_path):
    (tmp_path / "asd").write_text('#!/bin/sh\ncat "$3"\n')
    (tmp_path / "asd").chmod(0o755)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NODE_ID": "a7", "PORT": "3170", "RACK": "7"}
    config = subprocess.run(
        [ROOT / "deploy/aerospike/start.sh", edition], env=own, text=True, capture_output=True
    ).stdout
    lines = [line.split() for line in config.splitlines()]
    assert ["node-id", "a7"] in lines
    assert ["port", "3170"] in lines
    is_enterprise = edition == "enterprise"
    assert (["rack-id", "7"] in lines) == (["strong-consistency", "true"] in lines) == is_enterprise
    assert config.count("{") == config.count("}")
    assert not re.search("NODE_ID|PORT|RACK", config)


def test_a_feature_key_that_is_missing_is_said_in_one_line(tmp_path):
    _, _, look = MULTISITE["feature-key"]["entrypoint"]
    for content, said in (("", "error: no feature-key file: name it in GEOTRAIN_FEATURE_KEY\n"), ("key", "")):
        key = tmp_path / "features.conf"
        key.write_text(content)
        done = subprocess.run(
            ["sh", "-c", look.replace("/run/secrets/features.conf", str(key))], text=True, capture_output=True
        )
        assert (done.stderr, done.returncode) == (said, 2 if said else 0)


def test_the_agent_of_one_region_takes_three_settings():
    config = configured(services("deploy/agent.compose.yml")["agent"]["command"])
    assert (config.site.name, config.view.rack, config.view.hosts) == ("fra", 4, ["10.0.0.7:3000"])
    assert config.tls.ca


def test_the_agent_of_one_region_logs_in_with_files_that_are_mounted():
    agent = services("deploy/agent.compose.yml", with_comments=True)["agent"]
    view = configured(agent["command"]).view
    assert (view.tls.ca, view.user, view.password_file) == ("/run/view/ca.pem", "geotrain-ewr", "/run/view/password")
    assert "./view:/run/view:ro" in agent["volumes"]
