"""What an upload sends is what protobuf would send, and is read back where it lies."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import new_server, open_channel
from geotrain.rpc.parts import Chunk, ChunkPart, Stub, add_to_server, decode, encode

DEADLINE_S = 60
OFFSETS = st.integers(0, 2**64 - 1)
# Lengths around those where one more byte says them.
DATA = st.binary(max_size=300) | st.integers(16370, 16390).map(bytes)


@given(OFFSETS, DATA)
def test_protobuf_reads_a_chunk_that_is_encoded_without_it(offset, data):
    assert pb.UploadPart.FromString(encode(ChunkPart(Chunk(offset, data)))).chunk == pb.Chunk(offset=offset, data=data)


@given(OFFSETS, DATA)
def test_a_chunk_is_read_whoever_wrote_it(offset, data):
    by_protobuf = pb.UploadPart(chunk=pb.Chunk(offset=offset, data=data)).SerializeToString()
    for message in (by_protobuf, encode(ChunkPart(Chunk(offset, data)))):
        read = decode(message).chunk
        assert (read.offset, bytes(read.data)) == (offset, data)


def test_a_chunks_data_are_not_copied():
    message = encode(ChunkPart(Chunk(7, b"data")))
    assert decode(message).chunk.data.obj is message


def test_a_header_stays_protobufs():
    part = pb.UploadPart(header=pb.UpdateHeader(job="j", site="ewr", round=3))
    assert decode(encode(part)) == part


@given(st.binary(max_size=60) | st.tuples(st.just(b"\x12"), st.binary(max_size=60)).map(b"".join))
def test_what_is_no_chunk_is_protobufs_business(message):
    read = None
    try:
        read = decode(message)
    except DecodeError:
        with pytest.raises(DecodeError):
            pb.UploadPart.FromString(message)
    if read is not None:
        known = pb.UploadPart.FromString(message)
        assert (read.chunk.offset, bytes(read.chunk.data)) == (known.chunk.offset, known.chunk.data)


def test_a_number_that_never_ends_is_refused_at_once():
    with pytest.raises(DecodeError):
        decode(b"\x12" + b"\xff" * (1 << 20))


class Service(rpc.CoordinatorServicer):
    async def Upload(self, parts: AsyncIterator[object], context: grpc.aio.ServicerContext) -> AsyncIterator[object]:  # noqa: N802 - gRPC's name
        self.took = [part async for part in parts]
        yield pb.UploadAnswer(receipt=pb.UploadReceipt(accepted=True))


@pytest.mark.parametrize("stub", [Stub, rpc.CoordinatorStub])
def test_a_server_takes_chunks_from_this_stub_and_from_a_generated_one(stub):
    header = pb.UploadPart(header=pb.UpdateHeader(job="j"))
    chunk = ChunkPart(Chunk(9, b"data")) if stub is Stub else pb.UploadPart(chunk=pb.Chunk(offset=9, data=b"data"))

    async def scene() -> None:
        service, server = Service(), new_server()
        add_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with open_channel(f"127.0.0.1:{port}") as channel:
            call = stub(channel).Upload(timeout=DEADLINE_S)
            for part in (header, chunk):
                await call.write(part)
            await call.done_writing()
            assert (await call.read()).receipt.accepted
        await server.stop(None)
        assert service.took == [header, ChunkPart(Chunk(9, b"data"))]

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))
