"""Info requests about modules of users' functions: they are registered and listed, in memory only, and never run."""

import binascii
import json
import re
from base64 import b64decode
from hashlib import sha1

from geotrain.wire.info import decode_parameters
from sim.cluster.answers.info_parameters import Answer
from sim.cluster.cluster import Cluster
from sim.cluster.node import Node

MAX_MODULE_BYTES = 1024 * 1024
MAX_MODULES = 256
_NAME = re.compile(r"[A-Za-z0-9_$-][A-Za-z0-9._$-]{0,126}")


def _put(cluster: Cluster, node: Node, parameters: str) -> str:
    values = decode_parameters(parameters)
    name, content = values.get("filename", ""), values.get("content", "")
    if not _NAME.fullmatch(name) or not name.partition(".")[2]:
        return "error=invalid_filename"
    if values.get("udf-type", "LUA") != "LUA":
        return "error=invalid_udf_type"
    if values.get("content-len") != str(len(content)):
        return "error=invalid_content_len"
    try:
        num_bytes = len(b64decode(content, validate=True))
    except binascii.Error:
        return "error=invalid_base64_content"
    if num_bytes > MAX_MODULE_BYTES:
        return "error=invalid_udf_content_len,>1M"
    if len(cluster.modules.keys() | {name}) > MAX_MODULES:
        return "error=timeout"
    cluster.modules[name] = content
    return "ok"


def _get(cluster: Cluster, node: Node, parameters: str) -> str:
    name = decode_parameters(parameters).get("filename", "")
    if not _NAME.fullmatch(name):
        return "error=invalid_filename"
    if name not in cluster.modules:
        return "error=not_found"
    return f"type=LUA;content={cluster.modules[name]};"


def _list(cluster: Cluster, node: Node, parameters: str) -> str:
    return "".join(
        f"filename={name},hash={_hash(name, content)},type=LUA;" for name, content in sorted(cluster.modules.items())
    )


def _hash(name: str, content: str) -> str:
    """A real server hashes its metadata on a module, and not only what is in it."""
    kept = json.dumps({"content64": content, "type": "LUA", "name": name})
    return sha1(kept.encode(), usedforsecurity=False).hexdigest()


def _remove(cluster: Cluster, node: Node, parameters: str) -> str:
    """Removing what isn't there is no error."""
    name = decode_parameters(parameters).get("filename", "")
    if not _NAME.fullmatch(name):
        return "error=invalid_filename"
    cluster.modules.pop(name, None)
    return "ok"


UDF_ANSWERS: dict[str, Answer] = {"udf-get": _get, "udf-list": _list, "udf-put": _put, "udf-remove": _remove}
