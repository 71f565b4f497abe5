"""Answers to info requests, by name. Unknown names get an error, as from a real server."""

from collections.abc import Callable, Mapping
from functools import partial

from geotrain.wire.codes import EPOCH_S, ResultCode
from geotrain.wire.info import decode_parameters, encode_parameters, encode_peers
from geotrain.wire.partitions import NUM_PARTITIONS, encode_replicas
from sim.cluster.answers.config_info import CLUSTER_NAME, CONFIG_ANSWERS
from sim.cluster.answers.index_info import INDEX_ANSWERS
from sim.cluster.answers.info_parameters import Answer, InfoError, check_namespace
from sim.cluster.answers.job_info import JOB_ANSWERS
from sim.cluster.answers.partition_info import partitions
from sim.cluster.answers.roster_info import ROSTER_ANSWERS
from sim.cluster.answers.statistics_info import STATISTICS_ANSWERS
from sim.cluster.answers.tool_info import TOOL_ANSWERS
from sim.cluster.answers.udf_info import UDF_ANSWERS
from sim.cluster.cluster import Cluster
from sim.cluster.node import Node
from sim.cluster.values.refused import Refused

DEFAULT_PORT = 3000
WITHOUT_NAMES = (
    *("node", "build", "edition", "version", "features", "namespaces", "partition-generation", "peers-generation"),
    *("service", "services", "statistics"),
)
"""What a request that names nothing asks for."""


def answer(cluster: Cluster, node: Node, request: str, site: str = "") -> str:
    """The value for one line of an info request. Clients hear the addresses that are meant for their site."""
    name = min(request.partition(":")[0], request.partition("/")[0], key=len)
    parameters = request[len(name) + 1 :]
    try:
        if name in _ADDRESSES:
            return _ADDRESSES[name](cluster, node, site)
        if name not in _ANSWERS:
            raise InfoError(ResultCode.PARAMETER, "unrecognized command")
        return _ANSWERS[name](cluster, node, parameters)
    except InfoError as error:
        return str(error)
    except Refused as refused:
        return str(InfoError(refused.code, "can't be written down"))


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


def _services(cluster: Cluster, node: Node, site: str) -> str:
    """The other nodes, as clients of long ago asked for them."""
    return ";".join(_service(cluster, peer, site) for peer in node.view.members if peer is not node)


def _peers(cluster: Cluster, node: Node, site: str, *, tls: bool) -> str:
    """The other nodes, where they speak TLS; or where they don't."""
    members = node.view.members if tls == bool(cluster.config.tls_name) else ()
    others = [(peer.node_id, *peer.addresses[site]) for peer in members if peer is not node]
    return encode_peers(node.generation, DEFAULT_PORT, others, cluster.config.tls_name)


_peers_clear, _peers_tls = partial(_peers, tls=False), partial(_peers, tls=True)


def _replicas(cluster: Cluster, node: Node, parameters: str) -> str:
    regime = node.view.regime if cluster.config.strong_consistency else 0
    return encode_replicas(cluster.config.namespace, regime, node.owned)


def _cluster_key(cluster: Cluster, node: Node, parameters: str) -> str:
    """`size=N;namespace=<ns>`, each as one likes: a token on which all nodes of a stable cluster agree."""
    values = decode_parameters(parameters)
    if "namespace" in values:
        check_namespace(cluster, parameters)
    if values.get("size", str(len(node.view.members))) != str(len(node.view.members)):
        raise InfoError(ResultCode.FORBIDDEN, "unstable cluster: its size is another")
    return node.view.cluster_key


def _rack_ids(cluster: Cluster, node: Node, parameters: str) -> str:
    return f"{cluster.config.namespace}:{node.rack}"


def _racks(cluster: Cluster, node: Node, parameters: str) -> str:
    if parameters:
        check_namespace(cluster, parameters)
    prefix = "roster_rack" if cluster.config.strong_consistency else "rack"
    nodes_by_rack: dict[int, list[str]] = {}
    for peer in node.view.members:
        nodes_by_rack.setdefault(peer.rack, []).append(peer.node_id)
    racks = {f"{prefix}_{rack}": ",".join(members) for rack, members in sorted(nodes_by_rack.items())}
    return encode_parameters({"ns": cluster.config.namespace, **racks}, ":")


def _truncate(cluster: Cluster, node: Node, parameters: str) -> str:
    values = check_namespace(cluster, parameters)
    if not values.get("set"):
        raise InfoError(ResultCode.PARAMETER, "missing 'set'")
    return _drop_older(cluster, node, values["set"].encode(), values)


def _truncate_namespace(cluster: Cluster, node: Node, parameters: str) -> str:
    return _drop_older(cluster, node, None, check_namespace(cluster, parameters))


def _drop_older(cluster: Cluster, node: Node, set_name: bytes | None, values: Mapping[str, str]) -> str:
    cluster.truncate(node, set_name, _before_ms(node, values))
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
    "alumni-clear-std": _peers_clear,
    "alumni-tls-std": _peers_tls,
    "peers-clear-alt": _peers_clear,
    "peers-clear-std": _peers_clear,
    "peers-tls-alt": _peers_tls,
    "peers-tls-std": _peers_tls,
    "service": _service,
    "service-clear-alt": _service,
    "service-clear-std": _service,
    "service-tls-alt": _service,
    "service-tls-std": _service,
    "services": _services,
}
"""Answers that differ by the client's site."""

_ANSWERS: dict[str, Answer] = {
    "cluster-name": lambda cluster, node, parameters: CLUSTER_NAME,
    "cluster-stable": _cluster_key,
    "namespaces": lambda cluster, node, parameters: cluster.config.namespace,
    "node": lambda cluster, node, parameters: node.node_id,
    "partition-generation": _generation,
    "partition-info": partitions,
    "partitions": lambda cluster, node, parameters: str(NUM_PARTITIONS),
    "peers-generation": _generation,
    "rack-ids": _enterprise(_rack_ids),
    "racks": _enterprise(_racks),
    "rebalance-generation": _generation,
    "replicas": _replicas,
    "sim-control": lambda cluster, node, parameters: cluster.control_address,
    "truncate": _truncate,
    "truncate-namespace": _truncate_namespace,
    **INDEX_ANSWERS,
    **{name: _enterprise(function) for name, function in ROSTER_ANSWERS.items()},
    **CONFIG_ANSWERS,
    **JOB_ANSWERS,
    **STATISTICS_ANSWERS,
    **TOOL_ANSWERS,
    **UDF_ANSWERS,
}
