"""Answers to info requests, by name. Unknown names get an error, as from a real server."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from geotrain.wire.codes import EPOCH_S, ResultCode
from geotrain.wire.info import encode_parameters, encode_peers
from geotrain.wire.partitions import encode_replicas
from sim.cluster.answers.index_info import INDEX_ANSWERS
from sim.cluster.answers.info_parameters import Answer, InfoError, check_name, check_namespace
from sim.cluster.answers.inner_info import INNER_ANSWERS
from sim.cluster.answers.job_info import JOB_ANSWERS
from sim.cluster.answers.roster_info import ROSTER_ANSWERS
from sim.cluster.cluster import Cluster, Node
from sim.cluster.values.refused import Refused

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
    ("ops_sub", "write"): _counter_names("ops_sub_write", "success", _FILTERED),
    ("pi_query", "long_basic"): _counter_names("pi_query_long_basic", "complete"),
    ("pi_query", "ops_bg"): _counter_names("pi_query_ops_bg", "complete"),
    ("si_query", "long_basic"): _counter_names("si_query_long_basic", "complete"),
    ("si_query", "ops_bg"): _counter_names("si_query_ops_bg", "complete"),
}
"""The statistic that counts a command, by who sent it, what it does and how it ended; SERVER stands for the rest."""


def answer(cluster: Cluster, node: Node, request: str, site: str = "") -> str:
    """The value for one line of an info request. Clients hear the addresses that are meant for their site."""
    name, _, parameters = request.replace("/", ":", 1).partition(":")
    try:
        if name in _ADDRESSES:
            return _ADDRESSES[name](cluster, node, site)
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


def _generation(cluster: Cluster, node: Node, parameters: str) -> str:
    return str(node.generation)


def _service(cluster: Cluster, node: Node, site: str) -> str:
    host, port = node.addresses[site]
    return f"{host}:{port}"


def _peers(cluster: Cluster, node: Node, site: str) -> str:
    others = [(peer.node_id, *peer.addresses[site]) for peer in node.view.members if peer is not node]
    return encode_peers(node.generation, DEFAULT_PORT, others, cluster.config.tls_name)


def _replicas(cluster: Cluster, node: Node, parameters: str) -> str:
    regime = node.view.regime if cluster.config.strong_consistency else 0
    return encode_replicas(cluster.config.namespace, regime, node.owned)


def _rack_ids(cluster: Cluster, node: Node, parameters: str) -> str:
    return f"{cluster.config.namespace}:{node.rack}"


def _racks(cluster: Cluster, node: Node, parameters: str) -> str:
    prefix = "roster_rack" if cluster.config.strong_consistency else "rack"
    nodes_by_rack: dict[int, list[str]] = {}
    for peer in node.view.members:
        nodes_by_rack.setdefault(peer.rack, []).append(peer.node_id)
    racks = {f"{prefix}_{rack}": ",".join(members) for rack, members in sorted(nodes_by_rack.items())}
    return encode_parameters({"ns": cluster.config.namespace, **racks}, ":")


def _sets(cluster: Cluster, node: Node, parameters: str) -> str:
    namespace, _, only = parameters.partition("/")
    if namespace:
        check_name(cluster, namespace)
    lines = []
    for name in cluster.sets:
        if not name or (only and name != only.encode()):
            continue
        counts = cluster.count(node, name)
        values = {
            "ns": cluster.config.namespace,
            "set": name.decode(),
            "objects": counts.num_records,
            "tombstones": counts.num_tombstones,
            "data_used_bytes": counts.num_bytes,
            "truncate_lut": 0,
            "sindexes": sum(index.set_name == name for index in cluster.indexes.values()),
            "truncating": False,
        }
        lines.append(encode_parameters(values, ":") + ";")
    return "".join(lines)


def _namespace(cluster: Cluster, node: Node, parameters: str) -> str:
    check_name(cluster, parameters)
    config = cluster.config
    counts = [cluster.count(node, name) for name in cluster.sets]
    num_records = sum(each.num_records for each in counts)
    num_master = sum(cluster.count(node, name, node.owned[0]).num_records for name in cluster.sets)
    values: dict[str, Any] = {
        "ns_cluster_size": len(node.view.members),
        "effective_replication_factor": config.replication_factor,
        "objects": num_records,
        "tombstones": sum(each.num_tombstones for each in counts),
        "master_objects": num_master,
        "prole_objects": num_records - num_master,
        "non_replica_objects": 0,
        "unreplicated_records": 0,
        "dead_partitions": len(node.view.dead),
        "unavailable_partitions": len(node.view.unavailable - node.view.dead),
        "clock_skew_stop_writes": node.view.stops_writes,
        "stop_writes": False,
        "migrate_tx_partitions_remaining": 0,
        "migrate_rx_partitions_remaining": 0,
        "max-record-size": config.max_record_bytes,
        "nsup-period": config.nsup_period_s,
        "default-ttl": config.default_ttl_s,
        "default-read-touch-ttl-pct": config.default_read_touch_ttl_pct,
        "allow-ttl-without-nsup": config.allow_ttl_without_nsup,
        "pending_quiesce": node.is_quiescing,
        "effective_is_quiesced": node.node_id in node.view.membership.quiesced,
        "nodes_quiesced": len(node.view.membership.quiesced),
        "effective_active_rack": node.view.membership.active_rack,
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
        "cluster_size": len(node.view.members),
        "cluster_key": node.view.cluster_key,
        "cluster_generation": node.generation,
        "cluster_principal": node.view.principal,
        "cluster_integrity": True,
        "cluster_is_member": True,
        "cluster_clock_skew_stop_writes_sec": 0,
        "cluster_clock_skew_ms": node.view.clock_skew_ms,
        "uptime": int(time.monotonic() - cluster.started_s),
        "objects": sum(cluster.count(node, name).num_records for name in cluster.sets),
        "client_connections": len(node.connections),
        "migrate_partitions_remaining": 0,
    }
    return encode_parameters(values)


def _truncate(cluster: Cluster, node: Node, parameters: str) -> str:
    values = check_namespace(cluster, parameters)
    if not values.get("set"):
        raise InfoError(ResultCode.PARAMETER, "missing 'set'")
    return _drop_older(cluster, node, values["set"].encode(), values)


def _truncate_namespace(cluster: Cluster, node: Node, parameters: str) -> str:
    return _drop_older(cluster, node, None, check_namespace(cluster, parameters))


def _drop_older(cluster: Cluster, node: Node, set_name: bytes | None, values: Mapping[str, str]) -> str:
    try:
        cluster.truncate(node, set_name, _before_ms(node, values))
    except Refused as refusal:
        raise InfoError(refusal.code, "not all could be truncated") from None
    return "ok"


def _before_ms(node: Node, values: Mapping[str, str]) -> int:
    now_ms = node.now_ms()
    if "lut" not in values:
        return now_ms
    if not values["lut"].isdecimal():
        raise InfoError(ResultCode.PARAMETER, "bad 'lut'")
    before_ms = int(values["lut"]) // 1_000_000
    if before_ms > now_ms:
        raise InfoError(ResultCode.PARAMETER, "would-truncate-in-the-future")
    if before_ms <= EPOCH_S * 1000:
        raise InfoError(ResultCode.PARAMETER, "would-truncate-to-0")
    return before_ms


_ADDRESSES: dict[str, Callable[[Cluster, Node, str], str]] = {
    "peers-clear-alt": _peers,
    "peers-clear-std": _peers,
    "peers-tls-alt": _peers,
    "peers-tls-std": _peers,
    "service-clear-alt": _service,
    "service-clear-std": _service,
    "service-tls-alt": _service,
    "service-tls-std": _service,
}
"""Answers that differ by the client's site."""

_ANSWERS: dict[str, Answer] = {
    "cluster-name": lambda cluster, node, parameters: "simulated",
    "cluster-stable": lambda cluster, node, parameters: node.view.cluster_key,
    "features": lambda cluster, node, parameters: FEATURES,
    "namespace": _namespace,
    "namespaces": lambda cluster, node, parameters: cluster.config.namespace,
    "node": lambda cluster, node, parameters: node.node_id,
    "partition-generation": _generation,
    "peers-generation": _generation,
    "rack-ids": _enterprise(_rack_ids),
    "racks": _enterprise(_racks),
    "rebalance-generation": _generation,
    "replicas": _replicas,
    "sets": _sets,
    "sim-control": lambda cluster, node, parameters: cluster.control_address,
    "statistics": _statistics,
    "status": lambda cluster, node, parameters: "ok",
    "truncate": _truncate,
    "truncate-namespace": _truncate_namespace,
    "user-agent-set": lambda cluster, node, parameters: "ok",
    **INDEX_ANSWERS,
    **{name: _enterprise(function) for name, function in ROSTER_ANSWERS.items()},
    **INNER_ANSWERS,
    **JOB_ANSWERS,
}
