"""Info requests of tools about the server itself, and about what the simulation has nothing to say of."""

from geotrain.wire.codes import ResultCode
from geotrain.wire.info import decode_parameters, encode_parameters
from sim.cluster.answers.info_parameters import Answer, InfoError, check_namespace
from sim.cluster.cluster import Cluster
from sim.cluster.node import Node

BUILD = "8.1.2.0"
_FEATURES = (
    "batch-any;batch-index;blob-bits;cdt-index;cdt-list;cdt-map;cluster-stable;float;geo;sindex-exists;peers;"
    "pipelining;pquery;pscans;query-show;relaxed-sc;replicas;replicas-all;replicas-master;replicas-max;"
    "truncate-namespace;udf"
)
_LATENCIES = ("read", "write", "udf", "pi-query", "si-query")
_HISTOGRAMS = ("ttl", "object-size", "object-size-linear")


def _edition(cluster: Cluster) -> str:
    """The name under which the cluster's edition is sold."""
    return f"Aerospike {cluster.config.edition.title()} Edition"


def _release(cluster: Cluster, node: Node, parameters: str) -> str:
    where = {"os": "simulated", "arch": "simulated", "sha": "simulated"}
    return encode_parameters({"edition": _edition(cluster), "version": BUILD, **where})


def _latencies(cluster: Cluster, node: Node, parameters: str) -> str:
    """Nothing is timed, so every histogram is empty, as an idle server's are."""
    names = ["batch-index", *(f"{{{cluster.config.namespace}}}-{kind}" for kind in _LATENCIES)]
    wanted = decode_parameters(parameters).get("hist")
    if wanted and wanted not in names:
        raise InfoError(ResultCode.PARAMETER, f"bad 'hist' '{wanted}'")
    return ";".join(f"{name}:" for name in ([wanted] if wanted else names))


def _histogram(cluster: Cluster, node: Node, parameters: str) -> str:
    """What a server answers before it has first gone through its records."""
    values = check_namespace(cluster, parameters)
    if values.get("type") not in _HISTOGRAMS:
        raise InfoError(ResultCode.PARAMETER, f"bad 'type' - must be one of {', '.join(_HISTOGRAMS)}")
    return "hist-unavailable"


TOOL_ANSWERS: dict[str, Answer] = {
    "best-practices": lambda cluster, node, parameters: "failed_best_practices=none",
    "build": lambda cluster, node, parameters: BUILD,
    "edition": lambda cluster, node, parameters: _edition(cluster),
    "features": lambda cluster, node, parameters: _FEATURES,
    "health-outliers": lambda cluster, node, parameters: "",
    "health-stats": lambda cluster, node, parameters: "",
    "histogram": _histogram,
    "latencies": _latencies,
    "logs": lambda cluster, node, parameters: "0:stderr",
    "release": _release,
    "status": lambda cluster, node, parameters: "ok",
    "user-agent-set": lambda cluster, node, parameters: "ok",
    "version": lambda cluster, node, parameters: f"{_edition(cluster)} build {BUILD}",
}
