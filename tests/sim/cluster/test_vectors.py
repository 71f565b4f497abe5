"""Replays what the official client sent to a real server, and compares the simulated answers with the real ones."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from geotrain.wire import frames
from geotrain.wire.codes import Field, OpCode, ResultCode
from geotrain.wire.frames import Frame
from geotrain.wire.info import decode_parameters, decode_reply
from geotrain.wire.messages import decode_messages
from geotrain.wire.partitions import NUM_PARTITIONS
from tests.conftest import simulated_cluster
from tests.sim.cluster.wire_client import WireClient
from tests.vectors import Exchange, exchanges

OUT_OF_SCOPE: dict[str, str] = {}
"""Cases whose replies are not compared, each with its reason. To be emptied."""

ASIDE = re.compile(r"\b(A1|asd-one|simulated|[0-9A-F]{11,16}|127\.0\.0\.1:\d+)\b")
"""Names, keys and addresses, which differ from cluster to cluster."""

VALUES_ASIDE = re.compile(
    r"(system|host|process|threads|heap)_|storage-engine\.stripe\[\d\]\.|cluster_(key|principal|generation)|paxos_principal"
    r"|client_connections|info_complete|deprecated_requests|uptime|time_since_rebalance|current_time"
    r"|data_used_bytes|batch_index_(unused|created)_buffers|failed_best_practices"
)
"""What of a node differs by its machine, by its age, or by how it stores records; the names are compared."""

JOB_ASIDE = {"trid", "run-time", "time-since-done", "from", "net-io-bytes", "recs-filtered-meta", "recs-filtered-bins"}
"""What is told of a query that differs from run to run."""

RELEASE_ASIDE = {"os", "arch", "sha"}
"""What of a release depends on where it was built."""

NUM_LINES = 389
"""How many lines of `partition-info` the capture has, the one with the names among them; the next is cut."""

VERSION = re.compile(r"[0-9a-f]{12}(?=\.)|(?<=:)(?=[0-9]*[A-F])[0-9A-F]{2,16}(?=:)")
"""Ids of clusters and of nodes in `partition-info`."""

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
            replies[exchange.name] = client.ask(exchange.request.replace(MOMENT_OF_CAPTURE, FAR_FUTURE))
        yield replies


IN_SCOPE = [pytest.param(exchange, id=exchange.name) for exchange in exchanges() if exchange.case not in OUT_OF_SCOPE]


@pytest.mark.parametrize("exchange", IN_SCOPE)
def test_the_simulated_cluster_answers_as_the_real_server_did(
    exchange: Exchange, replayed: dict[str, list[Frame]]
) -> None:
    replies = replayed[exchange.name]
    if exchange.request[1] == frames.INFO:
        assert _info(replies) == _info(exchange.replies)
    elif exchange.case == "query-max-records":
        everything = _rows(exchanges()[exchange.position - 7].replies)
        assert len(_rows(replies)) == len(_rows(exchange.replies)) == 6
        assert all(row in everything for row in _rows(replies))
    else:
        assert _rows(replies) == _rows(exchange.replies)


def test_all_partitions_are_told_of_in_the_form_of_the_captured_ones(replayed: dict[str, list[Frame]]) -> None:
    (capture,) = (exchange.replies[0] for exchange in exchanges() if exchange.case == "info partition-info")
    (_, ours), (_, real) = (decode_reply(reply.body)[0] for reply in (replayed["info partition-info"][0], capture))
    names, *rows = (line.split(":") for line in _partitions(ours))
    _, *captured, _ = (line.split(":") for line in _partitions(real))
    differing = names.index("partition"), names.index("records")

    def form(row: list[str]) -> tuple[str, ...]:
        return tuple("" if column in differing else cell for column, cell in enumerate(row))

    assert {form(row) for row in rows} == {form(row) for row in captured}
    assert [int(row[differing[0]]) for row in rows] == list(range(NUM_PARTITIONS))
    assert sum(int(row[differing[1]]) for row in rows) == 13


def test_nothing_is_listed_out_of_scope_that_no_vector_has() -> None:
    assert OUT_OF_SCOPE.keys() <= {exchange.case for exchange in exchanges()}


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


def _info(replies: list[Frame]) -> dict[str, Any]:
    """Names and values of an info reply, with what differs from cluster to cluster put aside."""
    answers: dict[str, Any] = {}
    for name, value in decode_reply(replies[0].body):
        if GENERATIONS.match(name):
            answers[name] = value.isdecimal()
        elif name.startswith("peers-clear"):
            answers[name] = value.partition(",")[2]
        elif name in ("replicas", "namespaces"):
            answers[name] = value.split(";")[0]
        elif name.startswith(("sets/", "namespace/", "statistics", "get-config")):
            pairs = value.strip(";").replace(":", ";") if name.startswith("sets/") else value
            values = decode_parameters(pairs)
            answers[name] = [(n, VALUES_ASIDE.match(n) is not None or v) for n, v in values.items()]
        elif name == "release":
            answers[name] = {n: n in RELEASE_ASIDE or v for n, v in decode_parameters(value).items()}
        elif name == "partition-info":
            answers[name] = _partitions(value)[:NUM_LINES]
        elif name == "query-show":
            answers[name] = [_job(decode_parameters(job.replace(":", ";"))) for job in value.split(";")]
        else:
            answers[name] = ASIDE.sub("~", value)
    return answers


def _partitions(value: str) -> list[str]:
    return [VERSION.sub("~", line) for line in value.rstrip("\0").split(";")]


def _job(values: dict[str, str]) -> dict[str, Any]:
    """A query, without what is of that one run: its id, its times, where it came from, how many bytes it took.

    A real server counts apart what a filter could tell by a record's metadata alone.
    """
    filtered = int(values["recs-filtered-meta"]) + int(values["recs-filtered-bins"])
    kept = {name: value for name, value in values.items() if name not in JOB_ASIDE}
    return kept | {"recs-filtered": filtered}
