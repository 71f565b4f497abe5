"""How long a command waits for other nodes: for the master where another was asked, and for the replicas of a write."""

from geotrain.wire import codes
from geotrain.wire.partitions import partition_of
from sim.cluster.cluster import Cluster, Node
from sim.cluster.execution.requests import Request


def wait_s(cluster: Cluster, node: Node, request: Request, digest: bytes) -> float:
    """The time that messages between the nodes take, with the delays that the links have now.

    A write is acknowledged once every replica has it, and a linearizable read once every replica has confirmed that
    the master still is one. Both start at the master: another node that is asked passes the command on.
    """
    pid = partition_of(digest)
    owners = node.view.owners[pid]
    if not owners:
        return 0.0
    is_write = bool(request.info2 & codes.INFO2_WRITE)
    is_relaxed = not cluster.config.strong_consistency or bool(request.info3 & codes.INFO3_SC_READ_RELAX)
    if not is_write and is_relaxed and pid in node.held:
        return 0.0
    master, *replicas = owners
    waits = cluster.network.round_trip_s(node.site, master.site)
    if is_write or request.info3 & codes.INFO3_SC_READ_TYPE:
        waits += max((cluster.network.round_trip_s(master.site, replica.site) for replica in replicas), default=0.0)
    return waits
