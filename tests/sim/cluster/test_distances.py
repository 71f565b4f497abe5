import pytest

from geotrain.wire import codes
from geotrain.wire.batches import BatchRow, encode_batch
from geotrain.wire.codes import Field, OpCode
from geotrain.wire.frames import FrameReader
from geotrain.wire.messages import Message, decode_messages, operation
from sim.cluster.cluster import Cluster
from sim.cluster.config import ClusterConfig, NodeConfig
from sim.cluster.execution.batch import CHUNK_ROWS, batch
from sim.cluster.execution.commands import execute
from sim.cluster.node import Node
from sim.cluster.sites.distances import wait_s
from sim.wan.model import LinkConfig
from tests.sim.cluster.in_process import Commands

NOW_S = 5.0
READ, WRITE = Message(info1=codes.INFO1_READ), Message(info2=codes.INFO2_WRITE)
LINEARIZE = Message(info1=codes.INFO1_READ, info3=codes.INFO3_SC_READ_TYPE)
PUT_LARGE = Message(info2=codes.INFO2_WRITE, ops=[operation(OpCode.WRITE, "x", bytes(1_000_000))])
REPLICA = Message(info1=codes.INFO1_READ, info3=codes.INFO3_SC_READ_RELAX)
LINKS = {
    "near": LinkConfig(sites=["a", "b"], delay_ms=10),
    "far": LinkConfig(sites=["a", "c"], delay_ms=100),
    "farther": LinkConfig(sites=["b", "c"], delay_ms=150),
}


def cluster_of(*, num_copies: int = 3, strong: bool = True, narrow: LinkConfig | None = None) -> Cluster:
    nodes = {name: NodeConfig(rack=rack) for rack, name in enumerate("abc", start=1)}
    links = {"narrow": narrow} if narrow else LINKS
    return Cluster(
        ClusterConfig(nodes=nodes, links=links, replication_factor=num_copies, strong_consistency=strong, active_rack=1)
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
    assert wait_s(cluster, node_of(cluster, asked), request_, digest_of(7), NOW_S) == pytest.approx(expected_s)


def test_a_relaxed_read_goes_to_the_master_where_no_copy_is() -> None:
    cluster = cluster_of(num_copies=2)
    node = node_of(cluster, "c")
    absent = next(pid for pid in range(4096) if pid not in node.held)
    assert wait_s(cluster, node, REPLICA, digest_of(absent), NOW_S) == pytest.approx(0.200)


def test_without_strong_consistency_reads_stay() -> None:
    cluster = cluster_of(strong=False)
    assert wait_s(cluster, node_of(cluster, "c"), READ, digest_of(7), NOW_S) == 0


def test_what_can_not_be_served_is_answered_at_once() -> None:
    cluster = cluster_of()
    for site in "bc":
        cluster.network.link("a", site).cut()
    cluster.rebalance()
    assert wait_s(cluster, node_of(cluster, "a"), WRITE, digest_of(7), NOW_S) == 0


@pytest.mark.parametrize("is_delayed", [False, True])
def test_rows_of_a_batch_are_answered_when_the_wait_for_other_nodes_is_over(is_delayed: bool) -> None:
    cluster = cluster_of() if is_delayed else Commands().cluster
    fields = {Field.NAMESPACE: cluster.namespace, Field.SET: b"s"}
    write = operation(OpCode.WRITE, "a", 1)
    rows = [BatchRow(n, digest_of(n), 0, codes.INFO2_WRITE, 0, 0, 0, 0, fields, [write]) for n in range(CHUNK_ROWS + 1)]
    request = Message(info1=codes.INFO1_BATCH, fields={Field.BATCH: encode_batch(rows)})
    chunks = list(batch(cluster, cluster.nodes[0], request, 1_800_000_000_000, NOW_S))
    waits = [at for at, chunk in enumerate(chunks) if chunk.pause_s]
    assert len(waits) == is_delayed
    assert not any(chunk.frames for at in waits for chunk in chunks[: at + 1])
    replies = [
        reply for chunk in chunks for frame in FrameReader().feed(chunk.frames) for reply in decode_messages(frame.body)
    ]
    assert [reply.result_code for reply in replies] == [0] * (len(rows) + 1)


@pytest.mark.parametrize(
    ("request_", "asked", "expected_s"),
    [
        pytest.param(PUT_LARGE, "a", 1.02, id="to the replica behind the narrow link"),
        pytest.param(
            PUT_LARGE, "b", 2.54, id="to the master over the narrow link, back to the replica there, and the answer"
        ),
        pytest.param(READ, "b", 0.52, id="an answer that another node has to fetch"),
        pytest.param(REPLICA, "b", 0.0, id="a read that stays"),
    ],
)
def test_a_large_record_takes_its_size_over_the_bandwidth(request_: Message, asked: str, expected_s: float) -> None:
    cluster = cluster_of(narrow=LinkConfig(sites=["a", "b"], delay_ms=10, bytes_per_s=1_000_000))
    waited_s = wait_s(cluster, node_of(cluster, asked), request_, digest_of(7), NOW_S, num_reply_bytes=500_000)
    assert waited_s == pytest.approx(expected_s, abs=0.001)


def test_a_small_change_of_a_large_record_replicates_all_of_it() -> None:
    cluster = cluster_of(narrow=LinkConfig(sites=["a", "b"], delay_ms=10, bytes_per_s=1_000_000))
    fields = {Field.NAMESPACE: cluster.namespace, Field.SET: b"s", Field.DIGEST: digest_of(7)}
    node = node_of(cluster, "a")
    put = Message(info2=codes.INFO2_WRITE, fields=fields, ops=PUT_LARGE.ops)
    assert execute(cluster, node, "client", put, digest_of(7), None, 0).result_code == 0
    small = Message(info2=codes.INFO2_WRITE, fields=fields, ops=[operation(OpCode.WRITE, "y", 1)])
    assert execute(cluster, node, "client", small, digest_of(7), None, 0).result_code == 0
    assert wait_s(cluster, node, small, digest_of(7), NOW_S) == pytest.approx(1.02, abs=0.001)
