"""Info requests about the configuration: `get-config`, and `set-config` for what may change while the cluster runs."""

import dataclasses
from typing import Any

from geotrain.wire.codes import ResultCode
from geotrain.wire.info import decode_parameters, encode_parameters
from sim.cluster.answers.defaults import (
    NAMESPACE_CONFIGURATION,
    NETWORK_CONFIGURATION,
    SECURITY_CONFIGURATION,
    SERVICE_CONFIGURATION,
)
from sim.cluster.answers.info_parameters import Answer, InfoError, check_name, check_namespace, required
from sim.cluster.cluster import Cluster
from sim.cluster.execution.batch import MAX_ROWS
from sim.cluster.execution.jobs import MAX_JOBS
from sim.cluster.node import Node
from sim.cluster.security import SESSION_S

CLUSTER_NAME = "simulated"

_DYNAMIC = {
    "allow-ttl-without-nsup": "allow_ttl_without_nsup",
    "default-read-touch-ttl-pct": "default_read_touch_ttl_pct",
    "default-ttl": "default_ttl_s",
    "max-record-size": "max_record_bytes",
    "nsup-period": "nsup_period_s",
}
"""What of a namespace may be set while the cluster runs, and the field of its configuration that it sets."""

_UNITS = {
    "default_ttl_s": {"S": 1, "M": 60, "H": 3600, "D": 86400},
    "max_record_bytes": {"K": 1024, "M": 1024**2},
    "nsup_period_s": {"S": 1, "M": 60, "H": 3600, "D": 86400},
}
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


def namespace_configuration(cluster: Cluster, node: Node) -> dict[str, Any]:
    """The configuration of the namespace, as the node has it."""
    config = cluster.config
    return NAMESPACE_CONFIGURATION | {
        "active-rack": node.view.membership.active_rack,
        **{name: getattr(config, field) for name, field in _DYNAMIC.items()},
        "rack-id": node.rack,
        "replication-factor": config.replication_factor,
        "strong-consistency": config.strong_consistency,
    }


def _service(cluster: Cluster, node: Node) -> dict[str, Any]:
    return SERVICE_CONFIGURATION | {
        "batch-max-requests": MAX_ROWS,
        "cluster-name": CLUSTER_NAME,
        "node-id": node.node_id,
        "query-max-done": MAX_JOBS,
    }


def _network(cluster: Cluster, node: Node) -> dict[str, Any]:
    kind = "service.tls-" if cluster.config.tls_name else "service."
    named = {"service.tls-name": cluster.config.tls_name} if cluster.config.tls_name else {}
    return NETWORK_CONFIGURATION | {"service.address": node.host, f"{kind}port": node.port} | named


def _security(cluster: Cluster, node: Node) -> dict[str, Any]:
    return SECURITY_CONFIGURATION | {"enable-security": cluster.security.is_enabled, "session-ttl": SESSION_S}


_CONTEXTS = {"service": _service, "network": _network, "security": _security}


def _get(cluster: Cluster, node: Node, parameters: str) -> str:
    values = decode_parameters(parameters)
    context = values.get("context")
    if not context:
        return ";".join(encode_parameters(configuration(cluster, node)) for configuration in _CONTEXTS.values())
    if context == "namespace":
        check_namespace(cluster, parameters)
        return encode_parameters(namespace_configuration(cluster, node))
    if context not in _CONTEXTS:
        raise InfoError(ResultCode.PARAMETER, "bad 'context'")
    return encode_parameters(_CONTEXTS[context](cluster, node))


def _set(cluster: Cluster, node: Node, parameters: str) -> str:
    """Change a parameter of the namespace, on all nodes at once; a real server changes it on the node that is asked.

    What the simulation has no use for is refused: it would not do what was asked.
    """
    values = decode_parameters(parameters)
    context = required(values, "context")
    if context == "namespace":
        check_name(cluster, values.get("id") or values.get("namespace") or "")
        if "set" in values:
            raise InfoError(ResultCode.UNSUPPORTED, "sets have no configuration in a simulation")
        known = namespace_configuration(cluster, node)
    elif context in _CONTEXTS:
        known = _CONTEXTS[context](cluster, node)
    else:
        raise InfoError(ResultCode.PARAMETER, "bad 'context'")
    changed = {name: value for name, value in values.items() if name not in ("context", "id", "namespace")}
    if not changed or not changed.keys() <= known.keys():
        raise InfoError(ResultCode.PARAMETER, "bad parameter or value")
    if context != "namespace" or not changed.keys() <= _DYNAMIC.keys():
        raise InfoError(ResultCode.UNSUPPORTED, "can't be changed in a simulation that has no use for it")
    texts = {_DYNAMIC[name]: text for name, text in changed.items()}
    fields: dict[str, Any] = {field: _parsed(cluster, field, text) for field, text in texts.items()}
    try:
        dataclasses.replace(cluster.config, **fields)
    except ValueError as error:
        raise InfoError(ResultCode.PARAMETER, f"bad parameter or value: {error}") from None
    for field, parsed in fields.items():
        setattr(cluster.config, field, parsed)
    return "ok"


def _parsed(cluster: Cluster, field: str, text: str) -> int | bool:
    """A value as the field has it; numbers may have a unit: `10D`, `2M`. Raises InfoError."""
    if isinstance(getattr(cluster.config, field), bool):
        if text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
    else:
        units = _UNITS.get(field, {})
        number, unit = (text[:-1], units[text[-1:].upper()]) if text[-1:].upper() in units else (text, 1)
        if number.isdecimal() and len(number) < 20:
            return int(number) * unit
    raise InfoError(ResultCode.PARAMETER, "bad parameter or value")


CONFIG_ANSWERS: dict[str, Answer] = {"get-config": _get, "set-config": _set}
