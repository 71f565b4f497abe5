"""Times to live, expiry, and durable deletes."""

import time
from pathlib import Path

import aerospike
import msgpack
import pytest

from geotrain.wire import codes
from geotrain.wire.codes import EPOCH_S, TTL_DONT_UPDATE, TTL_NEVER, Field, OpCode, ResultCode
from geotrain.wire.messages import Message, operation
from tests.conftest import simulated_cluster
from tests.sim.cluster.in_process import START_MS, Commands
from tests.sim.cluster.wire_client import WireClient

START = START_MS // 1000 - EPOCH_S
DURABLE = codes.INFO2_DURABLE_DELETE


@pytest.fixture
def mortal() -> Commands:
    """A cluster that expires records."""
    return Commands(strong_consistency=False, nsup_period_s=10)


@pytest.fixture
def strong() -> Commands:
    return Commands()


def test_a_record_lives_as_long_as_its_writer_says(mortal: Commands) -> None:
    assert mortal.put({"a": 1}, ttl=60).void_time == START + 60
    mortal.pass_s(60)
    assert mortal.get().void_time == START + 60
    assert mortal.scan()[0].record_ttl == START + 60
    mortal.pass_s(1)
    assert mortal.get().result_code == ResultCode.NOT_FOUND
    assert mortal.scan() == mortal.scan(info1=codes.INFO1_READ | codes.INFO1_NO_BIN_DATA) == []


def test_an_expired_record_counts_as_absent_for_writers_and_its_generations_begin_anew(mortal: Commands) -> None:
    for _ in range(3):
        mortal.put({"a": 1, "b": 2}, ttl=60)
    mortal.pass_s(61)
    assert mortal.put({"a": 1}, info3=codes.INFO3_UPDATE_ONLY).result_code == ResultCode.NOT_FOUND
    assert mortal.remove().result_code == ResultCode.NOT_FOUND
    written = mortal.put({"a": 3}, info2=codes.INFO2_CREATE_ONLY)
    assert (written.result_code, written.generation, written.void_time) == (ResultCode.OK, 1, 0)
    assert mortal.get().num_ops == 1


def test_expired_records_are_removed_from_every_node(mortal: Commands) -> None:
    mortal.put({"a": 1}, ttl=60)
    mortal.put({"a": 1}, ttl=TTL_NEVER, digest=bytes(20))
    mortal.pass_s(61)
    mortal.cluster.remove_expired(mortal.now_ms)
    mortal.drop_all()
    assert [mortal.cluster.count(node, b"s").num_records for node in mortal.cluster.nodes] == [1, 1, 1]


@pytest.mark.parametrize(("ttl", "void_time"), [(0, 0), (TTL_NEVER, 0), (TTL_DONT_UPDATE, START + 60), (5, START + 15)])
def test_a_later_write_sets_the_time_to_live_anew_or_leaves_it(mortal: Commands, ttl: int, void_time: int) -> None:
    mortal.put({"a": 1}, ttl=60)
    mortal.pass_s(10)
    assert mortal.put({"a": 2}, ttl=ttl).void_time == void_time
    assert mortal.get().void_time == void_time


def test_a_namespace_may_have_a_time_to_live_of_its_own() -> None:
    commands = Commands(strong_consistency=False, nsup_period_s=10, default_ttl_s=100)
    assert commands.put({"a": 1}).void_time == START + 100
    assert commands.put({"a": 1}, ttl=TTL_NEVER).void_time == 0
    assert commands.put({"a": 1}, ttl=TTL_DONT_UPDATE, digest=bytes(20)).void_time == START + 100


def test_touch_gives_a_record_more_time(mortal: Commands) -> None:
    mortal.put({"a": 1}, ttl=60)
    mortal.pass_s(50)
    touched = mortal.do(Message(info2=codes.INFO2_WRITE, record_ttl=60, ops=[operation(OpCode.TOUCH)]))
    assert (touched.generation, touched.void_time) == (2, START + 110)


def test_without_expiry_a_time_to_live_is_forbidden_and_one_of_eleven_years_never_valid(mortal: Commands) -> None:
    immortal = Commands(strong_consistency=False)
    assert immortal.put({"a": 1}, ttl=60).result_code == ResultCode.FORBIDDEN
    assert immortal.put({"a": 1}, ttl=TTL_NEVER).result_code == ResultCode.OK
    assert mortal.put({"a": 1}, ttl=11 * 365 * 24 * 3600).result_code == ResultCode.PARAMETER
    assert mortal.get().result_code == ResultCode.NOT_FOUND


@pytest.mark.parametrize(("percent", "void_time"), [(50, START + 160), (39, START + 100), (TTL_NEVER, START + 100)])
def test_a_read_in_the_last_part_of_a_life_begins_it_anew(mortal: Commands, percent: int, void_time: int) -> None:
    mortal.put({"a": 1}, ttl=100)
    mortal.pass_s(60)
    assert mortal.get(touch_percent=percent).void_time == START + 100
    after = mortal.get()
    assert (after.void_time, after.generation) == (void_time, 1)


