"""Reads several streams of rows at once, each in a thread, and hands their batches to one reader.

Knows neither why a stream is asked for, nor what follows from its failure.
"""

import math
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread

import pyarrow as pa

from geotrain.errors import DataError, ViewError
from geotrain.view.assignment import Answer, Request
from geotrain.view.columns import particle_word, type_word
from geotrain.view.layout import KEY, Layout
from geotrain.view.nodes import Nodes
from geotrain.view.refusals import refusal
from geotrain.view.retry import RETRYABLE
from geotrain.wire.codes import ProtocolError
from geotrain.wire.columnar import Batch, Decoder

MAX_STREAMS = 32  # at a time; each has a buffer and two batches


@dataclass(slots=True, eq=False)
class Outcome:
    """What came of a stream, but for its rows. mismatches: column -> number of values of another type."""

    answer: Answer = field(default_factory=lambda: Answer({}))
    num_bytes: int = 0
    mismatches: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class Streams:
    """The streams of one scan or look-up.

    doing: what they are for, in words. query: what is sent for a request, when so many run at a time. decoder: makes
    the one for its answer.
    silence_s: how long a node may send no whole message. limit_s: how long one may take for all of its answer.
    is_strict: values of another type are refused with DataError; else they are null, and counted.
    """

    nodes: Nodes
    doing: str
    set_name: str
    layout: Layout
    query: Callable[[Request, int], bytes]
    decoder: Callable[[Request], Decoder]
    silence_s: float
    is_strict: bool
    limit_s: float = math.inf
    _free: Semaphore = field(default_factory=lambda: Semaphore(0))
    _queue: "SimpleQueue[pa.RecordBatch | tuple[Request, Outcome | Exception]]" = field(default_factory=SimpleQueue)
    _lock: Lock = field(default_factory=Lock)
    _connections: list[socket.socket] = field(default_factory=list)
    _is_left: bool = False

    def read(self, requests: Sequence[Request], take: Callable[[Request, Outcome], None]) -> Iterator[pa.RecordBatch]:
        """Yields batches of all requests as they come, and gives `take` the outcome of each.

        At most one batch a stream waits to be taken; then the stream stands still. A reader that leaves ends them all.
        """
        num_running = min(len(requests), MAX_STREAMS)
        self._free = Semaphore(num_running)
        pending = deque((request, self.query(request, num_running)) for request in requests)
        # Daemons: a reader that was forgotten half read must not keep a program from ending.
        for _ in range(num_running):
            Thread(target=self._work, args=(pending,), name=self.doing, daemon=True).start()
        num_open = len(requests)
        try:
            while num_open:
                item = self._queue.get()
                if isinstance(item, tuple):
                    request, outcome = item
                    if isinstance(outcome, Exception):
                        raise outcome
                    take(request, outcome)
                    num_open -= 1
                else:
                    self._free.release()
                    yield item
        finally:
            if num_open:
                self._leave(num_running)

    def _work(self, pending: "deque[tuple[Request, bytes]]") -> None:
        while not self._is_left:
            try:
                request, query = pending.popleft()
            except IndexError:
                return
            try:
                self._queue.put((request, self._stream(request, query)))
            except Exception as error:  # noqa: BLE001 raised again by the one who reads
                self._queue.put((request, error))

    def _leave(self, num_streams: int) -> None:
        with self._lock:
            self._is_left = True
            for connection in self._connections:
                with suppress(OSError):  # most are closed already
                    connection.shutdown(socket.SHUT_RDWR)
        self._free.release(num_streams)

    def _stream(self, request: Request, query: bytes) -> Outcome:
        decoder = self.decoder(request)
        outcome = Outcome()
        try:
            failure = self._receive(request.node, query, decoder, outcome)
            self._deliver(decoder.flush(), decoder, outcome)
        except ProtocolError as error:
            raise ViewError(
                f"{self.doing}: node {request.node} sent what can't be read: {error}",
                "look at the log and the version of that node",
            ) from None
        outcome.answer = self._ended(decoder) if decoder.ended else Answer({}, failure)
        outcome.mismatches.update({name or KEY: count for name, (count, _) in decoder.mismatches.items()})
        return outcome

    def _receive(self, node: str, query: bytes, decoder: Decoder, outcome: Outcome) -> str | None:
        """Reads a stream to its end. Returns why that was not reached."""
        num_bytes_decoded = 0
        try:
            with self.nodes.open(node) as connection:
                with self._lock:
                    self._connections.append(connection)
                connection.sendall(query)
                connection.settimeout(self.silence_s)
                moved_s = begun_s = time.monotonic()
                while not decoder.ended and not self._is_left:
                    num_bytes = connection.recv_into(decoder.space())
                    if not num_bytes:
                        return "it hung up in the middle of its answer"
                    outcome.num_bytes += num_bytes
                    self._deliver(decoder.received(num_bytes), decoder, outcome)
                    if decoder.num_bytes > num_bytes_decoded:
                        num_bytes_decoded, moved_s = decoder.num_bytes, time.monotonic()
                    elif time.monotonic() > moved_s + self.silence_s:
                        return f"it sent no whole message within {self.silence_s:g} s"
                    if time.monotonic() > begun_s + self.limit_s:
                        return f"its answer did not end within {self.limit_s:g} s"
        except OSError as error:
            return str(error)
        return None

    def _ended(self, decoder: Decoder) -> Answer:
        if decoder.result_code == 0:
            return Answer(decoder.failures)
        if decoder.result_code in RETRYABLE:
            return Answer({}, failure=f"it answered with code {decoder.result_code}")
        raise refusal(self.doing, decoder.result_code)

    def _deliver(self, batches: Sequence[Batch], decoder: Decoder, outcome: Outcome) -> None:
        """Hands batches over, waiting until there is room."""
        if batches and self.is_strict:
            for name, (_, particle) in decoder.mismatches.items():
                raise self._mismatch(name or KEY, particle_word(particle))
        for batch in batches:
            rows, mismatches = self.layout.arrange(batch)
            outcome.mismatches.update(mismatches)
            if self.is_strict and (wrong := next(iter(+outcome.mismatches), None)):
                raise self._mismatch(wrong, "one with other elements")
            if not self._is_left:  # who leaves frees one more for each stream
                self._free.acquire()
                self._queue.put(rows)

    def _mismatch(self, column: str, held: str) -> DataError:
        declared = type_word(self.layout.schema.field(column).type)
        return DataError(
            f"set {self.set_name}: column {column} is declared {declared}, but a record holds {held}",
            f"correct the declared type, or write {column} as {declared} everywhere; a scan can read such values as "
            "null with on_mismatch=null",
        )
