import re
import socket

import pytest

from geotrain.errors import ViewError
from geotrain.view.config import ViewConfig
from geotrain.view.links import LinkRefused, Links
from geotrain.view.nodes import NobodyAnswers, Nodes
from geotrain.wire.info import encode_peers
from geotrain.wire.partitions import encode_replicas
from tests.view.fake_node import FakeNode


def nodes(*hosts: str, **changes) -> Nodes:
    return Nodes(ViewConfig(hosts=list(hosts), connect_timeout_s=1.0, **changes))


@pytest.fixture
def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_nodes_are_found_through_the_peers_of_any_seed_that_answers(closed_port):
    with FakeNode("A1") as one, FakeNode("A2", rack_ids="geotrain:2") as two:
        one.answer({"peers-clear-std": encode_peers(1, 3000, [("A2", "127.0.0.1", two.port)])})
        two.answer({"peers-clear-std": encode_peers(1, 3000, [("A1", "127.0.0.1", one.port)])})
        cluster = nodes(closed_port, one.address)
        known = cluster.partition_map()
        assert dict(zip(known.nodes, known.racks.tolist(), strict=True)) == {"A1": 1, "A2": 2}
        assert cluster.addresses == {"A1": ("127.0.0.1", one.port, "127.0.0.1"), "A2": ("127.0.0.1", two.port, "")}


def test_a_node_under_two_addresses_is_one_node():
    with FakeNode("A1") as one:
        known = nodes(one.address, f"localhost:{one.port}").partition_map()
        assert known.nodes == ["A1"]


def test_nodes_that_were_known_are_asked_when_no_seed_answers():
    with FakeNode("A2") as two:
        with FakeNode("A1", peers_clear_std=encode_peers(1, 3000, [("A2", "127.0.0.1", two.port)])) as one:
            cluster = nodes(one.address)
            assert len(cluster.partition_map().nodes) == 2
        assert cluster.partition_map().nodes == ["A2"]


def test_a_node_that_is_silent_is_not_waited_for_as_long_as_a_cluster_is_looked_for(monkeypatch):
    monkeypatch.setattr("geotrain.view.nodes.NODE_DEADLINE_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, FakeNode("A1") as one:
        one.answer({"peers-clear-std": encode_peers(1, 3000, [("A2", "127.0.0.1", silent.getsockname()[1])])})
        patient = Nodes(ViewConfig(hosts=[one.address], connect_timeout_s=300.0))
        assert patient.partition_map().nodes == ["A1"]


def test_a_recent_map_is_asked_for_again_when_it_is_old(monkeypatch):
    with FakeNode("A1") as node:
        cluster = nodes(node.address)
        first = cluster.recent_map()
        assert cluster.recent_map() is first
        monkeypatch.setattr("geotrain.view.nodes.MAX_MAP_AGE_S", 0.0)
        assert cluster.recent_map() is not first


def test_a_node_that_left_can_not_be_opened():
    with pytest.raises(ConnectionError, match="it has left the cluster"):
        nodes("127.0.0.1:1").open("A1")


def test_while_no_node_is_ready_those_of_the_last_map_stay_known():
    with FakeNode("A1") as one:
        with FakeNode("A2") as two:
            cluster = nodes(one.address, two.address)
            cluster.partition_map()
        one.answer({"partition-generation": "-1"})
        with pytest.raises(ViewError, match="namespace geotrain"):
            cluster.partition_map()
        assert sorted(cluster.addresses) == ["A1", "A2"]
        with pytest.raises(ConnectionRefusedError):
            cluster.open("A2")


def test_no_answer_at_all_is_refused_with_every_address_and_its_reason(closed_port):
    with FakeNode(peers_clear_std="rubbish") as damaged, pytest.raises(ViewError) as refused:
        nodes(closed_port, damaged.address).partition_map()
    assert re.search(rf"{closed_port} .*refused.*; {damaged.address} .*not a list of peers", str(refused.value))


def failing_at_first(monkeypatch, error: Exception) -> list[str]:
    """From now on nodes can't be asked the first time. Returns the ports that are asked."""
    ask, asked = Links.ask, []

    def asking(links, address, *arguments):
        asked.append(address[1])
        if len(asked) == 1:
            raise error
        return ask(links, address, *arguments)

    monkeypatch.setattr(Links, "ask", asking)
    return asked


def test_a_cluster_that_does_not_answer_for_a_moment_is_asked_again(monkeypatch):
    with FakeNode("A1") as node:
        asked = failing_at_first(monkeypatch, TimeoutError("timed out"))
        assert nodes(node.address).awaited_map().nodes == ["A1"]
        assert asked == [node.port] * 2


def test_a_cluster_that_does_not_answer_at_all_is_given_up_after_a_while(closed_port):
    with pytest.raises(NobodyAnswers, match=closed_port):
        nodes(closed_port, ride_through_s=0.2).awaited_map()


def test_a_cluster_that_says_why_it_takes_nobody_is_not_asked_again(monkeypatch):
    with FakeNode("A1") as node:
        asked = failing_at_first(monkeypatch, LinkRefused("it knows no such user", "set view.user"))
        with pytest.raises(ViewError, match="no such user"):
            nodes(node.address).awaited_map()
        assert asked == [node.port]


def test_a_node_that_has_not_joined_its_cluster_yet_is_not_asked_for_rows():
    with FakeNode("A1", partition_generation="-1") as joining, pytest.raises(ViewError, match="namespace geotrain"):
        nodes(joining.address).partition_map()


def test_a_namespace_that_is_not_there_is_refused_with_those_that_are():
    with FakeNode(replicas=encode_replicas("other", 1, [[]])) as node:
        with pytest.raises(ViewError, match="namespace geotrain is not known") as refused:
            nodes(node.address).partition_map()
        assert "other" in refused.value.remedy


@pytest.mark.parametrize("answer", ["set=s:objects=many;", "set=s;", "ERROR:4:no"])
def test_where_no_node_says_what_sets_there_are_none_is_called_unknown(answer):
    with FakeNode("A1") as one:
        cluster = nodes(one.address)
        cluster.partition_map()
        one.answer({"sets/geotrain": answer})
        with pytest.raises(ViewError, match="no node says what sets namespace geotrain has"):
            cluster.objects()


def test_a_damaged_partition_map_is_refused_with_the_node():
    with FakeNode("A1", replicas="geotrain:1,1,AAAA") as node, pytest.raises(ViewError, match="node A1 sent no part"):
        nodes(node.address).partition_map()


def test_an_edition_without_racks_has_none():
    with FakeNode(rack_ids="ERROR:25:enterprise only") as node:
        assert nodes(node.address).partition_map().racks.tolist() == [-1]


def test_an_address_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ViewError, match="timed out"):
            Nodes(ViewConfig(hosts=[host], connect_timeout_s=0.2)).partition_map()


def test_the_records_of_a_set_are_counted_over_all_nodes():
    sets = "ns=geotrain:set=legs:objects=3:tombstones=0;ns=geotrain:set=empty:objects=0;"
    with FakeNode("A2") as two, FakeNode("A1") as one:
        for node in (one, two):
            node.answer({"sets/geotrain": sets})
        one.answer({"peers-clear-std": encode_peers(1, 3000, [("A2", "127.0.0.1", two.port)])})
        cluster = nodes(one.address)
        cluster.partition_map()
        assert cluster.objects() == {"legs": 6, "empty": 0}
