"""Info requests for administrators: the configuration, the state of every partition, the release."""

from typing import Any

from geotrain.wire.codes import ResultCode
from geotrain.wire.info import decode_parameters, encode_parameters
from geotrain.wire.partitions import NUM_PARTITIONS
from sim.cluster.answers.info_parameters import Answer, InfoError, check_name
from sim.cluster.cluster import Cluster, Node
from sim.cluster.execution.batch import MAX_ROWS
from sim.cluster.execution.jobs import MAX_JOBS

BUILD = "8.1.2.0"
_COLUMNS = (
    "namespace:partition:state:n_replicas:replica:succession:n_dupl:working_master:proxy_dst:emigrates:"
    "lead_emigrates:immigrates:records:tombstones:regime:tree_id:version:final_version"
)


def _config(cluster: Cluster, node: Node, parameters: str) -> str:
    values = decode_parameters(parameters)
    context = values.get("context", "")
    if not context:
        return encode_parameters(_service_config(cluster))
    if context == "namespace":
        check_name(cluster, values.get("namespace") or values.get("id") or "")
        return encode_parameters(_namespace_config(cluster, node))
    if context not in _CONTEXTS:
        raise InfoError(ResultCode.PARAMETER, "bad 'context'")
    return encode_parameters(_CONTEXTS[context](cluster))


def _service_config(cluster: Cluster) -> dict[str, Any]:
    return {"batch-max-requests": MAX_ROWS, "cluster-name": "simulated", "query-max-done": MAX_JOBS}


def _security_config(cluster: Cluster) -> dict[str, Any]:
    return {"enable-security": cluster.security.is_enabled}


def _namespace_config(cluster: Cluster, node: Node) -> dict[str, Any]:
    config = cluster.config
    return {
        "active-rack": config.active_rack,
        "allow-ttl-without-nsup": config.allow_ttl_without_nsup,
        "conflict-resolution-policy": "generation",
        "default-read-touch-ttl-pct": config.default_read_touch_ttl_pct,
        "default-ttl": config.default_ttl_s,
        "disable-mrt-writes": False,
        "max-record-size": config.max_record_bytes,
        "nsup-period": config.nsup_period_s,
        "prefer-uniform-balance": False,
        "rack-id": node.rack,
        "replication-factor": config.replication_factor,
        "strong-consistency": config.strong_consistency,
        "strong-consistency-allow-expunge": False,
        "index-type": "mem",
        "sindex-type": "mem",
        "storage-engine": "memory",
    }


_CONTEXTS = {"security": _security_config, "service": _service_config}


def _partitions(cluster: Cluster, node: Node, parameters: str) -> str:
    lines = [_COLUMNS]
    lines += [":".join(map(str, _partition(cluster, node, pid))) for pid in range(NUM_PARTITIONS)]
    return ";".join(lines)


def _partition(cluster: Cluster, node: Node, pid: int) -> list[object]:
    """A partition as this node has it, in the order of the columns. Nothing migrates: rebalances are at once."""
    view = node.view
    owners = view.owners[pid]
    if pid in view.unavailable:
        state, master, place = "D" if pid in view.dead else "U", "0", "-"
    else:
        state = "S" if node in owners else "A"
        master, place = owners[0].node_id, str(owners.index(node)) if node in owners else "-"
    held = [record for copies in node.sets.values() for record in copies[pid].values()]
    num_tombstones = sum(record.is_tombstone for record in held)
    regime = view.regime if cluster.config.strong_consistency else 0
    version = f"{view.cluster_key.lower()}.0.{'m' if place == '0' else '-'}p-" if place != "-" else "-"
    moving = [0, 0, 0]
    counts = [len(held) - num_tombstones, num_tombstones, regime, 1]
    name = cluster.config.namespace
    return [name, pid, state, len(owners), place, place, 0, master, master, *moving, *counts, version, version]


def edition(cluster: Cluster) -> str:
    """The name under which the cluster's edition is sold."""
    return f"Aerospike {cluster.config.edition.title()} Edition"


def _release(cluster: Cluster, node: Node, parameters: str) -> str:
    values = {"edition": edition(cluster), "version": BUILD, "os": "simulated", "arch": "simulated", "sha": "simulated"}
    return encode_parameters(values)


def _no_functions(cluster: Cluster, node: Node, parameters: str) -> str:
    raise InfoError(ResultCode.UNSUPPORTED, "functions of users are not simulated")


INNER_ANSWERS: dict[str, Answer] = {
    "build": lambda cluster, node, parameters: BUILD,
    "edition": lambda cluster, node, parameters: edition(cluster),
    "get-config": _config,
    "partition-info": _partitions,
    "release": _release,
    "udf-get": _no_functions,
    "udf-list": lambda cluster, node, parameters: "",
    "udf-put": _no_functions,
    "udf-remove": _no_functions,
    "version": lambda cluster, node, parameters: f"{edition(cluster)} build {BUILD}",
}
