"""A node that answers info requests as it is told, and queries with whatever bytes it is given."""

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from geotrain.wire.frames import INFO, FrameReader, encode_frame
from geotrain.wire.info import decode_request, encode_peers, encode_reply
from geotrain.wire.partitions import NUM_PARTITIONS, encode_replicas


class FakeNode:
    """Listens on a port of its own until it is left. `reply`: sent to each query, then the connection ends.

    queries: how many came. address: as host:port.
    """

    def __init__(self, name: str = "A1", reply: bytes = b"", **answers: str) -> None:
        self.queries = 0
        self._reply = reply
        everything = encode_replicas("geotrain", 1, [list(range(NUM_PARTITIONS))])
        self._answers = {
            "node": name,
            "partition-generation": "1",
            "peers-clear-std": encode_peers(1, 3000, []),
            "replicas": everything,
            "rack-ids": "geotrain:1",
            "sets/geotrain": "",
        } | {asked.replace("_", "-"): answer for asked, answer in answers.items()}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "FakeNode":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def answer(self, changes: Mapping[str, str]) -> None:
        """From now on some answers are others."""
        self._answers |= changes

    def answer_query(self, connection: socket.socket) -> None:
        connection.sendall(self._reply)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                reader, frames = FrameReader(), []
                while not frames and (data := connection.recv(1 << 16)):
                    frames = reader.feed(data)
                for kind, body in frames:
                    if kind == INFO:
                        asked = decode_request(body)
                        connection.sendall(encode_frame(INFO, encode_reply((n, self._answers[n]) for n in asked)))
                    else:
                        self.queries += 1
                        self.answer_query(connection)


class ScriptedNode(FakeNode):
    """Answers each query with the next of some replies, and the later ones with the last."""

    def __init__(self, name: str, *replies: bytes) -> None:
        super().__init__(name)
        self._replies = list(replies)

    def answer_query(self, connection: socket.socket) -> None:
        connection.sendall(self._replies.pop(0) if len(self._replies) > 1 else self._replies[0])


class PausingNode(FakeNode):
    """Sends its reply when the event says so."""

    def __init__(self, name: str, reply: bytes, pause: threading.Event) -> None:
        super().__init__(name, reply)
        self._pause = pause

    def answer_query(self, connection: socket.socket) -> None:
        self._pause.wait()
        with suppress(OSError):  # nobody waits for it
            super().answer_query(connection)


class TricklingNode(FakeNode):
    """Sends its reply byte by byte, so that it never falls silent and never comes to an end."""

    def answer_query(self, connection: socket.socket) -> None:
        with suppress(OSError):  # nobody waits for the rest
            for byte in self._reply:
                connection.sendall(bytes([byte]))
                time.sleep(0.01)
