"""The floor under a round: bare grpcio, chunked, nothing kept. A server streams the model to its clients and sums what
they send back, chunk by chunk; clients return each chunk as it is.

`python -m benchmarks.floor ADDRESS`: one client, until its stream ends.
"""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import torch

METHOD = "/floor/Round"
CHUNK_BYTES = 1 << 20


class Floor(grpc.GenericRpcHandler):
    """Gives every client that calls the model of each round, and adds up what comes back."""

    def __init__(self, model: torch.Tensor, num_clients: int) -> None:
        self.sum = torch.zeros_like(model)
        self._model = model.view(torch.uint8).numpy().data
        self._lock = threading.Lock()
        self._start = threading.Barrier(num_clients + 1)
        self._end = threading.Barrier(num_clients + 1)

    def round(self) -> None:
        """One round, from its first byte out to its last byte in."""
        self.sum.zero_()
        self._start.wait()
        self._end.wait()

    def close(self) -> None:
        """End the threads that wait for another round."""
        self._start.abort()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(self._serve)

    def _serve(self, chunks: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        while True:
            try:
                self._start.wait()
            except threading.BrokenBarrierError:
                return
            taker = threading.Thread(target=self._take, args=(chunks,))
            taker.start()
            for at in range(0, len(self._model), CHUNK_BYTES):
                yield bytes(self._model[at : at + CHUNK_BYTES])
            taker.join()
            self._end.wait()

    def _take(self, chunks: Iterator[bytes]) -> None:
        for at in range(0, len(self._model), CHUNK_BYTES):
            chunk: torch.Tensor = torch.frombuffer(bytearray(next(chunks)), dtype=self.sum.dtype)
            part = self.sum[at // 4 :][: len(chunk)]
            with self._lock:
                part.add_(chunk)


def new_server(floor: Floor, num_clients: int) -> tuple[grpc.Server, int]:
    server = grpc.server(ThreadPoolExecutor(num_clients), handlers=[floor], options=_options())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def main() -> None:
    with grpc.insecure_channel(sys.argv[1], options=_options()) as channel:
        back = Echo()
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
        for chunk in call(back):
            back.put(chunk)


class Echo(Iterator[bytes]):
    """Chunks that are to be sent back, in the order in which they came."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._there = threading.Condition()

    def put(self, chunk: bytes) -> None:
        with self._there:
            self._chunks.append(chunk)
            self._there.notify()

    def __next__(self) -> bytes:
        with self._there:
            while not self._chunks:
                self._there.wait()
            return self._chunks.pop(0)


def _options() -> list[tuple[str, int]]:
    return [("grpc.max_receive_message_length", 2 * CHUNK_BYTES), ("grpc.so_reuseport", 0)]


if __name__ == "__main__":
    main()
