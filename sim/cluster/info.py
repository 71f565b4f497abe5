"""Answers to info requests, by name. Unknown names get an error, as from a real server."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from geotrain.wire.codes import ResultCode
from geotrain.wire.info import decode_parameters, encode_parameters, encode_peers
from geotrain.wire.partitions import encode_replicas
from sim.cluster.cluster import Cluster, Node

BUILD = "8.1.2.0"
DEFAULT_PORT = 3000
FEATURES = (
    "batch-any;batch-index;blob-bits;cdt-index;cdt-list;cdt-map;cluster-stable;float;geo;sindex-exists;peers;"
    "pipelining;pquery;pscans;query-show;relaxed-sc;replicas;replicas-all;replicas-master;replicas-max;"
    "truncate-namespace;udf"
)


def _counter_names(prefix: str, ok: str, *others: tuple[int, str]) -> dict[int, str]:
    outcomes = ((ResultCode.OK, ok), *others, (ResultCode.SERVER, "error"))
    return {int(code): f"{prefix}_{outcome}" for code, outcome in outcomes}


_FILTERED = (ResultCode.FILTERED_OUT, "filtered_out")
_NOT_FOUND = (ResultCode.NOT_FOUND, "not_found")
_COUNTERS = {
    ("client", "read"): _counter_names("client_read", "success", _FILTERED, _NOT_FOUND),
    ("client", "write"): _counter_names("client_write", "success", _FILTERED),
    ("client", "delete"): _counter_names("client_delete", "success", _FILTERED, _NOT_FOUND),
    ("batch_sub", "read"): _counter_names("batch_sub_read", "success", _FILTERED, _NOT_FOUND),
    ("batch_sub", "write"): _counter_names("batch_sub_write", "success", _FILTERED),
    ("batch_sub", "delete"): _counter_names("batch_sub_delete", "success", _FILTERED, _NOT_FOUND),
    ("pi_query", "long_basic"): _counter_names("pi_query_long_basic", "complete"),
}
"""The statistic that counts a command, by who sent it, what it does and how it ended; SERVER stands for the rest."""

Answer = Callable[[Cluster, Node, str], str]
"""The value of a name on a node, given the text behind the name's `:` or `/`."""


class InfoError(Exception):
    """An answer `ERROR:<code>:<text>`."""

    def __init__(self, code: ResultCode, text: str) -> None:
        super().__init__(f"ERROR:{int(code)}:{text}")


def answer(cluster: Cluster, node: Node, request: str) -> str:
    """The value for one line of an info request."""
    name, _, parameters = request.replace("/", ":", 1).partition(":")
    try:
        if name not in _ANSWERS:
            raise InfoError(ResultCode.PARAMETER, "unrecognized command")
        return _ANSWERS[name](cluster, node, parameters)
    except InfoError as error:
        return str(error)


def _enterprise(function: Answer) -> Answer:
    """An answer that the Community Edition refuses."""

    def answer_or_refuse(cluster: Cluster, node: Node, parameters: str) -> str:
        if not cluster.is_enterprise:
            raise InfoError(ResultCode.ENTERPRISE_ONLY, "enterprise only")
        return function(cluster, node, parameters)

    return answer_or_refuse


def _edition(cluster: Cluster, node: Node, parameters: str) -> str:
    return f"Aerospike {cluster.config.edition.title()} Edition"


def _generation(cluster: Cluster, node: Node, parameters: str) -> str:
    return str(cluster.generation)


def _service(cluster: Cluster, node: Node, parameters: str) -> str:
    return f"{node.host}:{node.port}"


def _peers(cluster: Cluster, node: Node, parameters: str) -> str:
    others = [(peer.node_id, peer.host, peer.port) for peer in cluster.nodes if peer is not node]
    return encode_peers(cluster.generation, DEFAULT_PORT, others)


def _replicas(cluster: Cluster, node: Node, parameters: str) -> str:
    return encode_replicas(cluster.config.namespace, cluster.regime, node.owned)


def _rack_ids(cluster: Cluster, node: Node, parameters: str) -> str:
    return f"{cluster.config.namespace}:{node.rack}"


def _racks(cluster: Cluster, node: Node, parameters: str) -> str:
    prefix = "roster_rack" if cluster.config.strong_consistency else "rack"
    nodes_by_rack: dict[int, list[str]] = {}
    for peer in cluster.nodes:
        nodes_by_rack.setdefault(peer.rack, []).append(peer.node_id)
    racks = {f"{prefix}_{rack}": ",".join(members) for rack, members in sorted(nodes_by_rack.items())}
    return encode_parameters({"ns": cluster.config.namespace, **racks}, ":")


def _roster(cluster: Cluster, node: Node, parameters: str) -> str:
    present = ",".join(sorted((f"{peer.node_id}@{peer.rack}" for peer in cluster.nodes), reverse=True))
    roster = present if cluster.config.strong_consistency else "null"
    entry = encode_parameters({"roster": roster, "pending_roster": roster, "observed_nodes": present}, ":")
    if not parameters:
        return f"ns={cluster.config.namespace}:{entry}"
    _check_namespace(cluster, parameters)
    return entry


