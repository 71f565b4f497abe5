"""Messages (AS_MSG): a 22-byte header, fields, operations on bins. Requests and replies have the same form."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from geotrain.wire.codes import INFO3_LAST, ProtocolError
from geotrain.wire.frames import MESSAGE, frame_header
from geotrain.wire.particles import Value, decode_value, encode_value

HEADER_BYTES = 22
# header size, info1..4, result code, generation, record ttl, transaction ttl, number of fields, number of operations
_HEADER = struct.Struct(">BBBBBBIIIHH")
pack_header = _HEADER.pack
_FIELD = struct.Struct(">IB")
_OP = struct.Struct(">IBBxB")
_pack_op = _OP.pack
OP_OVERHEAD = 8  # bytes of an operation besides its bin name and value


class Operation(NamedTuple):
    """One operation. `raw` is the whole operation as it travels, so that it can be copied unread."""

    code: int
    particle: int
    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """The bytes of the value, in the form of its particle type."""
        return self.raw[OP_OVERHEAD + len(self.name) :]


@dataclass(slots=True, kw_only=True)
class Message:
    """A request or a reply. `record_ttl` and `transaction_ttl` mean what the direction and the command make of them."""

    info1: int = 0
    info2: int = 0
    info3: int = 0
    info4: int = 0
    result_code: int = 0
    generation: int = 0
    record_ttl: int = 0
    transaction_ttl: int = 0
    fields: dict[int, bytes] = field(default_factory=dict)
    ops: list[Operation] = field(default_factory=list)

    @property
    def is_last(self) -> bool:
        """Whether this message ends a stream of replies."""
        return bool(self.info3 & INFO3_LAST)

    def bins(self) -> dict[str, Value]:
        """The values of a reply, by bin name. Raises ProtocolError."""
        return {op.name.decode(): decode_value(op.particle, op.value) for op in self.ops}


def encode_op(code: int, name: bytes, particle: int = 0, value: bytes = b"") -> bytes:
    """One operation as it travels."""
    return _pack_op(4 + len(name) + len(value), code, particle, len(name)) + name + value


def operation(code: int, name: str = "", value: Value = None) -> Operation:
    """An operation from Python values, as a client would send it."""
    particle, data = encode_value(value)
    return Operation(code, particle, name.encode(), encode_op(code, name.encode(), particle, data))


def encode_field(kind: int, data: bytes) -> bytes:
    """One field as it travels."""
    return _FIELD.pack(1 + len(data), kind) + data


def encode_message(message: Message) -> bytes:
    """The message's bytes, without a frame."""
    header = pack_header(
        HEADER_BYTES,
        message.info1,
        message.info2,
        message.info3,
        message.info4,
        message.result_code,
        message.generation,
        message.record_ttl,
        message.transaction_ttl,
        len(message.fields),
        len(message.ops),
    )
    fields = [encode_field(kind, data) for kind, data in message.fields.items()]
    return b"".join([header, *fields, *(op.raw for op in message.ops)])


def decode_message(data: bytes, at: int = 0) -> tuple[Message, int]:
    """The message that starts at `at`, and where it ends. Raises ProtocolError."""
    try:
        size, info1, info2, info3, info4, result_code, generation, record_ttl, transaction_ttl, num_fields, num_ops = (
            _HEADER.unpack_from(data, at)
        )
        if size != HEADER_BYTES:
            raise ProtocolError(f"a message header of {size} bytes, {HEADER_BYTES} expected")
        fields, at = decode_fields(data, at + HEADER_BYTES, num_fields)
        ops, at = decode_ops(data, at, num_ops)
    except struct.error as error:
        raise ProtocolError(f"a message is cut short: {error}") from None
    message = Message(
        info1=info1,
        info2=info2,
        info3=info3,
        info4=info4,
        result_code=result_code,
        generation=generation,
        record_ttl=record_ttl,
        transaction_ttl=transaction_ttl,
        fields=fields,
        ops=ops,
    )
    return message, at


def decode_messages(body: bytes) -> Iterator[Message]:
    """The messages of one frame of a stream of replies. Raises ProtocolError."""
    at = 0
    while at < len(body):
        message, at = decode_message(body, at)
        yield message


def decode_fields(data: bytes, at: int, count: int) -> tuple[dict[int, bytes], int]:
    """`count` fields from `at` on, by type, and where they end. Raises ProtocolError or struct.error."""
    fields = {}
    unpack = _FIELD.unpack_from
    for _ in range(count):
        size, kind = unpack(data, at)
        end = at + 4 + size
        if size == 0 or end > len(data):
            raise ProtocolError(f"field {kind} of {size} bytes does not fit its message")
        fields[kind] = data[at + 5 : end]
        at = end
    return fields, at


def decode_ops(data: bytes, at: int, count: int) -> tuple[list[Operation], int]:
    """`count` operations from `at` on, and where they end. Raises ProtocolError or struct.error."""
    ops = []
    unpack, new, limit = _OP.unpack_from, tuple.__new__, len(data)  # all that a server writes passes here
    for _ in range(count):
        size, code, particle, name_size = unpack(data, at)
        end = at + 4 + size
        name_end = at + OP_OVERHEAD + name_size
        if name_end > end or end > limit:
            raise ProtocolError(f"operation {code} of {size} bytes does not fit its message")
        ops.append(new(Operation, (code, particle, data[at + OP_OVERHEAD : name_end], data[at:end])))
        at = end
    return ops, at


def reply_frame(
    result_code: int,
    generation: int = 0,
    void_time: int = 0,
    num_ops: int = 0,
    ops: bytes = b"",
    info3: int = 0,
    num_fields: int = 0,
    fields: bytes = b"",
) -> bytes:
    """A whole frame with the reply to a single-record command, or with the end of a stream."""
    return b"".join(
        (
            frame_header(MESSAGE, HEADER_BYTES + len(fields) + len(ops)),
            pack_header(HEADER_BYTES, 0, 0, info3, 0, result_code, generation, void_time, 0, num_fields, num_ops),
            fields,
            ops,
        )
    )
