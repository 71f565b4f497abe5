import pytest

from geotrain.wire import codes
from geotrain.wire.messages import Message
from sim.cluster.cluster import Cluster, Node
from sim.cluster.config import ClusterConfig, NodeConfig
from sim.cluster.sites.distances import wait_s
from sim.wan.model import LinkConfig

READ, WRITE = Message(info1=codes.INFO1_READ), Message(info2=codes.INFO2_WRITE)
LINEARIZE = Message(info1=codes.INFO1_READ, info3=codes.INFO3_SC_READ_TYPE)
REPLICA = Message(info1=codes.INFO1_READ, info3=codes.INFO3_SC_READ_RELAX)
LINKS = {
    "near": LinkConfig(sites=["a", "b"], delay_ms=10),
    "far": LinkConfig(sites=["a", "c"], delay_ms=100),
    "farther": LinkConfig(sites=["b", "c"], delay_ms=150),
}


def cluster_of(*, num_copies: int = 3, strong: bool = True) -> Cluster:
    nodes = {name: NodeConfig(rack=rack) for rack, name in enumerate("abc", start=1)}
    return Cluster(
        ClusterConfig(nodes=nodes, links=LINKS, replication_factor=num_copies, strong_consistency=strong, active_rack=1)
    )


def node_of(cluster: Cluster, name: str) -> Node:
    return next(node for node in cluster.nodes if node.name == name)


def digest_of(pid: int) -> bytes:
    return pid.to_bytes(2, "little") + bytes(18)


@pytest.mark.parametrize(
    ("request_", "asked", "expected_s"),
    [
        pytest.param(WRITE, "a", 0.200, id="a write waits for the farthest replica"),
        pytest.param(WRITE, "b", 0.220, id="a write to a replica goes to the master first"),
        pytest.param(READ, "a", 0.0, id="the master reads at once"),
        pytest.param(READ, "c", 0.200, id="a strict read goes to the master"),
        pytest.param(LINEARIZE, "a", 0.200, id="a linearizable read asks the replicas"),
        pytest.param(LINEARIZE, "b", 0.220, id="a linearizable read goes to the master first"),
        pytest.param(REPLICA, "c", 0.0, id="a relaxed read stays"),
    ],
)
def test_a_command_waits_for_the_nodes_that_it_needs(request_: Message, asked: str, expected_s: float) -> None:
    cluster = cluster_of()
    assert wait_s(cluster, node_of(cluster, asked), request_, digest_of(7)) == pytest.approx(expected_s)


def test_a_relaxed_read_goes_to_the_master_where_no_copy_is() -> None:
    cluster = cluster_of(num_copies=2)
    node = node_of(cluster, "c")
    absent = next(pid for pid in range(4096) if pid not in node.held)
    assert wait_s(cluster, node, REPLICA, digest_of(absent)) == pytest.approx(0.200)


def test_without_strong_consistency_reads_stay() -> None:
    cluster = cluster_of(strong=False)
    assert wait_s(cluster, node_of(cluster, "c"), READ, digest_of(7)) == 0


def test_what_can_not_be_served_is_answered_at_once() -> None:
    cluster = cluster_of()
    for site in "bc":
        cluster.network.link("a", site).cut()
    cluster.rebalance()
    assert wait_s(cluster, node_of(cluster, "a"), WRITE, digest_of(7)) == 0