def test_the_part_of_a_life_that_reads_renew_can_be_configured_and_never_exceeds_the_whole(mortal: Commands) -> None:
    commands = Commands(strong_consistency=False, nsup_period_s=10, default_read_touch_ttl_pct=80)
    for each in (commands, mortal):
        each.put({"a": 1}, ttl=100)
        each.pass_s(60)
        each.get(touch_percent=0)
    assert commands.get().void_time == START + 160
    assert mortal.get().void_time == START + 100
    assert mortal.get(touch_percent=101).result_code == ResultCode.PARAMETER


def test_a_durable_delete_leaves_a_tombstone_behind_which_generations_go_on(strong: Commands) -> None:
    strong.put({"a": 1})
    strong.put({"a": 2})
    assert strong.remove(durable=True).result_code == ResultCode.OK
    assert strong.get().result_code == ResultCode.NOT_FOUND
    assert strong.remove(durable=True).result_code == ResultCode.NOT_FOUND
    assert strong.scan() == strong.scan(info1=codes.INFO1_READ | codes.INFO1_NO_BIN_DATA) == []
    node = strong.cluster.nodes[0]
    assert strong.cluster.count(node, b"s")[:2] == (0, 1)
    assert strong.put({"a": 3}).generation == 4
    assert strong.cluster.count(node, b"s")[:2] == (1, 0)


def test_a_tombstone_counts_as_generation_0_for_compare_and_set(strong: Commands) -> None:
    strong.put({"a": 1})
    strong.remove(durable=True)
    assert strong.put({"a": 2}, info2=codes.INFO2_GENERATION_EQUAL, generation=2).result_code == ResultCode.GENERATION
    assert strong.put({"a": 2}, info2=codes.INFO2_CREATE_ONLY | codes.INFO2_GENERATION_EQUAL).generation == 3


def test_a_write_that_leaves_no_bins_is_a_delete_and_must_be_durable_too(strong: Commands) -> None:
    strong.put({"a": 1})
    assert strong.put({"a": None}).result_code == ResultCode.FORBIDDEN
    emptied = strong.put({"a": None}, info2=DURABLE)
    assert (emptied.result_code, emptied.generation) == (ResultCode.OK, 0)
    assert strong.cluster.count(strong.cluster.nodes[0], b"s").num_tombstones == 1


def test_a_delete_that_is_not_durable_leaves_nothing(mortal: Commands) -> None:
    mortal.put({"a": 1})
    mortal.put({"a": 2})
    mortal.remove()
    assert mortal.put({"a": 3}).generation == 1


@pytest.mark.parametrize(
    ("ttl", "code", "expected"), [(60, 69, 50), (60, 68, (START_MS // 1000 + 60) * 10**9), (0, 69, -1)]
)
def test_filters_see_when_a_record_expires(mortal: Commands, ttl: int, code: int, expected: int) -> None:
    mortal.put({"a": 1}, ttl=ttl)
    mortal.pass_s(10)
    filter_ = msgpack.packb([1, [code], expected])
    assert mortal.do(Message(info1=codes.INFO1_READ, fields={Field.FILTER: filter_})).result_code == ResultCode.OK


def test_a_running_cluster_removes_expired_records_by_itself(tmp_path: Path) -> None:
    with simulated_cluster(tmp_path, "nsup_period_s=1") as addresses, WireClient(addresses[0]) as client:
        fields = {Field.NAMESPACE: b"geotrain", Field.SET: b"s", Field.DIGEST: bytes(20)}
        mortal = Message(info2=codes.INFO2_WRITE, record_ttl=1, fields=fields, ops=[operation(OpCode.WRITE, "a", 1)])
        assert client.messages(mortal)[0].result_code == ResultCode.OK
        while ":objects=0:" not in client.info("sets/geotrain/s"):
            time.sleep(0.1)


def test_the_official_client_reads_how_long_a_record_has_to_live(tmp_path: Path) -> None:
    with simulated_cluster(tmp_path, "nsup_period_s=1", "default_ttl_s=5000") as addresses:
        host, _, port = addresses[0].rpartition(":")
        client = aerospike.client({"hosts": [(host, int(port))]}).connect()
        key = ("geotrain", "s", "k")
        try:
            for ttl, expected in [(0, 5000), (100, 100), (aerospike.TTL_DONT_UPDATE, 100), (-1, 0xFFFFFFFF)]:
                client.put(key, {"a": 1}, policy={"ttl": ttl})
                assert expected - 5 <= client.get(key)[1]["ttl"] <= expected
                assert expected - 5 <= client.query("geotrain", "s").results()[0][1]["ttl"] <= expected
        finally:
            client.close()