def _sets(cluster: Cluster, node: Node, parameters: str) -> str:
    namespace, _, only = parameters.partition("/")
    _check_name(cluster, namespace)
    lines = []
    for name in cluster.sets:
        if not name or (only and name != only.encode()):
            continue
        values = {
            "ns": cluster.config.namespace,
            "set": name.decode(),
            "objects": node.num_records(name),
            "tombstones": 0,
            "data_used_bytes": node.num_bytes(name),
            "truncate_lut": 0,
            "sindexes": 0,
            "truncating": False,
        }
        lines.append(encode_parameters(values, ":") + ";")
    return "".join(lines)


def _namespace(cluster: Cluster, node: Node, parameters: str) -> str:
    _check_name(cluster, parameters)
    config = cluster.config
    num_records = sum(node.num_records(name) for name in cluster.sets)
    num_master = sum(len(node.sets[name][pid]) for name in cluster.sets for pid in node.owned[0])
    values: dict[str, Any] = {
        "ns_cluster_size": len(cluster.nodes),
        "effective_replication_factor": config.replication_factor,
        "objects": num_records,
        "tombstones": 0,
        "master_objects": num_master,
        "prole_objects": num_records - num_master,
        "non_replica_objects": 0,
        "unreplicated_records": 0,
        "dead_partitions": 0,
        "unavailable_partitions": 0,
        "clock_skew_stop_writes": False,
        "stop_writes": False,
        "migrate_tx_partitions_remaining": 0,
        "migrate_rx_partitions_remaining": 0,
        "max-record-size": config.max_record_bytes,
        "nsup-period": 0,
        "default-ttl": 0,
        "allow-ttl-without-nsup": False,
        "rack-id": node.rack,
        "replication-factor": config.replication_factor,
        "strong-consistency": config.strong_consistency,
        "strong-consistency-allow-expunge": False,
        "storage-engine": "memory",
    }
    return encode_parameters(values | _counts(node))


def _counts(node: Node) -> dict[str, int]:
    """Commands done, under the names of a real server's statistics."""
    counts = {name: 0 for names in _COUNTERS.values() for name in names.values()}
    for (source, kind, code), count in node.counters.items():
        names = _COUNTERS[source, kind]
        counts[names.get(code, names[ResultCode.SERVER])] += count
    return counts


def _statistics(cluster: Cluster, node: Node, parameters: str) -> str:
    values = {
        "cluster_size": len(cluster.nodes),
        "cluster_key": cluster.cluster_key,
        "cluster_generation": cluster.generation,
        "cluster_principal": max(peer.node_id for peer in cluster.nodes),
        "cluster_integrity": True,
        "cluster_is_member": True,
        "cluster_clock_skew_stop_writes_sec": 0,
        "cluster_clock_skew_ms": 0,
        "uptime": int(time.monotonic() - cluster.started_s),
        "objects": sum(node.num_records(name) for name in cluster.sets),
        "client_connections": node.num_connections,
        "migrate_partitions_remaining": 0,
    }
    return encode_parameters(values)


def _truncate(cluster: Cluster, node: Node, parameters: str) -> str:
    values = _check_namespace(cluster, parameters)
    if not values.get("set"):
        raise InfoError(ResultCode.PARAMETER, "missing 'set'")
    cluster.truncate(values["set"].encode(), _before_ms(values))
    return "ok"


def _truncate_namespace(cluster: Cluster, node: Node, parameters: str) -> str:
    cluster.truncate(None, _before_ms(_check_namespace(cluster, parameters)))
    return "ok"


def _before_ms(values: Mapping[str, str]) -> int:
    lut_ns = values.get("lut", "0")
    if not lut_ns.isdecimal():
        raise InfoError(ResultCode.PARAMETER, "bad 'lut'")
    return (int(lut_ns) or time.time_ns()) // 1_000_000


def _check_namespace(cluster: Cluster, parameters: str) -> dict[str, str]:
    values = decode_parameters(parameters)
    _check_name(cluster, values.get("namespace") or values.get("ns") or values.get("id") or "")
    return values


def _check_name(cluster: Cluster, name: str) -> None:
    if name != cluster.config.namespace:
        raise InfoError(ResultCode.PARAMETER, f"bad namespace '{name}'")


_ANSWERS: dict[str, Answer] = {
    "build": lambda cluster, node, parameters: BUILD,
    "cluster-name": lambda cluster, node, parameters: "simulated",
    "cluster-stable": lambda cluster, node, parameters: cluster.cluster_key,
    "edition": _edition,
    "features": lambda cluster, node, parameters: FEATURES,
    "namespace": _namespace,
    "namespaces": lambda cluster, node, parameters: cluster.config.namespace,
    "node": lambda cluster, node, parameters: node.node_id,
    "partition-generation": _generation,
    "peers-clear-alt": _peers,
    "peers-clear-std": _peers,
    "peers-generation": _generation,
    "rack-ids": _enterprise(_rack_ids),
    "racks": _enterprise(_racks),
    "rebalance-generation": _generation,
    "replicas": _replicas,
    "roster": _enterprise(_roster),
    "service-clear-alt": _service,
    "service-clear-std": _service,
    "sets": _sets,
    "statistics": _statistics,
    "status": lambda cluster, node, parameters: "ok",
    "truncate": _truncate,
    "truncate-namespace": _truncate_namespace,
    "user-agent-set": lambda cluster, node, parameters: "ok",
    "version": lambda cluster, node, parameters: f"{_edition(cluster, node, '')} build {BUILD}",
}
