"""Batches: one message that holds many rows, each a small request of its own."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geotrain.wire import codes
from geotrain.wire.codes import DIGEST_BYTES, Field, OpCode, ProtocolError
from geotrain.wire.frames import MESSAGE, encode_frame
from geotrain.wire.messages import (
    Message,
    Operation,
    decode_fields,
    decode_ops,
    encode_field,
    encode_message,
    operation,
)

ROW_REPEAT = 0x01
ROW_INFO = 0x02
ROW_GENERATION = 0x04
ROW_TTL = 0x08
ROW_INFO4 = 0x10
_FLAGS = 0x0D  # as the official client sends: answer every key, keep small batches in line
_BATCH = struct.Struct(">IB")
_ROW = struct.Struct(">I20sB")
_COUNTS = struct.Struct(">HH")
_INFOS = struct.Struct(">BBB")
_UINT16 = struct.Struct(">H")
_UINT32 = struct.Struct(">I")
_REPEATS = np.dtype([("position", ">u4"), ("digest", np.uint8, DIGEST_BYTES), ("kind", np.uint8)])


class BatchRow(NamedTuple):
    """One row of a batch: what to do to one record."""

    position: int
    digest: bytes
    info1: int
    info2: int
    info3: int
    info4: int
    generation: int
    record_ttl: int
    fields: Mapping[int, bytes]
    ops: list[Operation]


def batch_size(data: bytes) -> int:
    """How many rows the batch field announces. Raises ProtocolError."""
    if len(data) < _BATCH.size:
        raise ProtocolError("a batch field without a header")
    return int(_BATCH.unpack_from(data)[0])


def decode_batch(data: bytes) -> Iterator[BatchRow]:
    """The rows of a batch field, one after the other. Raises ProtocolError."""
    try:
        num_rows, _ = _BATCH.unpack_from(data)
        at = _BATCH.size
        row: BatchRow | None = None
        repeated: tuple[Any, ...] = ()
        for _ in range(num_rows):
            position, digest, kind = _ROW.unpack_from(data, at)
            at += _ROW.size
            if kind != ROW_REPEAT:
                row, at = _decode_row(data, at, position, digest, kind)
                repeated = row[2:]
            elif row is None:
                raise ProtocolError("the first row of a batch can't repeat another")
            else:
                row = BatchRow._make((position, digest, *repeated))
            yield row
    except (struct.error, IndexError) as error:
        raise ProtocolError(f"a batch is cut short: {error}") from None


def _decode_row(data: bytes, at: int, position: int, digest: bytes, kind: int) -> tuple[BatchRow, int]:
    if not kind & ROW_INFO:
        raise ProtocolError(f"a batch row of type {kind}: the layout of servers before 6.0 is not spoken")
    info1, info2, info3 = _INFOS.unpack_from(data, at)
    at += _INFOS.size
    info4 = generation = record_ttl = 0
    if kind & ROW_INFO4:
        info4 = data[at]
        at += 1
    if kind & ROW_GENERATION:
        (generation,) = _UINT16.unpack_from(data, at)
        at += 2
    if kind & ROW_TTL:
        (record_ttl,) = _UINT32.unpack_from(data, at)
        at += 4
    num_fields, num_ops = _COUNTS.unpack_from(data, at)
    fields, at = decode_fields(data, at + 4, num_fields)
    ops, at = decode_ops(data, at, num_ops)
    return BatchRow(position, digest, info1, info2, info3, info4, generation, record_ttl, fields, ops), at


def encode_batch(rows: Sequence[BatchRow]) -> bytes:
    """The content of a batch field. A row that only differs in its digest from the one before is sent as a repeat."""
    parts = []
    previous: BatchRow | None = None
    for row in rows:
        if previous is not None and row[2:] == previous[2:]:
            parts.append(_ROW.pack(row.position, row.digest, ROW_REPEAT))
        else:
            kind = ROW_INFO | ROW_INFO4 | ROW_GENERATION | ROW_TTL
            infos = bytes((row.info1, row.info2, row.info3, row.info4)) + row.generation.to_bytes(2, "big")
            parts += [_ROW.pack(row.position, row.digest, kind), infos, _UINT32.pack(row.record_ttl)]
            parts.append(_COUNTS.pack(len(row.fields), len(row.ops)))
            parts += [encode_field(kind, data) for kind, data in row.fields.items()]
            parts += [op.raw for op in row.ops]
        previous = row
    return _BATCH.pack(len(rows), _FLAGS) + b"".join(parts)


def encode_reads(
    namespace: str,
    set_name: str,
    digests: NDArray[np.uint8],
    positions: NDArray[np.int64],
    *,
    bins: Sequence[str],
    info3: int,
    timeout_ms: int,
    expression: bytes = b"",
) -> bytes:
    """A whole frame that reads records by key, each in a row that repeats the first.

    digests: (n, 20). positions: (n,), by which the replies are known. bins: empty for none. info3: the read mode.
    expression: records for which it is not true are refused as filtered out.
    """
    repeats = np.zeros(len(digests), _REPEATS)
    repeats["position"], repeats["digest"], repeats["kind"] = positions, digests, ROW_REPEAT
    repeats["kind"][0] = ROW_INFO | ROW_TTL
    first, others = repeats[:1].tobytes(), repeats[1:].tobytes()
    info1 = codes.INFO1_READ if bins else codes.INFO1_READ | codes.INFO1_NO_BIN_DATA
    fields = encode_field(Field.NAMESPACE, namespace.encode()) + encode_field(Field.SET, set_name.encode())
    ops = b"".join(operation(OpCode.READ, name).raw for name in bins)
    command = _INFOS.pack(info1, 0, info3) + _UINT32.pack(0) + _COUNTS.pack(2, len(bins)) + fields + ops
    rows = _BATCH.pack(len(digests), _FLAGS) + first + command + others
    filters = {Field.FILTER: expression} if expression else {}
    message = Message(info1=codes.INFO1_BATCH, transaction_ttl=timeout_ms, fields={**filters, Field.BATCH: rows})
    return encode_frame(MESSAGE, encode_message(message))
