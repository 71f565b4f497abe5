"""Sub-clusters come and go in one process: under strong consistency no acknowledged write is lost."""

import asyncio
from random import Random
from typing import Any

import pytest

from geotrain.wire.codes import Field, ResultCode
from geotrain.wire.messages import Message
from sim.cluster.cluster import Cluster
from sim.cluster.config import ClusterConfig, NodeConfig
from sim.cluster.execution.commands import execute
from sim.cluster.listeners import Listeners
from sim.cluster.node import Node, State
from sim.cluster.sites.faults import NodeFaults
from sim.wan.faults import LinkFaults
from tests.sim.cluster.test_faults import digest_of, get, put


class _NoListeners(Listeners):
    def __init__(self) -> None:
        pass

    async def open(self, node: Node) -> None:
        pass

    def close(self, node: Node) -> None:
        pass


@pytest.mark.parametrize("seed", range(6))
def test_no_acknowledged_write_is_lost_while_nodes_come_and_go(seed: int) -> None:
    asyncio.run(_history(Random(seed)))


async def _history(random: Random) -> None:
    """Writes to all nodes while some are killed and cut off. What is served is the last write that was acknowledged."""
    racks = {"a1": 1, "a2": 1, "b1": 2, "b2": 2, "c1": 3}
    config = ClusterConfig(
        nodes={name: NodeConfig(rack=rack, site=name) for name, rack in racks.items()}, replication_factor=2
    )
    cluster = Cluster(config)
    orders = (
        NodeFaults(cluster, _NoListeners()).commands
        | LinkFaults(cluster.network, cluster.sites, cluster.rebalance).commands
    )
    acknowledged: dict[int, int] = {}
    num_served = 0
    for value in range(1, 25):
        name = random.choice(["kill", "start", "start", "cut", "heal", "pause", "resume"])
        site = random.choice(sorted(racks))
        values: dict[str, str] = {"site": site} if name in ("cut", "heal") else {"node": site}
        await orders[name](values)
        for node in cluster.nodes:
            if node.state is not State.UP:
                continue
            number = random.randrange(50)
            read = execute(cluster, node, "client", get(number, "linearize"), digest_of(number), None, 0)
            if read.result_code != ResultCode.UNAVAILABLE:
                num_served += 1
                expected = put(number, acknowledged[number]).ops[0].raw[5:] if number in acknowledged else b""
                assert read.ops[5:] == expected
            request: Any = put(number, value)
            if execute(cluster, node, "client", request, digest_of(number), None, 0).result_code == ResultCode.OK:
                acknowledged[number] = value
    assert num_served > 10


def test_without_strong_consistency_both_sides_take_writes_and_the_newer_generation_wins() -> None:
    nodes = {name: NodeConfig(rack=rack) for rack, name in enumerate("ab", start=1)}
    cluster = Cluster(ClusterConfig(nodes=nodes, replication_factor=2, strong_consistency=False))
    a, b = cluster.nodes

    def do(node: Node, request: Message) -> bytes:
        outcome = execute(cluster, node, "client", request, request.fields[Field.DIGEST], None, 0)
        assert outcome.result_code == ResultCode.OK
        return outcome.ops

    do(a, put(1, 0))
    cluster.network.link("a", "b").cut()
    cluster.rebalance()
    for value in (1, 2):
        do(a, put(1, value))
    do(b, put(1, 3))
    do(b, put(2, 4))
    assert do(a, get(1)) != do(b, get(1))
    cluster.network.link("a", "b").heal()
    cluster.rebalance()
    for number, value in ((1, 2), (2, 4)):
        assert do(a, get(number)) == do(b, get(number))
        assert do(a, get(number)).endswith(value.to_bytes(8, "big"))
