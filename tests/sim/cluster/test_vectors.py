"""Replays what the official client sent to a real server, and compares the simulated answers with the real ones."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from geotrain.wire import frames
from geotrain.wire.codes import Field, OpCode, Particle, ResultCode
from geotrain.wire.frames import Frame, encode_frame
from geotrain.wire.info import decode_parameters, decode_reply
from geotrain.wire.messages import Message, decode_message, decode_messages, encode_message, operation
from geotrain.wire.particles import Opaque
from tests.conftest import simulated_cluster
from tests.sim.cluster.wire_client import WireClient
from tests.vectors import Exchange, exchanges

OUT_OF_SCOPE = {
    "operate-map-put-get": "map operations are not simulated yet",
    "operate-list-append": "list operations are not simulated yet",
    "info release": "a release's checksum and platform say nothing about a simulation",
    "info partition-info": "the inner state of partitions is not simulated yet",
    "info get-config:context=namespace;id=test": "configuration by info is not simulated yet",
    "info query-show": "queries are not tracked yet",
    "info sindex-list:": "secondary indexes are not simulated yet",
}
"""Cases whose replies are not compared, each with its reason. To be emptied."""

STAND_INS = {
    "operate-map-put-get": operation(OpCode.WRITE, "mm", Opaque(Particle.MAP, bytes.fromhex("82a2037801a2037902"))),
    "operate-list-append": operation(OpCode.WRITE, "ll", [7, 8, 9]),
}
"""Plain writes that leave the record as a case out of scope would."""

ASIDE = re.compile(r"\b(A1|asd-one|simulated|[0-9A-F]{11,16}|127\.0\.0\.1:\d+)\b")
"""Names, keys and addresses, which differ from cluster to cluster."""

VALUES_ASIDE = {"cluster_key", "cluster_principal", "uptime", "client_connections", "data_used_bytes"}
"""Statistics that tell of the one cluster, not of what was asked of it."""

GENERATIONS = re.compile(r"^(partition|peers|rebalance)-generation$")


MOMENT_OF_CAPTURE = bytes.fromhex("cf18ea5d6f6dd2eafe")
FAR_FUTURE = bytes.fromhex("cf7fffffffffffffff")
"""`query-filter-last-update` asks for what was written until then: the clock of the capture is put aside."""


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Frame]]]:
    """The simulated cluster's replies by case. The cases build on each other, so all are replayed in their order."""
    community = ["edition=community", "strong_consistency=false", "replication_factor=1", "namespace=test"]
    one_node = ["~nodes.jfk", "~nodes.lga", "nodes.ewr.rack=0"]
    run_dir = tmp_path_factory.mktemp("community")
    with (
        simulated_cluster(run_dir, *community, *one_node, sites=["ewr"]) as (address,),
        WireClient(address) as client,
    ):
        replies = {}
        for exchange in exchanges():
            if exchange.case in STAND_INS:
                client.ask(_stand_in(exchange))
            else:
                replies[exchange.name] = client.ask(exchange.request.replace(MOMENT_OF_CAPTURE, FAR_FUTURE))
        yield replies


IN_SCOPE = [pytest.param(exchange, id=exchange.name) for exchange in exchanges() if exchange.case not in OUT_OF_SCOPE]


@pytest.mark.parametrize("exchange", IN_SCOPE)
def test_the_simulated_cluster_answers_as_the_real_server_did(
    exchange: Exchange, replayed: dict[str, list[Frame]]
) -> None:
    replies = replayed[exchange.name]
    if exchange.request[1] == frames.INFO:
        assert _info(replies) == _info(exchange.replies, like=_info(replies))
    elif exchange.case == "query-max-records":
        everything = _rows(exchanges()[exchange.position - 7].replies)
        assert len(_rows(replies)) == len(_rows(exchange.replies)) == 6
        assert all(row in everything for row in _rows(replies))
    else:
        assert _rows(replies) == _rows(exchange.replies)


def test_nothing_is_listed_out_of_scope_that_no_vector_has() -> None:
    assert OUT_OF_SCOPE.keys() <= {exchange.case for exchange in exchanges()}


def _stand_in(exchange: Exchange) -> bytes:
    request, _ = decode_message(exchange.request, frames.HEADER_BYTES)
    plain = Message(info2=1, fields=request.fields, ops=[STAND_INS[exchange.case]])
    return encode_frame(frames.MESSAGE, encode_message(plain))


def _rows(replies: list[Frame]) -> list[tuple[Any, ...]]:
    """All that the messages say, whatever their order and that of their bins (which no client may rely on)."""
    rows = []
    for message in (message for _, body in replies for message in decode_messages(body)):
        is_answer = [op.code != OpCode.READ for op in message.ops]
        ops = [op.raw for op in message.ops]
        order = ops if any(is_answer) else sorted(ops)
        header = (message.info1, message.info2, message.info3, ResultCode(message.result_code), message.generation)
        rows.append((message.fields.get(Field.DIGEST, b""), message.transaction_ttl, header, message.fields, order))
    return sorted(rows, key=lambda row: row[:2])


def _info(replies: list[Frame], like: dict[str, Any] | None = None) -> dict[str, Any]:
    """Names and values of an info reply, with what differs from cluster to cluster put aside.

    Of long lists of `name=value` only the names in `like` are kept: a simulation has not all of them.
    """
    answers: dict[str, Any] = {}
    for name, value in decode_reply(replies[0].body):
        if GENERATIONS.match(name):
            answers[name] = value.isdecimal()
        elif name.startswith("peers-clear"):
            answers[name] = value.partition(",")[2]
        elif name in ("replicas", "namespaces"):
            answers[name] = value.split(";")[0]
        elif name.startswith(("sets/", "namespace/", "statistics")):
            values = decode_parameters(value.strip(";").replace(":", ";"))
            answers[name] = {n: values[n] for n in values.keys() - VALUES_ASIDE if like is None or n in like[name]}
        else:
            answers[name] = ASIDE.sub("~", value)
    return answers
