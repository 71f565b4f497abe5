"""Updates as files, and how a site's end of the call sends one."""

from collections.abc import Mapping
from pathlib import Path

import torch
import xxhash

from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.updates.codec import Layout, TensorFile, write_tensors


def encoded(tensors: Mapping[str, torch.Tensor]) -> bytes:
    data = bytearray()
    write_tensors(data.extend, Layout.of(tensors), tensors.__getitem__)
    return bytes(data)


def tensor_file(path: Path, tensors: Mapping[str, torch.Tensor]) -> TensorFile:
    path.write_bytes(encoded(tensors))
    return TensorFile(path)


async def upload(
    stub: rpc.CoordinatorStub, header: pb.UpdateHeader, data: bytes, *, timeout_s: float, chunk_bytes: int = 1000
) -> pb.UploadReceipt:
    """One attempt at sending what `encoded` made; sends no more than it is allowed to."""
    header.num_bytes, header.xxh3 = len(data), xxhash.xxh3_128_digest(data)
    call = stub.Upload(timeout=timeout_s)
    await call.write(pb.UploadPart(header=header))
    sent = None
    async for answer in call:
        if answer.HasField("receipt"):
            return answer.receipt
        sent = answer.credit.received if sent is None else sent
        until = min(answer.credit.until, len(data))
        while sent < until:
            chunk = data[sent : min(sent + chunk_bytes, until)]
            await call.write(pb.UploadPart(chunk=pb.Chunk(offset=sent, data=chunk)))
            sent += len(chunk)
    raise AssertionError("the coordinator hung up without a receipt")
