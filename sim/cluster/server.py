"""A client's connection to a node: requests in, replies out. Knows no command's meaning."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

from geotrain.wire import codes, frames
from geotrain.wire import info as info_text
from geotrain.wire.codes import Field, ProtocolError, ResultCode
from geotrain.wire.frames import Frame, FrameReader
from geotrain.wire.messages import Message, decode_message, reply_frame
from sim.cluster.answers.info import WITHOUT_NAMES, answer
from sim.cluster.cluster import Cluster
from sim.cluster.execution import background
from sim.cluster.execution.batch import batch
from sim.cluster.execution.commands import execute
from sim.cluster.execution.query import query
from sim.cluster.execution.streams import Chunk, compressed, compressed_chunk, last_chunk
from sim.cluster.node import Node, State
from sim.cluster.sites.distances import wait_s
from sim.cluster.sites.misbehaviour import Kind, Misbehaviour

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 15_000  # of a node: the default proto-fd-max of a real server
MAX_UNFINISHED_BYTES = 1024 * 1024 * 1024  # of requests to a node that have come in part
REQUEST_DEADLINE_S = 60.0  # for the rest of one that has
WRITE_BUFFER_BYTES = 1024 * 1024  # beyond it a stream waits for its reader


class Connection(asyncio.Protocol):
    """One client connection: requests in, replies out, strictly in order."""

    def __init__(self, cluster: Cluster, node: Node, site: str = "") -> None:
        """site: where the client stands; nowhere, it is told the addresses without delay."""
        self._cluster = cluster
        self._node = node
        self._site = site
        self._reader = FrameReader()
        self._requests: deque[Frame] = deque()
        self._stream: Iterator[Chunk] | None = None
        self._next_step: asyncio.TimerHandle | None = None
        self._num_unfinished_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        """When the request that has come in part must be whole."""
        self._paused = False
        self._is_known = not cluster.security.is_enabled
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start with the transport's write buffer bounded, or hang up where there are too many clients."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._node.connections) >= MAX_CONNECTIONS:
            self.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._node.connections[self] = None
        self._node.statistics["client_connections_opened"] += 1

    def connection_lost(self, error: Exception | None) -> None:
        """Drop what was still to be sent."""
        self._node.connections.pop(self, None)
        self._requests.clear()
        self._stream = None
        self._node.num_unfinished_bytes -= self._num_unfinished_bytes
        for timer in (self._next_step, self._deadline):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take in requests. While some wait, no more are read."""
        try:
            requests = self._reader.feed(data)
        except ProtocolError:
            self._transport.close()
            return
        self._requests += requests
        if self._reader.num_pending_bytes or self._num_unfinished_bytes:
            self._bound_unfinished(is_another=bool(requests))
        self._work()
        if self._requests:
            self._transport.pause_reading()

    def _bound_unfinished(self, *, is_another: bool) -> None:
        """Bound what requests that have come in part take: each of them time, and all together memory."""
        num_bytes = self._reader.num_pending_bytes
        self._node.num_unfinished_bytes += num_bytes - self._num_unfinished_bytes
        self._num_unfinished_bytes = num_bytes
        if self._deadline is not None and (is_another or not num_bytes):
            self._deadline.cancel()
            self._deadline = None
        if num_bytes and self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(REQUEST_DEADLINE_S, self._give_up)
        if self._node.num_unfinished_bytes > MAX_UNFINISHED_BYTES:
            self.abort()

    def _give_up(self) -> None:
        """End a connection that waits for nothing but the rest of a request."""
        if self.is_busy or self._node.state is State.PAUSED:
            self._deadline = asyncio.get_running_loop().call_later(REQUEST_DEADLINE_S, self._give_up)
        else:
            self.abort()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._paused = False
        self._work()

    @property
    def is_busy(self) -> bool:
        """Whether there is a request to be answered, or an answer to be ended."""
        return bool(self._requests) or self._stream is not None

    def abort(self) -> None:
        """Break the connection."""
        self._transport.abort()

    def go_on(self) -> None:
        """Answer what has waited while the node was paused."""
        self._work()

    def _step(self) -> None:
        self._next_step = None
        self._work()

    def _work(self) -> None:
        """Do what can be done now. A client whose answer breaks off is to notice that, and not to wait for its end."""
        try:
            self._answer_requests()
        except Exception:
            log.exception("node %s: a request broke off, and with it the connection", self._node.name)
            self.abort()

    def _answer_requests(self) -> None:
        """Answer requests until one takes several steps; between its steps the other connections have their turn."""
        while not self._paused and self._next_step is None and self._node.state is State.UP:
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
            if kind == frames.ADMIN:
                reply, self._is_known = self._cluster.security.answer(body, is_known=self._is_known)
                self._transport.write(frames.encode_frame(frames.ADMIN, reply))
            elif not self._is_known:
                self._refuse(kind, body)
            elif kind == frames.MESSAGE:
                self._answer_message(decode_message(body)[0])
            else:
                names = info_text.decode_request(body) or WITHOUT_NAMES
                self._node.statistics["info_complete"] += 1
                self._inform(names)
        except ProtocolError:
            self._transport.write(last_chunk(ResultCode.PARAMETER).frames)

    def _inform(self, names: Sequence[str]) -> None:
        """Answer info requests; where one truncates, once the records are gone."""
        num_drops = self._cluster.num_drops
        answers = [(name, answer(self._cluster, self._node, name, self._site)) for name in names]
        reply = frames.encode_frame(frames.INFO, info_text.encode_reply(answers))
        if self._cluster.num_drops > num_drops:
            self._stream = self._after_drops(reply)
        else:
            self._transport.write(reply)

    def _after_drops(self, reply: bytes) -> Iterator[Chunk]:
        for _ in self._cluster.drop_all():
            yield Chunk(b"")
        yield Chunk(reply)

    def _refuse(self, kind: int, body: bytes) -> None:
        """Answer one who has not logged in."""
        if kind == frames.INFO:
            refusal = f"ERROR:{int(ResultCode.NOT_AUTHENTICATED)}:not authenticated"
            answers = [(name, refusal) for name in info_text.decode_request(body)]
            self._transport.write(frames.encode_frame(frames.INFO, info_text.encode_reply(answers)))
        else:
            self._transport.write(last_chunk(ResultCode.NOT_AUTHENTICATED).frames)

    def _answer_message(self, message: Message) -> None:
        if self._node.misbehaviours:
            self._misbehave(self._node.misbehaviours.popleft(), message)
            return
        reply = self._reply(message)
        if message.info1 & codes.INFO1_COMPRESS_RESPONSE and self._cluster.is_enterprise:
            reply = compressed(reply) if isinstance(reply, bytes) else map(compressed_chunk, reply)
        if isinstance(reply, bytes):
            waits_s = self._wait_s(message, len(reply))
            if not waits_s:
                self._transport.write(reply)
                return
            reply = iter((Chunk(b"", waits_s), Chunk(reply)))
        self._stream = reply

    def _reply(self, message: Message) -> bytes | Iterator[Chunk]:
        """Carry out a command. Returns its answer, or the steps in which it is made."""
        cluster, node, fields = self._cluster, self._node, message.fields
        now_ms = node.now_ms()
        if message.info1 & codes.INFO1_BATCH and Field.BATCH in fields:
            return batch(cluster, node, message, now_ms, asyncio.get_running_loop().time())
        if Field.DIGEST in fields:
            outcome = execute(cluster, node, "client", message, fields[Field.DIGEST], fields.get(Field.FILTER), now_ms)
            code, generation, num_ops, ops, void_time, num_fields, reply_fields = outcome
            return reply_frame(code, generation, void_time, num_ops, ops, num_fields=num_fields, fields=reply_fields)
        if message.info2 & codes.INFO2_WRITE:
            code, steps = background.start(cluster, node, message)
            _run(steps)
            return last_chunk(code).frames
        return query(cluster, node, message, now_ms)

    def _wait_s(self, message: Message, num_reply_bytes: int) -> float:
        if not self._cluster.network.has_delays or Field.DIGEST not in message.fields:
            return 0.0
        now_s = asyncio.get_running_loop().time()
        return wait_s(self._cluster, self._node, message, message.fields[Field.DIGEST], now_s, num_reply_bytes)

    def _misbehave(self, wrong: Misbehaviour, message: Message) -> None:
        """Do a command as no server should."""
        self._cluster.events.add(f"misbehaved:node={self._node.name};{wrong}")
        if wrong.kind is Kind.CODE:
            is_one_record = Field.DIGEST in message.fields
            self._transport.write(reply_frame(wrong.code, info3=0 if is_one_record else codes.INFO3_LAST))
            return
        reply = self._reply(message)
        chunks = iter((Chunk(reply),)) if isinstance(reply, bytes) else reply
        if wrong.kind is Kind.LATE:
            self._stream = chain((Chunk(b"", wrong.delay_s),), chunks)
            return
        answer = b"".join(chunk.frames for chunk in chunks)
        if wrong.kind is Kind.CLOSE:
            self._transport.write(answer[: len(answer) // 2])
            self._transport.close()


def _run(steps: Iterator[float]) -> None:
    """Perform what no client waits for, a step at a time, so that all connections have their turn."""
    try:
        pause_s = next(steps, None)
    except Exception:
        log.exception("a background job broke off")
        return
    if pause_s is not None:
        asyncio.get_running_loop().call_later(pause_s, _run, steps)
