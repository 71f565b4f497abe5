import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire import frames
from geotrain.wire.codes import ProtocolError
from geotrain.wire.frames import Frame, FrameReader, compress, decompress, encode_frame

kinds = st.sampled_from([frames.INFO, frames.ADMIN, frames.MESSAGE])


@given(sent=st.lists(st.tuples(kinds, st.binary(max_size=200))), cuts=st.lists(st.integers(1, 64), min_size=1))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    sent: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(encode_frame(kind, body) for kind, body in sent)
    reader, received, step = FrameReader(), [], 0
    while stream:
        size = cuts[step % len(cuts)]
        received += reader.feed(stream[:size])
        stream, step = stream[size:], step + 1
    assert received == [Frame(kind, body) for kind, body in sent]


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("0303000000000016", id="version"),
        pytest.param("0209000000000016", id="type"),
        pytest.param("0203000008000001", id="size"),
        pytest.param("474554202f204854", id="http"),
    ],
)
def test_what_is_no_frame_is_refused_by_its_header(header: str) -> None:
    with pytest.raises(ProtocolError, match=header):
        FrameReader().feed(bytes.fromhex(header))


@given(body=st.binary(max_size=2000))
def test_a_compressed_frame_holds_the_frame_that_was_compressed(body: bytes) -> None:
    kind, compressed = FrameReader().feed(compress(encode_frame(frames.MESSAGE, body)))[0]
    assert kind == frames.COMPRESSED
    assert decompress(compressed) == Frame(frames.MESSAGE, body)


@given(body=st.binary(max_size=100))
def test_a_damaged_compressed_frame_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decompress(body)


def test_a_compressed_frame_that_inflates_beyond_its_announced_size_is_refused() -> None:
    body = compress(encode_frame(frames.MESSAGE, bytes(100_000)))[frames.HEADER_BYTES :]
    with pytest.raises(ProtocolError):
        decompress((64).to_bytes(8, "big") + body[8:])
