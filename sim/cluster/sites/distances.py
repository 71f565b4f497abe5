"""How long a command waits for other nodes: for the master where another was asked, and for the replicas of a write."""

from collections.abc import Sequence

from geotrain.wire import codes
from geotrain.wire.codes import Field
from geotrain.wire.partitions import partition_of
from sim.cluster.cluster import Cluster
from sim.cluster.execution.requests import Request
from sim.cluster.node import Node
from sim.cluster.sites.read_modes import Source
from sim.wan.model import Network


def wait_s(
    cluster: Cluster, node: Node, request: Request, digest: bytes, now_s: float, num_reply_bytes: int = 0
) -> float:
    """The time that messages between the nodes take over the links as they are now, once a command is carried out.

    A write is acknowledged once every replica has the record, and a linearizable read once every replica has confirmed
    that the master still is one. Both start at the master: another node that is asked passes the command on.
    """
    pid = partition_of(digest)
    owners = node.view.owners[pid]
    if not owners:
        return 0.0
    is_write = bool(request.info2 & codes.INFO2_WRITE)
    source = Source.MASTER if is_write else cluster.source(node, request.info3, pid)
    if source is Source.OWN_COPY:
        return 0.0
    master = owners[0]
    num_bytes = sum(len(op.raw) for op in request.ops)
    at_s = cluster.network.arrival_s(node.site, master.site, now_s, num_bytes)
    if is_write:
        record = cluster.find(node, request.fields.get(Field.SET, b""), digest, from_own=False)
        at_s = _confirmed_s(cluster.network, owners, at_s, max(num_bytes, len(record.row) if record else 0), now_s)
    elif source is Source.CONFIRMED_MASTER:
        at_s = _confirmed_s(cluster.network, owners, at_s, 0, now_s)
    return cluster.network.arrival_s(master.site, node.site, at_s, num_reply_bytes, now_s) - now_s


def _confirmed_s(network: Network, owners: Sequence[Node], at_s: float, num_bytes: int, now_s: float) -> float:
    """When every replica has what the master, the first of the owners, sends them at at_s, and the master knows."""
    master, *replicas = (owner.site for owner in owners)
    sent = [(replica, network.arrival_s(master, replica, at_s, num_bytes, now_s)) for replica in replicas]
    return max((network.arrival_s(replica, master, there_s, 0, now_s) for replica, there_s in sent), default=at_s)
