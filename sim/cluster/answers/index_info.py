"""Info requests about secondary indexes: create, delete, list, and how they stand."""

import binascii
from base64 import b64decode, b64encode

from geotrain.wire.codes import MAX_BIN_NAME_BYTES, Particle, ProtocolError, ResultCode
from geotrain.wire.info import encode_parameters
from sim.cluster.answers.info_parameters import Answer, InfoError, check_namespace, required
from sim.cluster.cluster import Cluster
from sim.cluster.execution.indexes import SOURCES, TYPES, Definition
from sim.cluster.expression.expression_values import PARTICLES
from sim.cluster.expression.expressions import compiled
from sim.cluster.node import Node
from sim.cluster.records import check_set_name
from sim.cluster.values.nested import path_of
from sim.cluster.values.refused import Refused

MAX_INDEXES = 256
ARENA_BYTES = 16 * 1024 * 1024  # what an index of a real server takes at least
_TYPE_NAMES = {particle: name for name, particle in reversed(TYPES.items())}


def _create(cluster: Cluster, node: Node, parameters: str) -> str:
    values = check_namespace(cluster, parameters)
    name = required(values, "indexname")
    definition = _definition(values)
    present = cluster.indexes.get(name)
    if present == definition:
        return "ok"
    if present is not None:
        raise InfoError(ResultCode.INDEX_FOUND, "'indexname' already exists with different definition")
    others = {other: known for other, known in cluster.indexes.items() if known != definition}
    if len(others) >= MAX_INDEXES:
        raise InfoError(ResultCode.INDEX_MAX_COUNT, "already at sindex definition limit")
    cluster.set_indexes(others | {name: definition})
    return "ok"


def _definition(values: dict[str, str]) -> Definition:
    """What an index is on: the bin or the expression, its type, and perhaps a context that leads into the bin."""
    source = values.get("indextype", "default").lower()
    if source not in SOURCES:
        kinds = ", ".join(f"'{name}'" for name in SOURCES[:-1])
        raise InfoError(ResultCode.PARAMETER, f"bad 'indextype' - must be one of {kinds}")
    set_name = _set_name(values)
    if source == SOURCES[-1]:
        return _of_set(set_name, values)
    bin_name, kind = _bin_and_type(values)
    if kind == "geo2dsphere":
        raise InfoError(ResultCode.UNSUPPORTED, "indexes of locations are not simulated")
    if kind not in TYPES:
        raise InfoError(ResultCode.PARAMETER, "bad 'type' - must be one of 'numeric', 'string', 'blob', 'geo2dsphere'")
    context, expression = _packed(values, "context"), _packed(values, "exp")
    definition = Definition(set_name, bin_name, TYPES[kind], SOURCES.index(source), context, expression)
    _check(definition)
    return definition


def _set_name(values: dict[str, str]) -> bytes:
    set_name = values.get("set", "").encode()
    try:
        check_set_name(set_name)
    except Refused as refusal:
        raise InfoError(refusal.code, "bad 'set'") from None
    return set_name


def _of_set(set_name: bytes, values: dict[str, str]) -> Definition:
    """An index of the set's records and nothing in them."""
    required(values, "set")
    for name in ("context", "indexdata", "type", "bin", "exp"):
        if name in values:
            raise InfoError(ResultCode.PARAMETER, f"{name} parameter is not supported for set index")
    return Definition(set_name, b"", Particle.NIL, len(SOURCES) - 1)


def _bin_and_type(values: dict[str, str]) -> tuple[bytes, str]:
    """The parameters `bin` (none with an expression) and `type`, or, from older clients, `indexdata=bin,type`."""
    bin_name, _, kind = values.get("indexdata", "").partition(",")
    if "indexdata" not in values:
        bin_name, kind = values.get("bin", ""), required(values, "type")
    if bool(bin_name) == ("exp" in values):
        raise InfoError(ResultCode.PARAMETER, f"both 'bin' and 'exp' are {'specified' if bin_name else 'missing'}")
    if len(bin_name.encode()) > MAX_BIN_NAME_BYTES:
        raise InfoError(ResultCode.PARAMETER, f"bad bin name '{bin_name}'")
    return bin_name.encode(), kind.lower()


