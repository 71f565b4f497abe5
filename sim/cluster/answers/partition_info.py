"""The info request `partition-info`: the state of every partition on a node."""

from collections import Counter

from geotrain.wire.partitions import NUM_PARTITIONS
from sim.cluster.cluster import Cluster
from sim.cluster.node import Node
from sim.cluster.sites.subclusters import counts_of

_COLUMNS = (
    "namespace:partition:state:n_replicas:replica:succession:n_dupl:working_master:proxy_dst:emigrates:"
    "lead_emigrates:immigrates:records:tombstones:regime:tree_id:version:final_version"
)


def partitions(cluster: Cluster, node: Node, parameters: str) -> str:
    """A line on every partition, behind one that names the columns."""
    num_records, num_tombstones = _counts_by_pid(cluster, node)
    lines = [_COLUMNS]
    for pid in range(NUM_PARTITIONS):
        lines.append(":".join(map(str, _partition(cluster, node, pid, num_records[pid], num_tombstones[pid]))))
    return ";".join(lines)


def _counts_by_pid(cluster: Cluster, node: Node) -> tuple[Counter[int], Counter[int]]:
    """Records and tombstones by partition, from the counts that are kept as records change."""
    num_records: Counter[int] = Counter()
    num_tombstones: Counter[int] = Counter()
    for name in cluster.sets:
        owner = cluster.record_set(node, name)
        counts = {pid: owner.counts((pid,)) for pid in owner.filled & node.held}
        for pid in node.view.unavailable & node.sets.get(name, {}).keys():
            counts[pid] = counts_of(node.copy(name, pid))
        num_records.update({pid: each.num_records for pid, each in counts.items()})
        num_tombstones.update({pid: each.num_tombstones for pid, each in counts.items()})
    return num_records, num_tombstones


def _partition(cluster: Cluster, node: Node, pid: int, num_records: int, num_tombstones: int) -> list[object]:
    """A partition as this node has it, in the order of the columns. Nothing migrates: rebalances are at once."""
    view = node.view
    owners = view.owners[pid]
    if pid in view.unavailable:
        state, master, place = "D" if pid in view.dead else "U", "0", "-"
    else:
        state = "S" if node in owners else "A"
        master, place = owners[0].node_id, str(owners.index(node)) if node in owners else "-"
    regime = view.regime if cluster.config.strong_consistency else 0
    version = f"{view.cluster_key.lower()}.0.{'m' if place == '0' else '-'}p-" if place != "-" else "-"
    moving = [0, 0, 0]
    counts = [num_records, num_tombstones, regime, 1]
    name = cluster.config.namespace
    return [name, pid, state, len(owners), place, place, 0, master, master, *moving, *counts, version, version]
