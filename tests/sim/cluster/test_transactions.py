"""Transactions whose clients break the rules, come too late, or vanish. What clients do right is a contract test."""

import msgpack
import pytest

from geotrain.wire import codes
from geotrain.wire.codes import EPOCH_S, Field, OpCode, Particle, ResultCode
from geotrain.wire.messages import Message, Operation, encode_op, operation
from sim.cluster.execution.commands import end_overdue_transactions
from sim.cluster.execution.requests import Outcome
from sim.cluster.execution.transactions import MAX_WRITES, MONITORS
from tests.sim.cluster.in_process import START_MS, Commands

ID = 77
MONITOR = b"m" * 20
DEADLINE = START_MS // 1000 - EPOCH_S + 10


def track(digests: list[bytes]) -> Operation:
    """A monitor's list of what is written, extended."""
    data = msgpack.packb([2, [b"\x04" + digest for digest in digests], 1, 13], use_bin_type=False)
    return Operation(OpCode.CDT_MODIFY, Particle.BLOB, b"keyds", encode_op(OpCode.CDT_MODIFY, b"keyds", 4, data))


def monitor(commands: Commands, *ops: Operation, ttl: int = 10) -> Outcome:
    """Write to the monitor."""
    request = Message(info2=codes.INFO2_WRITE, record_ttl=ttl, fields={Field.SET: MONITORS}, ops=list(ops))
    return commands.do(request, MONITOR)


def write(commands: Commands, value: int, *, transaction: int = ID, deadline: int = DEADLINE) -> Outcome:
    """Write a record as part of a transaction."""
    fields = {
        Field.TRANSACTION_ID: transaction.to_bytes(8, "little"),
        Field.TRANSACTION_DEADLINE: deadline.to_bytes(4, "little"),
    }
    return commands.do(Message(info2=codes.INFO2_WRITE, fields=fields, ops=[operation(OpCode.WRITE, "v", value)]))


def roll(commands: Commands, direction: int) -> Outcome:
    fields = {Field.TRANSACTION_ID: ID.to_bytes(8, "little")}
    return commands.do(Message(info2=codes.INFO2_WRITE | codes.INFO2_DURABLE_DELETE, info4=direction, fields=fields))


BEGIN = operation(OpCode.WRITE, "id", ID)
FORWARD = operation(OpCode.WRITE, "fwd", True)


@pytest.fixture
def begun() -> Commands:
    """A cluster with one transaction that has written one record."""
    commands = Commands()
    monitor(commands, BEGIN, track([bytes(20)]))
    write(commands, 1)
    return commands


def test_a_monitor_answers_with_the_deadline_of_its_transaction_and_keeps_it() -> None:
    commands = Commands()
    for ttl in (10, 0, 99):
        outcome = monitor(commands, *([BEGIN] if ttl == 10 else []), track([bytes([ttl]) * 20]), ttl=ttl)
        assert (outcome.result_code, outcome.fields[5:]) == (ResultCode.OK, DEADLINE.to_bytes(4, "little"))
        commands.pass_s(2)


def test_a_monitor_is_made_once_and_used_only_while_its_transaction_is_open(begun: Commands) -> None:
    assert monitor(begun, BEGIN).result_code == ResultCode.MONITOR_EXISTS
    assert monitor(begun, FORWARD).result_code == ResultCode.OK
    assert monitor(begun, track([b"x" * 20])).result_code == ResultCode.TRANSACTION_COMMITTED
    begun.pass_s(12)
    assert monitor(begun, FORWARD).result_code == ResultCode.TRANSACTION_ABORTED
    assert monitor(begun, track([b"x" * 20])).result_code == ResultCode.TRANSACTION_EXPIRED


def test_a_transaction_writes_no_more_than_4096_records(begun: Commands) -> None:
    many = [n.to_bytes(20, "big") for n in range(MAX_WRITES + 1)]
    assert monitor(begun, track(many[:-1])).result_code == ResultCode.OK
    assert monitor(begun, track(many)).result_code == ResultCode.TOO_MANY_WRITES


def test_a_write_after_the_deadline_or_without_one_is_refused(begun: Commands) -> None:
    begun.pass_s(11)
    assert write(begun, 2).result_code == ResultCode.TRANSACTION_EXPIRED
    fields = {Field.TRANSACTION_ID: ID.to_bytes(8, "little")}
    request = Message(info2=codes.INFO2_WRITE, fields=fields, ops=[operation(OpCode.WRITE, "v", 1)])
    assert begun.do(request).result_code == ResultCode.PARAMETER


def test_rolling_twice_does_nothing_more(begun: Commands) -> None:
    for _ in range(2):
        assert roll(begun, codes.INFO4_ROLL_FORWARD).result_code == ResultCode.OK
    assert roll(begun, codes.INFO4_ROLL_BACK).result_code == ResultCode.OK
    assert (begun.get().result_code, begun.get().generation) == (ResultCode.OK, 1)


@pytest.mark.parametrize(("decided", "code"), [(True, ResultCode.OK), (False, ResultCode.NOT_FOUND)])
def test_what_a_vanished_client_has_decided_is_done_when_its_time_is_over(
    begun: Commands, decided: bool, code: ResultCode
) -> None:
    if decided:
        monitor(begun, FORWARD)
    end_overdue_transactions(begun.cluster, begun.cluster.nodes[0], begun.now_ms)
    assert begun.put({"v": 9}).result_code == ResultCode.BLOCKED
    begun.pass_s(11)
    end_overdue_transactions(begun.cluster, begun.cluster.nodes[0], begun.now_ms)
    assert begun.get().result_code == code
    assert begun.put({"v": 9}).result_code == ResultCode.OK


def test_reading_does_not_give_more_time_to_what_a_transaction_has_written() -> None:
    commands = Commands(nsup_period_s=10)
    commands.put({"v": 1}, ttl=100)
    write(commands, 2)
    commands.pass_s(90)
    commands.get(touch_percent=50)
    assert commands.get().generation == 1
    roll(commands, codes.INFO4_ROLL_BACK)
    assert commands.get().void_time == START_MS // 1000 - EPOCH_S + 100


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"edition": "community", "strong_consistency": False}, ResultCode.ENTERPRISE_ONLY),
        ({"strong_consistency": False}, ResultCode.UNSUPPORTED),
    ],
)
def test_only_strongly_consistent_namespaces_have_transactions(config: dict[str, object], code: ResultCode) -> None:
    commands = Commands(**config)
    assert write(commands, 1).result_code == code
    assert monitor(commands, BEGIN).result_code == code
    assert commands.get().result_code == ResultCode.NOT_FOUND
