"""Answers to the info requests with which operators change who belongs to the cluster."""

from geotrain.wire.codes import ResultCode
from geotrain.wire.info import encode_parameters
from sim.cluster.answers.info_parameters import Answer, InfoError, check_namespace, required
from sim.cluster.cluster import Cluster
from sim.cluster.node import Node
from sim.cluster.sites.roster import decode_roster, encode_roster


def roster(cluster: Cluster, node: Node, parameters: str) -> str:
    """Who belongs to the cluster, who will after the next recluster, and who is there."""
    current = node.view.membership
    observed = {peer.node_id: peer.rack for peer in node.view.members}
    strong = cluster.config.strong_consistency
    values = {
        "roster": encode_roster(current.roster if strong else {}, current.active_rack),
        "pending_roster": encode_roster(node.pending.roster if strong else {}, node.pending.active_rack),
        "observed_nodes": encode_roster(observed, current.active_rack),
    }
    entry = encode_parameters(values, ":")
    if not parameters:
        return f"ns={cluster.config.namespace}:{entry}"
    check_namespace(cluster, parameters)
    return entry


def roster_set(cluster: Cluster, node: Node, parameters: str) -> str:
    """`nodes=A@1,B@2`: who will belong to the cluster after the next recluster."""
    values = check_namespace(cluster, parameters)
    if not cluster.config.strong_consistency:
        raise InfoError(ResultCode.FORBIDDEN, "namespace is not strong-consistency")
    try:
        nodes, active_rack = decode_roster(required(values, "nodes"))
    except ValueError as error:
        raise InfoError(ResultCode.PARAMETER, str(error)) from None
    pending = node.pending._replace(version=node.pending.version + 1, roster=nodes, active_rack=active_rack)
    cluster.write_down(cluster.metadata._replace(pending=pending))
    for peer in node.view.members:
        peer.pending = pending
    return "ok"


def recluster(cluster: Cluster, node: Node, parameters: str) -> str:
    """Let the pending roster, and all quiescing, take effect. Only the principal does."""
    if node.node_id != node.view.principal:
        return "ignored-by-non-principal"
    cluster.recluster(node.view.members)
    return "ok"


def quiesce(cluster: Cluster, node: Node, parameters: str) -> str:
    """Have this node hand over its partitions at the next recluster."""
    if all(peer.is_quiescing for peer in node.view.members if peer is not node):
        raise InfoError(ResultCode.FORBIDDEN, "can't quiesce the last node")
    node.is_quiescing = True
    return "ok"


def quiesce_undo(cluster: Cluster, node: Node, parameters: str) -> str:
    """Have this node take its partitions back at the next recluster."""
    node.is_quiescing = False
    return "ok"


def revive(cluster: Cluster, node: Node, parameters: str) -> str:
    """Have dead partitions served again at the next recluster, with what is left of them."""
    check_namespace(cluster, parameters)
    node.memory.is_revived = True
    return "ok"


ROSTER_ANSWERS: dict[str, Answer] = {
    "quiesce": quiesce,
    "quiesce-undo": quiesce_undo,
    "recluster": recluster,
    "revive": revive,
    "roster": roster,
    "roster-set": roster_set,
}
