"""What a node tells of what it holds and has done, in the form of a real server."""

import pytest

from geotrain.wire import codes, frames
from geotrain.wire.codes import EPOCH_S, Field, ResultCode
from geotrain.wire.info import decode_parameters, decode_reply
from geotrain.wire.messages import Message
from sim.cluster.answers.info import answer
from sim.cluster.node import State
from tests.sim.cluster.in_process import DIGEST, START_MS, Commands
from tests.vectors import exchanges

CAPTURED = dict(
    pair
    for exchange in exchanges()
    if exchange.request[1] == frames.INFO and not exchange.truncated
    for pair in decode_reply(exchange.replies[0].body)
)


def ask(commands: Commands, request: str) -> str:
    return answer(commands.cluster, commands.cluster.nodes[0], request)


def namespace(commands: Commands) -> dict[str, str]:
    return decode_parameters(ask(commands, "namespace/test"))


@pytest.mark.parametrize("request_", ["namespace/test", "statistics", "get-config:context=namespace;id=test"])
@pytest.mark.parametrize("strong", [True, False])
def test_the_enterprise_edition_tells_of_all_that_a_real_server_tells(request_: str, strong: bool) -> None:
    told = decode_parameters(ask(Commands(strong_consistency=strong), request_))
    captured = decode_parameters(CAPTURED[request_])
    assert len(captured) > 80
    assert list(told) == list(captured)


def test_a_set_is_told_of_with_all_that_a_real_server_tells() -> None:
    commands = Commands()
    commands.put({"a": 1})
    told, captured = (
        text.removesuffix(";").split(":") for text in (ask(commands, "sets/test/s"), CAPTURED["sets/test"])
    )
    assert [part.partition("=")[0] for part in told] == [part.partition("=")[0] for part in captured]


def test_what_failed_is_counted_by_command_and_by_reason() -> None:
    commands = Commands(max_record_bytes=1000)
    commands.put({"a": 1})
    commands.put({"a": 1}, info2=codes.INFO2_GENERATION_EQUAL, generation=9)
    commands.put({"a": "x" * 2000})
    told = namespace(commands)
    assert (told["client_write_success"], told["client_write_error"]) == ("1", "2")
    assert (told["fail_generation"], told["fail_record_too_big"]) == ("1", "1")


def test_what_ends_a_transaction_is_counted_apart() -> None:
    commands = Commands()
    fields = {Field.TRANSACTION_ID: (7).to_bytes(8, "little")}
    refused = commands.do(Message(info2=codes.INFO2_WRITE, info4=codes.INFO4_ROLL_BACK, fields=fields))
    told = namespace(commands)
    outcome = "success" if refused.result_code == ResultCode.OK else "error"
    assert told[f"mrt_roll_back_{outcome}"] == "1"
    assert (told["client_write_success"], told["client_write_error"]) == ("0", "0")


def test_a_truncation_is_told_by_its_moment() -> None:
    commands = Commands()
    commands.put({"a": 1})
    before_ms = START_MS - 100_000_000_000
    commands.cluster.truncate(commands.cluster.nodes[0], b"s", before_ms)
    told = f":truncate_lut={before_ms - EPOCH_S * 1000}:"
    assert told in ask(commands, "sets/test/s")
    assert namespace(commands)["truncate_lut"] == "0"


def test_memory_is_counted_as_a_real_server_counts_it() -> None:
    commands = Commands()
    commands.put({"a": 1})
    commands.put({"a": 1}, digest=bytes(20))
    commands.remove(durable=True)
    told = namespace(commands)
    assert (told["objects"], told["tombstones"], told["index_used_bytes"]) == ("1", "1", "128")
    assert int(told["data_used_bytes"]) == len(commands.cluster.nodes[0].copy(b"s", 0)[bytes(20)].row)


def test_a_restarted_node_has_forgotten_what_it_had_done() -> None:
    commands = Commands()
    commands.put({"a": 1})
    node = commands.cluster.nodes[0]
    node.die(keeps_memory=True)
    node.state = State.UP
    commands.cluster.rebalance()
    told = namespace(commands)
    assert (told["client_write_success"], told["objects"]) == ("0", "1")
    assert commands.get(digest=DIGEST).result_code == ResultCode.OK


@pytest.mark.parametrize(("strong", "expected"), [(True, "3"), (False, "2")])
def test_fewer_nodes_than_copies_make_fewer_copies_of_eventual_records(strong: bool, expected: str) -> None:
    commands = Commands(strong_consistency=strong, replication_factor=3)
    commands.cluster.nodes[2].die(keeps_memory=True)
    commands.cluster.rebalance()
    assert namespace(commands)["effective_replication_factor"] == expected
