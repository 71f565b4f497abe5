"""Performs list and map operations on Python values: packed as a client packs them, and unpacked again."""

from typing import Any

from geotrain.wire import packing
from geotrain.wire.particles import decode_value, encode_value
from sim.cluster.values import nested


def ask(value: Any, *operation: Any) -> Any:
    """What a reading operation answers."""
    return decode_value(*nested.read(*encode_value(value), packing.pack(list(operation))))


def change(value: Any, *operation: Any) -> tuple[Any, Any]:
    """The value after a changing operation, and what that answers."""
    after, answer = nested.modify(*encode_value(value), packing.pack(list(operation)))
    return decode_value(*after), decode_value(*answer)


def change_all(value: Any, *operations: list[Any]) -> Any:
    """The value after several operations, of which each works on the bytes that the last one left."""
    particle, data = encode_value(value)
    for operation in operations:
        (particle, data), _ = nested.modify(particle, data, packing.pack(operation))
    return decode_value(particle, data)
