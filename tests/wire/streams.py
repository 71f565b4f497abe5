"""Streams of replies to queries, made up: what the tests of the decoder of columns feed to it."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geotrain.wire import kernel
from geotrain.wire.codes import (
    DIGEST_BYTES,
    INFO3_LAST,
    INFO3_PARTITION_DONE,
    Field,
    OpCode,
    Particle,
    ProtocolError,
)
from geotrain.wire.columnar import Decoder, Progress
from geotrain.wire.frames import MESSAGE, encode_frame
from geotrain.wire.messages import Message, Operation, encode_message, encode_op
from geotrain.wire.particles import encode_value
from geotrain.wire.partitions import NUM_PARTITIONS
from geotrain.wire.words import SLACK_BYTES

PARTICLES = (
    Particle.INTEGER,
    Particle.FLOAT,
    Particle.BOOL,
    Particle.STRING,
    Particle.BLOB,
    Particle.LIST,
    Particle.MAP,
)
scalars = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans() | st.text() | st.binary()
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=3), scalars, max_size=3) | st.none()
# Of 1 to 15 bytes; many that begin with the same bytes.
names = st.text("ab", min_size=1, max_size=15) | st.sampled_from(["", "aaaaaaa", "aaaaaaaa", "aaaaaaab", "é"]).map(
    lambda end: "bin" + end
)
schemas = st.dictionaries(names, st.sampled_from(PARTICLES), max_size=5)
digests = st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES)


def bin_of(name: str, value: Any) -> Operation:
    """A bin as a server sends it."""
    particle, data = encode_value(value)
    return Operation(OpCode.READ, particle, name.encode(), encode_op(OpCode.READ, name.encode(), particle, data))


@st.composite
def records(draw: st.DrawFn, schema: Mapping[str, int]) -> Message:
    """A record, with some of the bins of the schema and others, of any type, in any order."""
    fields = {Field.NAMESPACE: b"test", Field.DIGEST: draw(digests)}
    if draw(st.booleans()):
        fields[Field.SET] = draw(st.binary(max_size=8))
    if draw(st.booleans()):
        particle, data = encode_value(draw(st.integers(0, 99) | st.text(max_size=9) | st.binary(max_size=9)))
        fields[Field.KEY] = bytes([particle]) + data
    held = draw(st.lists(st.sampled_from([*schema, "other", "bin"]), unique=True))
    return Message(
        generation=draw(st.integers(1, 0xFFFF)),
        record_ttl=draw(st.sampled_from([0, 500_000_000, 0xFFFFFFFF])),
        fields=fields,
        ops=[bin_of(name, draw(values)) for name in held],
    )


def encode_stream(frames: Sequence[Sequence[Message]], result_code: int = 0) -> bytes:
    """A whole stream: these frames, and the end."""
    end = Message(info3=INFO3_LAST, result_code=result_code)
    return b"".join(encode_frame(MESSAGE, b"".join(map(encode_message, frame))) for frame in [*frames, [end]])


def failed_partition(partition: int, result_code: int) -> Message:
    """What a server says of a partition that it does not deliver."""
    return Message(info3=INFO3_PARTITION_DONE, generation=partition, result_code=result_code)


def decode_damaged(data: st.DataObject, schema: Mapping[str, int]) -> None:
    """Damage a stream somewhere and decode it as what a query or a batch gave. Raises what is no ProtocolError."""
    frames = data.draw(st.lists(st.lists(records(schema), max_size=3), max_size=2))
    for position, message in enumerate(message for frame in frames for message in frame):
        message.transaction_ttl = position
    is_batch = data.draw(st.booleans())
    stream = bytearray(encode_stream(frames))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream) - 1))
        match data.draw(st.sampled_from(["set", "cut", "repeat", "remove"])):
            case "set":
                stream[at] = data.draw(st.sampled_from([0, 1, 2, 4, 8, 0x15, 0x7F, 0x80, 0xFF]))
            case "cut":
                del stream[at + 1 :]
            case "repeat":
                stream[at:at] = stream[at : at + data.draw(st.integers(1, 40))]
            case "remove":
                del stream[at + 1 : at + 1 + data.draw(st.integers(1, 40))]
    key = None if is_batch else Particle.STRING
    decoder = Decoder(schema, Progress(), key=key, digests=not is_batch, positions=is_batch, max_rows=3)
    if is_batch:
        decoder.begin_batch(np.arange(data.draw(st.integers(1, 6))))
    else:
        decoder.begin(range(NUM_PARTITIONS))
    with contextlib.suppress(ProtocolError):
        while stream and not decoder.ended:
            size = data.draw(st.sampled_from([1, 20, 100, 1000]))
            piece, stream = stream[:size], stream[size:]
            decoder.space()[: len(piece)] = piece
            decoder.received(len(piece))
        decoder.flush()


def main() -> None:
    """Decode damaged streams in a kernel that is interpreted, with nothing behind what was received."""
    decode = kernel.decode

    def fenced(data: Any, end: int, *rest: Any) -> int:
        assert 0 <= end <= len(data) - SLACK_BYTES
        return int(decode(data[: end + SLACK_BYTES], end, *rest))

    kernel.decode = fenced

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), schema=schemas)
    def fuzz(data: st.DataObject, schema: Mapping[str, int]) -> None:
        decode_damaged(data, schema)

    fuzz()


if __name__ == "__main__":
    main()
