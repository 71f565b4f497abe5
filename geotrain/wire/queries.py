"""Requests of queries by the primary index: which partitions of a set are wanted, from where on, and what of them."""

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geotrain.wire import codes
from geotrain.wire.codes import Field, OpCode
from geotrain.wire.frames import MESSAGE, encode_frame
from geotrain.wire.messages import Message, encode_message, operation

_NO_TOUCH = 0xFFFFFFFF  # record_ttl: reading does not prolong a record's life


def encode_query(
    namespace: str,
    set_name: str,
    *,
    partitions: Sequence[int] = (),
    resume_after: NDArray[np.uint8] | None = None,
    bins: Sequence[str] | None = None,
    task_id: int,
    socket_timeout_ms: int,
    records_per_second: int = 0,
    max_records: int = 0,
    expression: bytes = b"",
) -> bytes:
    """A whole frame that asks a node for rows.

    partitions: those wanted from their beginning. resume_after: (n, 20), of those begun before, the last digest seen.
    bins: None for all of them, empty for none. task_id: 64 bits, by which the server knows the query.
    records_per_second, max_records: 0 for no limit. expression: rows for which it is not true are left out.
    """
    fields = {Field.NAMESPACE: namespace.encode(), Field.SET: set_name.encode()}
    if records_per_second:
        fields[Field.RECORDS_PER_SECOND] = struct.pack(">I", records_per_second)
    fields[Field.SOCKET_TIMEOUT] = struct.pack(">I", socket_timeout_ms)
    fields[Field.TASK_ID] = struct.pack(">Q", task_id)
    if expression:
        fields[Field.FILTER] = expression
    if len(partitions):
        fields[Field.PARTITION_IDS] = np.asarray(partitions, "<u2").tobytes()
    if resume_after is not None and len(resume_after):
        fields[Field.DIGESTS] = np.ascontiguousarray(resume_after).tobytes()
    if max_records:
        fields[Field.MAX_RECORDS] = struct.pack(">Q", max_records)
    message = Message(
        info1=codes.INFO1_READ | (codes.INFO1_NO_BIN_DATA if bins is not None and not bins else 0),
        info3=codes.INFO3_PARTITION_DONE,
        record_ttl=_NO_TOUCH,
        fields=fields,
        ops=[operation(OpCode.READ, name) for name in bins or ()],
    )
    return encode_frame(MESSAGE, encode_message(message))
