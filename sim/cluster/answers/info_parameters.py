"""What the answers to info requests share: their form, their errors, and the checks of their parameters."""

from collections.abc import Callable

from geotrain.wire.codes import ResultCode
from geotrain.wire.info import decode_parameters
from sim.cluster.cluster import Cluster
from sim.cluster.node import Node

Answer = Callable[[Cluster, Node, str], str]
"""The value of a name on a node, given the text behind the name's `:` or `/`."""


class InfoError(Exception):
    """An answer `ERROR:<code>:<text>`."""

    def __init__(self, code: ResultCode, text: str) -> None:
        super().__init__(f"ERROR:{int(code)}:{text}")


def check_namespace(cluster: Cluster, parameters: str) -> dict[str, str]:
    """The parameters by name, which must name the cluster's namespace. Raises InfoError."""
    values = decode_parameters(parameters)
    check_name(cluster, values.get("namespace") or values.get("ns") or values.get("id") or "")
    return values


def check_name(cluster: Cluster, name: str) -> None:
    """Raises InfoError for a namespace that is not the cluster's."""
    if name != cluster.config.namespace:
        raise InfoError(ResultCode.PARAMETER, f"bad namespace '{name}'")


def required(values: dict[str, str], name: str) -> str:
    """A parameter that must be there. Raises InfoError."""
    if not values.get(name):
        raise InfoError(ResultCode.PARAMETER, f"missing '{name}'")
    return values[name]
