"""What tools ask of a server, and how they are answered where the simulation has nothing to say."""

import pytest

from sim.cluster.answers.info import answer
from tests.sim.cluster.in_process import Commands


@pytest.fixture(scope="module")
def commands() -> Commands:
    return Commands(strong_consistency=False)


HISTOGRAMS = ["batch-index", *(f"{{test}}-{kind}" for kind in ("read", "write", "udf", "pi-query", "si-query"))]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("edition", "Aerospike Enterprise Edition"),
        ("version", "Aerospike Enterprise Edition build 8.1.2.0"),
        ("build", "8.1.2.0"),
        ("status", "ok"),
        ("latencies:", ";".join(f"{name}:" for name in HISTOGRAMS)),
        ("latencies:hist={test}-read", "{test}-read:"),
        ("latencies:hist={test}-nosuch", "ERROR:4:bad 'hist' '{test}-nosuch'"),
        ("histogram:namespace=test;type=ttl", "hist-unavailable"),
        ("histogram:namespace=test;set=s;type=object-size-linear", "hist-unavailable"),
        (
            "histogram:namespace=test;type=colour",
            "ERROR:4:bad 'type' - must be one of ttl, object-size, object-size-linear",
        ),
        ("histogram:namespace=nosuch;type=ttl", "ERROR:4:bad namespace 'nosuch'"),
        ("health-outliers", ""),
        ("health-stats", ""),
        ("best-practices", "failed_best_practices=none"),
        ("bins/test", "ERROR:4:unrecognized command"),
        ("dump-cluster:verbose=true", "ERROR:4:unrecognized command"),
        ("racks:namespace=nosuch", "ERROR:4:bad namespace 'nosuch'"),
        ("namespace/nosuch", "ERROR:4:bad namespace 'nosuch'"),
        ("sets/test/nosuch", ""),
        ("sindex-create:ns=test;set=a:b;indexname=i;bin=a;type=numeric", "ERROR:4:bad 'set'"),
    ],
)
def test_tools_get_a_server_s_answer_or_its_error(commands: Commands, request_: str, expected: str) -> None:
    assert answer(commands.cluster, commands.cluster.nodes[0], request_) == expected


def test_the_addresses_of_a_node_and_of_the_others_are_told_to_old_clients(commands: Commands) -> None:
    nodes = commands.cluster.nodes
    own, *others = (answer(commands.cluster, node, "service") for node in nodes)
    assert own == answer(commands.cluster, nodes[0], "service-clear-std") == "127.0.0.1:0"
    assert answer(commands.cluster, nodes[0], "services") == ";".join(others)
    alumni, peers = (answer(commands.cluster, nodes[0], f"{who}-clear-std") for who in ("alumni", "peers"))
    assert alumni == peers


@pytest.mark.parametrize(
    "request_", ["cluster-stable:", "cluster-stable:size=3", "cluster-stable:size=3;namespace=test"]
)
def test_all_nodes_of_a_stable_cluster_give_the_same_token(commands: Commands, request_: str) -> None:
    (token,) = {answer(commands.cluster, node, request_) for node in commands.cluster.nodes}
    assert token == commands.cluster.nodes[0].view.cluster_key


@pytest.mark.parametrize("request_", ["cluster-stable:size=2", "cluster-stable:namespace=nosuch"])
def test_a_cluster_of_another_size_or_namespace_is_not_called_stable(commands: Commands, request_: str) -> None:
    assert answer(commands.cluster, commands.cluster.nodes[0], request_).startswith("ERROR:")
