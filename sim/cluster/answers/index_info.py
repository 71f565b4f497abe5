"""Info requests about secondary indexes: create, delete, list, and how they stand."""

from geotrain.wire.codes import MAX_BIN_NAME_BYTES, ResultCode
from geotrain.wire.info import encode_parameters
from sim.cluster.answers.info_parameters import Answer, InfoError, check_namespace, required
from sim.cluster.cluster import Cluster, Node
from sim.cluster.execution.indexes import SOURCES, TYPES, Definition

MAX_INDEXES = 256
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
    renamed = [other for other, known in cluster.indexes.items() if known == definition]
    if not renamed and len(cluster.indexes) >= MAX_INDEXES:
        raise InfoError(ResultCode.INDEX_MAX_COUNT, "already at sindex definition limit")
    for other in renamed:
        del cluster.indexes[other]
    cluster.indexes[name] = definition
    return "ok"


def _definition(values: dict[str, str]) -> Definition:
    """An index from the parameters `bin` and `type`, or, as older clients have it, `indexdata=bin,type`."""
    if "context" in values or "exp" in values:
        raise InfoError(ResultCode.UNSUPPORTED, "indexes with a context or an expression are not simulated")
    bin_name, _, kind = values.get("indexdata", "").partition(",")
    if "indexdata" not in values:
        bin_name, kind = required(values, "bin"), required(values, "type")
    if not bin_name or len(bin_name.encode()) > MAX_BIN_NAME_BYTES:
        raise InfoError(ResultCode.PARAMETER, f"bad bin name '{bin_name}'")
    if kind.lower() == "geo2dsphere":
        raise InfoError(ResultCode.UNSUPPORTED, "indexes of locations are not simulated")
    if kind.lower() not in TYPES:
        raise InfoError(ResultCode.PARAMETER, "bad 'type' - must be one of 'numeric', 'string', 'blob', 'geo2dsphere'")
    source = values.get("indextype", "default").lower()
    if source not in SOURCES:
        kinds = ", ".join(f"'{name}'" for name in SOURCES)
        raise InfoError(ResultCode.PARAMETER, f"bad 'indextype' - must be one of {kinds}")
    set_name = values.get("set", "").encode()
    return Definition(set_name, bin_name.encode(), TYPES[kind.lower()], SOURCES.index(source))


def _delete(cluster: Cluster, node: Node, parameters: str) -> str:
    cluster.indexes.pop(required(check_namespace(cluster, parameters), "indexname"), None)
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
            "bin": index.bin.decode(),
            "type": _TYPE_NAMES[index.particle],
            "indextype": SOURCES[index.source],
            "context": "null",
            "exp": "null",
            "state": "RW",
        }
        lines.append(encode_parameters(values, ":"))
    return ";".join(lines)


def _state(cluster: Cluster, node: Node, parameters: str) -> str:
    name = required(check_namespace(cluster, parameters), "indexname")
    return _state_of(cluster, node, name)


def _state_by_path(cluster: Cluster, node: Node, parameters: str) -> str:
    """The old form: `sindex/<namespace>/<index>`, or `sindex/<namespace>` for all."""
    namespace, _, name = parameters.partition("/")
    check_namespace(cluster, f"namespace={namespace}")
    return _state_of(cluster, node, name) if name else _list(cluster, node, "")


def _state_of(cluster: Cluster, node: Node, name: str) -> str:
    index = cluster.indexes.get(name)
    if index is None:
        raise InfoError(ResultCode.INDEX_NOT_FOUND, "no index")
    held = node.sets.get(index.set_name, {}).values()
    indexed = [list(index.values(record)) for copy in held for record in copy.values()]
    num_records, num_entries = sum(map(bool, indexed)), sum(map(len, indexed))
    num_values = len({value for values in indexed for value in values})
    values = {
        "entries": num_entries,
        "used_bytes": 0,
        "entries_per_bval": num_entries // max(1, num_values),
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
