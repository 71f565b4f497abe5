"""The sockets of the simulated cluster: one listener a node, one connection a client's. Knows no command's meaning."""

import asyncio
import errno
import time
from collections import deque
from collections.abc import Iterator
from functools import partial

from geotrain.errors import ConfigError
from geotrain.wire import codes, frames
from geotrain.wire import info as info_text
from geotrain.wire.codes import Field, ProtocolError, ResultCode
from geotrain.wire.frames import Frame, FrameReader
from geotrain.wire.messages import Message, decode_message, reply_frame
from sim.cluster.batch import batch
from sim.cluster.cluster import Cluster, Node
from sim.cluster.commands import execute
from sim.cluster.info import answer
from sim.cluster.query import query
from sim.cluster.streams import Chunk, last_chunk

WRITE_BUFFER_BYTES = 1024 * 1024  # beyond it a stream waits for its reader
_ADMIN_REPLY_BYTES = 16


async def start(cluster: Cluster) -> list[asyncio.Server]:
    """Listen for every node. Gives each node its port where it asked for any. Raises ConfigError for a port in use."""
    loop = asyncio.get_running_loop()
    servers = []
    for node in cluster.nodes:
        try:
            server = await loop.create_server(partial(Connection, cluster, node), node.host, node.port)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"can't be listened on: {error.strerror}"
            raise ConfigError(
                f"nodes.{node.name}.port: {node.host}:{node.port} {reason}",
                f"Stop what listens there, or choose another port: nodes.{node.name}.port=0 takes any free one.",
            ) from None
        node.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    return servers


class Connection(asyncio.Protocol):
    """One client connection: requests in, replies out, strictly in order."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self._cluster = cluster
        self._node = node
        self._reader = FrameReader()
        self._requests: deque[Frame] = deque()
        self._stream: Iterator[Chunk] | None = None
        self._next_step: asyncio.TimerHandle | None = None
        self._paused = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start with the transport's write buffer bounded."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._node.num_connections += 1

    def connection_lost(self, error: Exception | None) -> None:
        """Drop what was still to be sent."""
        self._node.num_connections -= 1
        self._requests.clear()
        self._stream = None
        if self._next_step is not None:
            self._next_step.cancel()

    def data_received(self, data: bytes) -> None:
        """Take in requests. While some wait, no more are read."""
        try:
            self._requests += self._reader.feed(data)
        except ProtocolError:
            self._transport.close()
            return
        self._work()
        if self._requests:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._paused = False
        self._work()

    def _step(self) -> None:
        self._next_step = None
        self._work()

    def _work(self) -> None:
        """Answer requests until one takes several steps; between its steps the other connections have their turn."""
        while not self._paused and self._next_step is None:
            if self._stream is not None:
                self._advance(self._stream)
            elif self._requests:
                self._answer(self._requests.popleft())
            else:
                self._transport.resume_reading()
                return

    def _advance(self, stream: Iterator[Chunk]) -> None:
        try:
            chunk = next(stream, None)
        except ProtocolError:
            chunk = None
            self._transport.write(last_chunk(ResultCode.PARAMETER).frames)
        if chunk is None:
            self._stream = None
            return
        self._transport.write(chunk.frames)
        self._next_step = asyncio.get_running_loop().call_later(chunk.pause_s, self._step)

    def _answer(self, request: Frame) -> None:
        kind, body = request
        try:
            if kind == frames.COMPRESSED:
                kind, body = frames.decompress(body)
            if kind == frames.MESSAGE:
                self._answer_message(decode_message(body)[0])
            elif kind == frames.INFO:
                names = info_text.decode_request(body)
                answers = [(name, answer(self._cluster, self._node, name)) for name in names]
                self._transport.write(frames.encode_frame(frames.INFO, info_text.encode_reply(answers)))
            else:
                reply = bytes([0, ResultCode.SECURITY_NOT_ENABLED]).ljust(_ADMIN_REPLY_BYTES, b"\0")
                self._transport.write(frames.encode_frame(frames.ADMIN, reply))
        except ProtocolError:
            self._transport.write(last_chunk(ResultCode.PARAMETER).frames)

    def _answer_message(self, message: Message) -> None:
        cluster, node, fields = self._cluster, self._node, message.fields
        now_ms = time.time_ns() // 1_000_000
        if message.info1 & codes.INFO1_BATCH and Field.BATCH in fields:
            self._stream = batch(cluster, node, message, now_ms)
        elif Field.DIGEST in fields:
            outcome = execute(cluster, node, "client", message, fields[Field.DIGEST], fields.get(Field.FILTER), now_ms)
            self._transport.write(reply_frame(outcome.result_code, outcome.generation, 0, outcome.num_ops, outcome.ops))
        else:
            self._stream = query(cluster, node, message, now_ms)
