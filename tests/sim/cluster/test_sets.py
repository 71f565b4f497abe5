"""What a set costs, and what makes one."""

import tracemalloc

import pytest

from geotrain.wire import codes
from geotrain.wire.codes import Field, OpCode, ResultCode
from geotrain.wire.messages import Message, operation
from sim.cluster import cluster as module
from tests.sim.cluster.in_process import Commands

MAX_BYTES_PER_SET = 5000


def put(commands: Commands, set_name: bytes, **header: int) -> ResultCode:
    write = Message(info2=codes.INFO2_WRITE, ops=[operation(OpCode.WRITE, "a", 1)], fields={Field.SET: set_name})
    for name, value in header.items():
        setattr(write, name, value)
    return ResultCode(commands.do(write).result_code)


def test_a_set_with_one_record_takes_a_few_kilobytes_on_all_nodes_together() -> None:
    commands = Commands()
    put(commands, b"first")
    tracemalloc.start()
    try:
        for number in range(100):
            put(commands, b"%d" % number)
        num_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert num_bytes / 100 < MAX_BYTES_PER_SET


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"info3": codes.INFO3_UPDATE_ONLY}, ResultCode.NOT_FOUND),
        ({"info2": codes.INFO2_WRITE | codes.INFO2_GENERATION_EQUAL, "generation": 7}, ResultCode.GENERATION),
        ({"record_ttl": 10}, ResultCode.FORBIDDEN),
        ({"info2": codes.INFO2_WRITE | codes.INFO2_DELETE | codes.INFO2_DURABLE_DELETE}, ResultCode.NOT_FOUND),
    ],
)
def test_a_refused_write_makes_no_set(header: dict[str, int], code: ResultCode) -> None:
    commands = Commands()
    assert put(commands, b"new", **header) == code
    assert not commands.cluster.sets
    assert not any(node.sets for node in commands.cluster.nodes)


def test_reading_counting_and_querying_a_set_that_there_is_not_make_none() -> None:
    commands = Commands()
    assert commands.get().result_code == ResultCode.NOT_FOUND
    assert commands.scan() == []
    assert commands.cluster.count(commands.cluster.nodes[0], b"s") == (0, 0, 0)
    assert not commands.cluster.sets
    assert not any(node.sets for node in commands.cluster.nodes)


def test_a_set_too_many_is_refused_and_those_that_there_are_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SETS", 2)
    commands = Commands()
    codes_of_sets = [put(commands, name) for name in (b"a", b"b", b"c", b"a")]
    assert codes_of_sets == [ResultCode.OK, ResultCode.OK, ResultCode.FORBIDDEN, ResultCode.OK]
    assert set(commands.cluster.sets) == {b"a", b"b"}
