"""Partitions: which one a digest falls into, and the bitmaps in which nodes say what they own."""

import base64
from collections.abc import Iterable

import numpy as np

from geotrain.wire.codes import ProtocolError

NUM_PARTITIONS = 4096


def partition_of(digest: bytes) -> int:
    """The partition of a record, from its 20-byte digest."""
    return (digest[0] | digest[1] << 8) & 0x0FFF


def encode_bitmap(partitions: Iterable[int]) -> str:
    """Base64 of a bitmap of 4096 bits, the first partition in the highest bit of the first byte."""
    bitmap = bytearray(NUM_PARTITIONS // 8)
    for partition in partitions:
        bitmap[partition >> 3] |= 0x80 >> (partition & 7)
    return base64.b64encode(bitmap).decode()


def decode_bitmap(text: str) -> list[int]:
    """The partitions in a bitmap, ascending. Raises ProtocolError."""
    try:
        bitmap = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ProtocolError(f"a partition bitmap is not base64: {error}") from None
    if len(bitmap) != NUM_PARTITIONS // 8:
        raise ProtocolError(f"a partition bitmap of {len(bitmap)} bytes, {NUM_PARTITIONS // 8} expected")
    found: list[int] = np.flatnonzero(np.unpackbits(np.frombuffer(bitmap, np.uint8))).tolist()
    return found


def encode_replicas(namespace: str, regime: int, owned: list[list[int]]) -> str:
    """A node's answer to `replicas`: the partitions of which it holds copy 0 (the master), copy 1, ..."""
    return ",".join([f"{namespace}:{regime}", str(len(owned)), *(encode_bitmap(copy) for copy in owned)])


def decode_replicas(text: str) -> dict[str, tuple[int, list[list[int]]]]:
    """By namespace: the regime, and the partitions owned as copy 0, copy 1, ... Raises ProtocolError."""
    replicas = {}
    for entry in filter(None, text.split(";")):
        namespace, separator, rest = entry.partition(":")
        regime, *columns = rest.split(",")
        if not separator or not columns or not regime.isdecimal() or columns[0] != str(len(columns) - 1):
            raise ProtocolError(f"not a partition map: {entry[:40]!r}")
        replicas[namespace] = (int(regime), [decode_bitmap(column) for column in columns[1:]])
    return replicas
