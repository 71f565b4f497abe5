"""An upload's messages on their way: as coordinator.proto has them, without the copies of chunks that protobuf makes.

Knows no call's course.
"""

from typing import NamedTuple

import grpc

from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc

SERVICE = pb.DESCRIPTOR.services_by_name["Coordinator"]

# Tags, as protobuf's encoding has them: the number of the field, and what follows.
CHUNK = DATA = 2 << 3 | 2
OFFSET = 1 << 3
MAX_SHIFT = 63


class Chunk(NamedTuple):
    """Bytes of the update, and where they begin in it."""

    offset: int
    data: bytes | memoryview


class ChunkPart(NamedTuple):
    """An `UploadPart` that holds a chunk."""

    chunk: Chunk


class Stub(rpc.CoordinatorStub):
    """The generated stub; its `Upload` takes a ChunkPart as well."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__(channel)
        self.Upload = channel.stream_stream(
            f"/{SERVICE.full_name}/Upload",
            request_serializer=encode,
            response_deserializer=pb.UploadAnswer.FromString,
        )


def add_to_server(servicer: rpc.CoordinatorServicer, server: grpc.aio.Server) -> None:
    """Have a server answer the service's calls. What `Upload` is given are ChunkParts, and an UploadPart else."""
    rpc.add_CoordinatorServicer_to_server(servicer, server)
    upload = grpc.stream_stream_rpc_method_handler(
        servicer.Upload, request_deserializer=decode, response_serializer=pb.UploadAnswer.SerializeToString
    )
    server.add_registered_method_handlers(SERVICE.full_name, {"Upload": upload})


def encode(part: pb.UploadPart | ChunkPart) -> bytes:
    """The message as protobuf would write it."""
    if isinstance(part, pb.UploadPart):
        return part.SerializeToString()
    offset, data = part.chunk
    before = bytes((OFFSET, *_varint(offset), DATA, *_varint(len(data))))
    return b"".join((bytes((CHUNK, *_varint(len(before) + len(data)))), before, data))


def decode(message: bytes) -> pb.UploadPart | ChunkPart:
    """A message that `encode` or protobuf wrote; a chunk's data stay where they are."""
    try:
        tag, at = message[0], 1
        length, at = _read_varint(message, at)
        is_chunk = tag == CHUNK and at + length == len(message) and message[at] == OFFSET
        offset, at = _read_varint(message, at + 1)
        is_chunk = is_chunk and message[at] == DATA
        length, at = _read_varint(message, at + 1)
    except (IndexError, OverflowError):
        is_chunk = False
    if is_chunk and at + length == len(message):
        return ChunkPart(Chunk(offset, memoryview(message)[at:]))
    return pb.UploadPart.FromString(message)


def _varint(value: int) -> list[int]:
    """A number in sevens of bits, the lowest first; all but the last are marked."""
    sevens = []
    while value > 0x7F:
        sevens.append(value & 0x7F | 0x80)
        value >>= 7
    return [*sevens, value]


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends. Raises IndexError where it does not, OverflowError for one that is too long."""
    value = shift = 0
    while True:
        if shift > MAX_SHIFT:
            raise OverflowError("a number of over 64 bits")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte <= 0x7F:
            return value, at
