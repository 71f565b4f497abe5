"""Rows of a batch that read bins of the node's own copies, and are alike: what all share is found out once.

Answers them as `execute` does, some times as fast. Knows neither sockets nor clocks.
"""

import struct
from collections.abc import Callable

from geotrain.wire import codes
from geotrain.wire.batches import BatchRow
from geotrain.wire.codes import Field, OpCode, ResultCode
from geotrain.wire.messages import HEADER_BYTES, pack_header
from geotrain.wire.partitions import partition_of
from sim.cluster.cluster import Cluster
from sim.cluster.execution.transactions import MONITORS
from sim.cluster.node import Node
from sim.cluster.records import Shape
from sim.cluster.sites.read_modes import Source, read_mode, source

Answer = Callable[[bytes, int], bytes | None]
"""The reply to the row of a digest and a position; None where `execute` is to give it."""

# From here on a view of bins takes less time than a copy.
LARGE_BYTES = 4096

_READS = codes.INFO1_READ | codes.INFO1_GET_ALL
_POSITION_AT = 14  # in the header, which is else that of the record's row
_pack_position = struct.Struct(">IH").pack  # and that there are no fields
_FOUND, _NOT_FOUND = (("batch_sub", "read", code) for code in (ResultCode.OK, ResultCode.NOT_FOUND))


def answer_of(cluster: Cluster, node: Node, row: BatchRow) -> Answer | None:
    """Returns what answers the rows that repeat this one; None where they are none that are answered here."""
    set_name = row.fields.get(Field.SET, b"")
    is_plain = row.fields == {Field.NAMESPACE: cluster.namespace, Field.SET: set_name}
    reads_bins = not (row.info1 & ~_READS or row.info2 or row.info4) and all(op.code == OpCode.READ for op in row.ops)
    is_strong = cluster.config.strong_consistency
    copy = source(read_mode(row.info3), is_strong=is_strong, is_served=True, has_copy=True)
    if not is_plain or set_name in (b"", MONITORS) or not reads_bins or copy is not Source.OWN_COPY:
        return None
    plan = _planner(row)

    def answer(digest: bytes, position: int) -> bytes | None:
        pid = partition_of(digest)
        if pid in node.view.unavailable or not node.memory.versions[pid] or set_name not in cluster.sets:
            return None
        record = node.copy(set_name, pid).get(digest)
        if record is None:
            node.counters[_NOT_FOUND] += 1
            return pack_header(HEADER_BYTES, 0, 0, 0, 0, ResultCode.NOT_FOUND, 0, 0, position, 0, 0)
        message, shape = record.row, record.shape
        if not message or record.void_time:
            return None
        num_ops, bounds = plan(shape)
        start = len(message) - shape.num_bytes
        bins = message if shape.num_bytes < LARGE_BYTES else memoryview(message)
        ops = [bins[start + begin : start + end] for begin, end in bounds]
        node.counters[_FOUND] += 1
        return b"".join((message[:_POSITION_AT], _pack_position(position, 0), num_ops, *ops))

    return answer


def _planner(row: BatchRow) -> Callable[[Shape], tuple[bytes, list[tuple[int, int]]]]:
    """Finds how many of the bins that the row asks for records of a shape have, as it travels, and where they lie."""
    asked = [op.name for op in row.ops]
    plans: dict[Shape, tuple[bytes, list[tuple[int, int]]]] = {}

    def plan(shape: Shape) -> tuple[bytes, list[tuple[int, int]]]:
        if shape not in plans:
            is_whole = row.info1 & codes.INFO1_GET_ALL or asked == list(shape.bounds)
            found = [shape.bounds[name] for name in asked if name in shape.bounds]
            num_ops = len(shape.bounds if is_whole else found)
            plans[shape] = num_ops.to_bytes(2, "big"), [(0, shape.num_bytes)] if is_whole else found
        return plans[shape]

    return plan
