import pytest

from geotrain.wire import frames
from geotrain.wire.batches import decode_batch, encode_batch
from geotrain.wire.codes import Field
from geotrain.wire.frames import encode_frame
from geotrain.wire.info import decode_reply, decode_request, encode_reply, encode_request
from geotrain.wire.messages import decode_message, decode_messages, encode_message
from tests.vectors import Exchange, exchanges

ALL = [pytest.param(exchange, id=exchange.name) for exchange in exchanges()]


@pytest.mark.parametrize("exchange", ALL)
def test_every_reply_of_a_real_server_decodes_and_encodes_to_the_same_bytes(exchange: Exchange) -> None:
    assert exchange.replies
    for kind, body in exchange.replies:
        if kind == frames.INFO:
            answers = decode_reply(body)
            assert exchange.truncated or encode_reply(answers) == body
        else:
            messages = list(decode_messages(body))
            assert b"".join(map(encode_message, messages)) == body
            for message in messages:
                assert len(message.bins()) == len({op.name for op in message.ops})


@pytest.mark.parametrize("exchange", ALL)
def test_every_request_of_the_official_client_decodes_and_encodes_to_the_same_bytes(exchange: Exchange) -> None:
    kind, body = frames.FrameReader().feed(exchange.request)[0]
    if kind == frames.INFO:
        assert encode_request(decode_request(body)) == body
    else:
        message, end = decode_message(body)
        assert end == len(body)
        assert encode_frame(kind, encode_message(message)) == exchange.request


@pytest.mark.parametrize(
    "case", ["batch-write", "batch-read-all", "batch-read-bins", "batch-read-filter", "batch-remove"]
)
def test_the_rows_of_a_batch_survive_a_round_trip(case: str) -> None:
    (exchange,) = (exchange for exchange in exchanges() if exchange.case == case)
    rows = list(decode_batch(decode_message(exchange.request, frames.HEADER_BYTES)[0].fields[Field.BATCH]))
    assert [row.position for row in rows] == list(range(len(rows)))
    assert list(decode_batch(encode_batch(rows))) == rows
