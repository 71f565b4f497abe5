"""The smallest client: frames out, frames in, over one socket. For what the official client would not send."""

import socket
import struct
from types import TracebackType

from geotrain.wire import frames
from geotrain.wire.codes import Field
from geotrain.wire.frames import Frame, FrameReader, encode_frame
from geotrain.wire.info import decode_reply, encode_request
from geotrain.wire.messages import Message, decode_messages, encode_message
from geotrain.wire.partitions import NUM_PARTITIONS

ALL_PARTITIONS = struct.pack(f"<{NUM_PARTITIONS}H", *range(NUM_PARTITIONS))


class WireClient:
    """One connection to one node."""

    def __init__(self, address: str, timeout_s: float = 20.0) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._reader = FrameReader()

    def __enter__(self) -> "WireClient":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def ask(self, frame: bytes) -> list[Frame]:
        """Send a request and return all frames of its reply. Raises EOFError where the server hangs up."""
        self.socket.sendall(frame)
        kind, body = frames.FrameReader().feed(frame)[0]
        is_stream = kind == frames.MESSAGE and Field.DIGEST not in next(decode_messages(body)).fields
        replies: list[Frame] = []
        while not replies or (is_stream and not any(m.is_last for m in decode_messages(replies[-1].body))):
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError
            replies += self._reader.feed(data)
        return replies

    def messages(self, request: Message) -> list[Message]:
        """Send a message and return the messages that answer it."""
        replies = self.ask(encode_frame(frames.MESSAGE, encode_message(request)))
        return [message for _, body in replies for message in decode_messages(body)]

    def info(self, name: str) -> str:
        """The value of one info name."""
        ((_, body),) = self.ask(encode_frame(frames.INFO, encode_request([name])))
        ((_, value),) = decode_reply(body)
        return value
