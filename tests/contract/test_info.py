"""What every node tells of itself and of what it holds, asked as tools do."""

from typing import Any

import pytest
from aerospike import exception

from geotrain.wire.info import decode_parameters
from tests.conftest import ClusterUnderTest


def ask(client: Any, request: str) -> list[str]:
    """The answer of every node, as text."""
    answers = client.info_all(request).values()
    assert [error for error, _ in answers] == [None] * len(answers)
    return [answer.rstrip("\n") for _, answer in answers]


def test_every_node_is_another_and_knows_how_many_they_are(client: Any) -> None:
    nodes = ask(client, "node")
    assert len(set(nodes)) == len(nodes)
    for statistics in map(decode_parameters, ask(client, "statistics")):
        assert statistics["cluster_size"] == str(len(nodes))
        assert statistics["cluster_integrity"] == "true"
        assert int(statistics["client_connections"]) >= 1


def test_all_nodes_of_a_stable_cluster_give_the_same_token(client: Any, cluster: ClusterUnderTest) -> None:
    assert len(set(ask(client, f"cluster-stable:namespace={cluster.namespace}"))) == 1


def test_records_are_counted_by_set_once_for_every_copy(client: Any, cluster: ClusterUnderTest, set_name: str) -> None:
    for number in range(20):
        client.put((cluster.namespace, set_name, number), {"n": number})
    sets = [
        decode_parameters(text.strip(";").replace(":", ";"))
        for text in ask(client, f"sets/{cluster.namespace}/{set_name}")
    ]
    namespaces = [decode_parameters(text) for text in ask(client, f"namespace/{cluster.namespace}")]
    num_copies = int(namespaces[0]["effective_replication_factor"])
    assert sum(int(each.get("objects", 0)) for each in sets) == 20 * num_copies
    assert {each["set"] for each in sets if each} == {set_name}


def test_a_namespace_is_told_of_with_its_configuration(client: Any, cluster: ClusterUnderTest) -> None:
    told = decode_parameters(ask(client, f"namespace/{cluster.namespace}")[0])
    configured = decode_parameters(ask(client, f"get-config:context=namespace;id={cluster.namespace}")[0])
    assert configured.items() <= told.items()
    assert configured["strong-consistency"] == str(cluster.strong_consistency).lower()


@pytest.mark.parametrize("request_", ["nosuchcommand", "get-config:context=nosuch", "set-config:context=nosuch;a=b"])
def test_what_a_server_does_not_know_is_an_error(client: Any, request_: str) -> None:
    with pytest.raises(exception.AerospikeError):
        client.info_all(request_)
