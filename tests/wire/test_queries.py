import numpy as np
import pytest

from geotrain.wire import codes, frames
from geotrain.wire.codes import Field
from geotrain.wire.messages import decode_message
from geotrain.wire.queries import encode_query
from tests.vectors import Exchange, exchanges

QUERIES = [exchange for exchange in exchanges() if exchange.case.startswith("query-")]


@pytest.mark.parametrize("exchange", QUERIES, ids=lambda e: e.case)
def test_requests_are_the_bytes_that_the_official_client_sends(exchange: Exchange) -> None:
    sent, _ = decode_message(exchange.request, frames.HEADER_BYTES)
    names = [op.name.decode() for op in sent.ops]
    request = encode_query(
        sent.fields[Field.NAMESPACE].decode(),
        sent.fields[Field.SET].decode(),
        partitions=np.frombuffer(sent.fields[Field.PARTITION_IDS], "<u2"),
        bins=[] if sent.info1 & codes.INFO1_NO_BIN_DATA else names or None,
        task_id=int.from_bytes(sent.fields[Field.TASK_ID], "big"),
        socket_timeout_ms=30_000,
        max_records=int.from_bytes(sent.fields.get(Field.MAX_RECORDS, b""), "big"),
        expression=sent.fields.get(Field.FILTER, b""),
    )
    assert request == exchange.request


def test_partitions_begun_before_are_asked_for_by_their_last_digests() -> None:
    digests = np.arange(40, dtype=np.uint8).reshape(2, 20)
    request = encode_query("ns", "set", resume_after=digests, task_id=7, socket_timeout_ms=0, records_per_second=99)
    fields = decode_message(request, frames.HEADER_BYTES)[0].fields
    assert fields[Field.DIGESTS] == digests.tobytes()
    assert fields[Field.RECORDS_PER_SECOND] == (99).to_bytes(4, "big")
    assert Field.PARTITION_IDS not in fields
