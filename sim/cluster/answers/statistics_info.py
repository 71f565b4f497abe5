"""Info requests about what a node holds and has done: `namespace/<ns>`, `sets`, `statistics`."""

import time
from collections.abc import Iterable
from typing import Any

import psutil

from geotrain.wire.codes import EPOCH_S, ResultCode
from geotrain.wire.info import encode_parameters
from sim.cluster.answers.config_info import namespace_configuration
from sim.cluster.answers.defaults import NAMESPACE_STATISTICS, SET, STATISTICS
from sim.cluster.answers.info_parameters import Answer, check_name
from sim.cluster.cluster import Cluster
from sim.cluster.execution.transactions import MONITORS
from sim.cluster.node import Node
from sim.cluster.records import since_epoch
from sim.cluster.sites.clocks import MAX_SKEW_MS
from sim.cluster.sites.subclusters import Counts

_INDEX_BYTES = 64
"""What the primary index of a real server takes for a record."""


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
    **{
        (source, kind): _counter_names(f"mrt_{kind}", "success")
        for source in ("client", "batch_sub")
        for kind in ("verify_read", "roll_forward", "roll_back")
    },
    ("ops_sub", "write"): _counter_names("ops_sub_write", "success", _FILTERED),
    ("pi_query", "long_basic"): _counter_names("pi_query_long_basic", "complete"),
    ("pi_query", "ops_bg"): _counter_names("pi_query_ops_bg", "complete"),
    ("si_query", "long_basic"): _counter_names("si_query_long_basic", "complete"),
    ("si_query", "ops_bg"): _counter_names("si_query_ops_bg", "complete"),
}
"""The statistic that counts a command, by who sent it, what it does and how it ended; SERVER stands for the rest."""

_FAILURES = {
    ResultCode.GENERATION: "fail_generation",
    ResultCode.TOO_BIG: "fail_record_too_big",
    ResultCode.BLOCKED: "fail_mrt_blocked",
    ResultCode.VERSION_MISMATCH: "fail_mrt_version_mismatch",
}
"""Results that are counted once more, whatever the command was."""


def _namespace(cluster: Cluster, node: Node, parameters: str) -> str:
    check_name(cluster, parameters)
    live = _standing(cluster, node) | _held(cluster, node) | _done(node)
    return encode_parameters(NAMESPACE_STATISTICS | live | namespace_configuration(cluster, node))


def _standing(cluster: Cluster, node: Node) -> dict[str, Any]:
    """How the node stands in its cluster."""
    view, factor = node.view, cluster.config.replication_factor
    return {
        "ns_cluster_size": len(view.members),
        "effective_replication_factor": factor if cluster.config.strong_consistency else min(factor, len(view.members)),
        "dead_partitions": len(view.dead),
        "unavailable_partitions": len(view.unavailable - view.dead),
        "clock_skew_stop_writes": view.stops_writes,
        "current_time": since_epoch(node.now_ms()),
        "pending_quiesce": node.is_quiescing,
        "effective_is_quiesced": node.node_id in view.membership.quiesced,
        "nodes_quiesced": len(view.membership.quiesced),
        "effective_active_rack": view.membership.active_rack,
    }


def _held(cluster: Cluster, node: Node) -> dict[str, Any]:
    """How much the node holds."""
    held = _total(cluster.count(node, name) for name in cluster.sets)
    mastered = _total(cluster.count(node, name, node.owned[0]) for name in cluster.sets)
    num_monitors = cluster.count(node, MONITORS, node.owned[0]).num_records if MONITORS in cluster.sets else 0
    return {
        "objects": held.num_records,
        "tombstones": held.num_tombstones,
        "mrt_provisionals": cluster.transactions.num_writes,
        "master_objects": mastered.num_records,
        "master_tombstones": mastered.num_tombstones,
        "prole_objects": held.num_records - mastered.num_records,
        "prole_tombstones": held.num_tombstones - mastered.num_tombstones,
        "truncate_lut": _truncate_lut(cluster, None),
        "truncating": cluster.num_drops > 0,
        "mrt_monitors": num_monitors,
        "mrt_monitors_active": num_monitors,
        "index_used_bytes": (held.num_records + held.num_tombstones) * _INDEX_BYTES,
        "data_used_bytes": held.num_bytes,
        "data_used_pct": held.num_bytes * 100 // int(NAMESPACE_STATISTICS["data_total_bytes"]),
    }


def _done(node: Node) -> dict[str, int]:
    """Commands done."""
    done = {name: 0 for names in _COUNTERS.values() for name in names.values()} | dict.fromkeys(_FAILURES.values(), 0)
    for (source, kind, code), count in node.counters.items():
        names = _COUNTERS[source, kind]
        done[names.get(code, names[ResultCode.SERVER])] += count
        if code in _FAILURES:
            done[_FAILURES[ResultCode(code)]] += count
    return done


def _sets(cluster: Cluster, node: Node, parameters: str) -> str:
    namespace, _, only = parameters.partition("/")
    if namespace:
        check_name(cluster, namespace)
    wanted = [name for name in cluster.sets if name and only in ("", name.decode())]
    return "".join(_set(cluster, node, name) + ";" for name in wanted)


def _set(cluster: Cluster, node: Node, name: bytes) -> str:
    counts = cluster.count(node, name)
    live = {
        "ns": cluster.config.namespace,
        "set": name.decode(),
        "objects": counts.num_records,
        "tombstones": counts.num_tombstones,
        "data_used_bytes": counts.num_bytes,
        "truncate_lut": _truncate_lut(cluster, name),
        "sindexes": sum(index.set_name == name for index in cluster.indexes.values()),
    }
    return encode_parameters(SET | live, ":")


def _statistics(cluster: Cluster, node: Node, parameters: str) -> str:
    view, now_s = node.view, time.monotonic()
    held = _total(cluster.count(node, name) for name in cluster.sets)
    memory = psutil.virtual_memory()
    num_connections = len(node.connections)
    live = {
        "cluster_size": len(view.members),
        "cluster_key": view.cluster_key,
        "cluster_generation": node.generation,
        "cluster_principal": view.principal,
        "cluster_clock_skew_stop_writes_sec": MAX_SKEW_MS // 1000 if cluster.config.strong_consistency else 0,
        "cluster_clock_skew_ms": view.clock_skew_ms,
        "uptime": int(now_s - node.started_s),
        "system_free_mem_kbytes": memory.available // 1024,
        "system_free_mem_pct": memory.available * 100 // memory.total,
        "host_free_mem_kbytes": memory.available // 1024,
        "host_free_mem_pct": memory.available * 100 // memory.total,
        "objects": held.num_records,
        "tombstones": held.num_tombstones,
        "client_connections": num_connections,
        "client_connections_closed": node.statistics["client_connections_opened"] - num_connections,
        "long_queries_active": sum(job.result_code is None for job in node.jobs.by_trid.values()),
        "paxos_principal": view.principal,
        "time_since_rebalance": int(now_s - view.formed_s),
    }
    return encode_parameters(STATISTICS | live | node.statistics)


def _total(counts: Iterable[Counts]) -> Counts:
    return Counts(*map(sum, zip(Counts(0, 0, 0), *counts, strict=True)))


def _truncate_lut(cluster: Cluster, set_name: bytes | None) -> int:
    """Before when the records of a set (None: of all sets) are gone, in milliseconds since 2010, or 0."""
    before_ms = cluster.truncate_luts.get(set_name)
    return 0 if before_ms is None else before_ms - EPOCH_S * 1000


STATISTICS_ANSWERS: dict[str, Answer] = {"namespace": _namespace, "sets": _sets, "statistics": _statistics}