def _packed(values: dict[str, str], name: str) -> bytes:
    try:
        return b64decode(values.get(name, ""), validate=True)
    except binascii.Error:
        raise InfoError(ResultCode.PARAMETER, f"'{name}' invalid base64") from None


def _check(definition: Definition) -> None:
    """Raises InfoError where the context is none, or the expression is none or of another type than the index."""
    if definition.context and definition.expression:
        raise InfoError(ResultCode.PARAMETER, "both 'context' and 'exp' are specified")
    try:
        if definition.context:
            path_of(definition.context)
        kind = compiled(definition.expression).type if definition.expression else None
    except (ProtocolError, Refused):
        text = "'context' invalid cdt context" if definition.context else "bad 'exp'"
        raise InfoError(ResultCode.PARAMETER, text) from None
    if kind is not None and PARTICLES.get(kind) != definition.whole:
        raise InfoError(ResultCode.PARAMETER, "bad 'exp' - expression type does not match expected type")


def _delete(cluster: Cluster, node: Node, parameters: str) -> str:
    name = required(check_namespace(cluster, parameters), "indexname")
    index = cluster.indexes.get(name)
    if index is not None:
        cluster.set_indexes({other: known for other, known in cluster.indexes.items() if other != name})
        for each in cluster.nodes:
            cluster.record_set(each, index.set_name).forget_entries(index)
    return "ok"


def _exists(cluster: Cluster, node: Node, parameters: str) -> str:
    return str(required(check_namespace(cluster, parameters), "indexname") in cluster.indexes).lower()


def _list(cluster: Cluster, node: Node, parameters: str) -> str:
    if parameters:
        check_namespace(cluster, parameters)
    lines = []
    for name, index in cluster.indexes.items():
        values = {
            "ns": cluster.config.namespace,
            "indexname": name,
            "set": index.set_name.decode() or "null",
            "bin": index.bin.decode() or "null",
            "type": _TYPE_NAMES.get(index.particle, "null"),
            "indextype": SOURCES[index.source],
            "context": b64encode(index.context).decode() or "null",
            "exp": b64encode(index.expression).decode() or "null",
            "state": "RW",
        }
        lines.append(encode_parameters(values, ":"))
    return ";".join(lines)


def _state(cluster: Cluster, node: Node, parameters: str) -> str:
    name = required(check_namespace(cluster, parameters), "indexname")
    return _state_of(cluster, node, name)


def _state_by_path(cluster: Cluster, node: Node, parameters: str) -> str:
    """The old form: `sindex/<namespace>/<index>`, `sindex/<namespace>` for all there, or `sindex` for all."""
    if not parameters:
        return _list(cluster, node, "")
    namespace, _, name = parameters.partition("/")
    check_namespace(cluster, f"namespace={namespace}")
    return _state_of(cluster, node, name) if name else _list(cluster, node, "")


def _state_of(cluster: Cluster, node: Node, name: str) -> str:
    index = cluster.indexes.get(name)
    if index is None:
        raise InfoError(ResultCode.INDEX_NOT_FOUND, "no index")
    entries = cluster.record_set(node, index.set_name).entries(index)
    num_records = sum(entries.num_records[pid] for pid in entries.num_records.keys() & node.held)
    num_entries = sum(entries.num_entries[pid] for pid in entries.num_entries.keys() & node.held)
    values = {
        "entries": num_entries,
        "used_bytes": ARENA_BYTES,
        "entries_per_bval": sum(entries.num_entries.values()) // max(1, entries.num_values),
        "entries_per_rec": num_entries // max(1, num_records),
        "load_pct": 100,
        "load_time": 0,
        "stat_gc_recs": 0,
    }
    return encode_parameters(values)


INDEX_ANSWERS: dict[str, Answer] = {
    "sindex": _state_by_path,
    "sindex-create": _create,
    "sindex-delete": _delete,
    "sindex-exists": _exists,
    "sindex-list": _list,
    "sindex-stat": _state,
}
