"""Answers to info requests about records, sets, partitions and indexes that no vector has."""

from typing import Any, Never

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.wire import codes
from geotrain.wire.batches import BatchRow
from geotrain.wire.codes import Field, OpCode, Particle
from geotrain.wire.info import decode_parameters
from geotrain.wire.messages import Message, operation
from sim.cluster.answers.info import answer
from sim.cluster.execution.commands import execute
from sim.cluster.execution.indexes import Definition, Entries
from sim.cluster.execution.requests import Outcome
from sim.cluster.records import Record
from sim.cluster.sites.subclusters import RecordSet
from tests.sim.cluster.in_process import DIGEST, Commands


@pytest.fixture(scope="module")
def commands() -> Commands:
    return Commands(nsup_period_s=7, replication_factor=2)


def ask(commands: Commands, request: str, node: int = 0) -> str:
    return answer(commands.cluster, commands.cluster.nodes[node], request)


def test_every_partition_has_one_master_and_its_copies(commands: Commands) -> None:
    header, *_ = ask(commands, "partition-info").split(";")
    names = header.split(":")
    by_pid: dict[str, list[str]] = {}
    for node in range(3):
        for line in ask(commands, "partition-info", node).split(";")[1:]:
            values = dict(zip(names, line.split(":"), strict=True))
            by_pid.setdefault(values["partition"], []).append(values["state"] + values["replica"])
    assert len(by_pid) == 4096
    assert all(sorted(held) == ["A-", "S0", "S1"] for held in by_pid.values())


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("ns=test;indexname=i;bin=a;type=numeric", "ok"),
        ("ns=test;set=s;indexname=i2;indexdata=a,STRING;indextype=mapkeys", "ok"),
        ("ns=test;indexname=i;bin=b;type=numeric", "ERROR:200:'indexname' already exists with different definition"),
        ("ns=test;bin=a;type=numeric", "ERROR:4:missing 'indexname'"),
        ("ns=test;indexname=j;bin=a", "ERROR:4:missing 'type'"),
        ("ns=test;indexname=j;bin=a;type=colour", "ERROR:4:bad 'type'"),
        ("ns=test;indexname=j;bin=a;type=string;indextype=tree", "ERROR:4:bad 'indextype'"),
        ("ns=test;indexname=j;bin=abcdefghijklmnop;type=string", "ERROR:4:bad bin name"),
        ("ns=test;indexname=j;bin=a;type=geo2dsphere", "ERROR:16:"),
        ("ns=test;indexname=j;bin=a;type=numeric;context=kRAA", "ERROR:4:'context' invalid"),
        ("ns=test;indexname=j;bin=a;type=numeric;context=kQ=", "ERROR:4:'context' invalid base64"),
        ("ns=test;indexname=j;bin=a;type=numeric;context=khAA", "ok"),
        ("ns=test;indexname=j;type=numeric", "ERROR:4:both 'bin' and 'exp' are missing"),
        ("ns=test;indexname=j;bin=a;type=numeric;exp=k1ECoWE=", "ERROR:4:both 'bin' and 'exp' are specified"),
        ("ns=test;indexname=k;type=numeric;exp=k1ECoWE=", "ok"),
        ("ns=test;indexname=j;type=string;exp=k1ECoWE=", "ERROR:4:bad 'exp' - expression type"),
        ("ns=test;indexname=j;type=string;exp=kcw=", "ERROR:4:bad 'exp'"),
        ("ns=test;indexname=l;set=s;indextype=set", "ok"),
        ("ns=test;indexname=j;indextype=set", "ERROR:4:missing 'set'"),
        ("ns=test;indexname=j;set=s;indextype=set;bin=a", "ERROR:4:bin parameter is not supported"),
        ("ns=nosuch;indexname=j;bin=a;type=numeric", "ERROR:4:bad namespace"),
    ],
)
def test_an_index_is_created_or_it_is_said_what_is_wrong(commands: Commands, parameters: str, expected: str) -> None:
    assert ask(commands, f"sindex-create:{parameters}").startswith(expected)


def test_indexes_are_listed_counted_renamed_and_deleted() -> None:
    commands = Commands()
    commands.put({"a": 1})
    ask(commands, "sindex-create:ns=test;set=s;indexname=old;bin=a;type=numeric")
    ask(commands, "sindex-create:ns=test;set=s;indexname=new;bin=a;type=integer")
    listed = "ns=test:indexname=new:set=s:bin=a:type=numeric:indextype=default:context=null:exp=null:state=RW"
    for request in ("sindex-list:ns=test", "sindex-list", "sindex", "sindex/test"):
        assert ask(commands, request) == listed
    state = decode_parameters(ask(commands, "sindex-stat:ns=test;indexname=new"))
    assert (state["entries"], state["load_pct"]) == ("1", "100")
    assert ask(commands, "sindex-exists:ns=test;indexname=new") == "true"
    assert "sindexes=1" in ask(commands, "sets/test/s")
    assert ask(commands, "sindex-delete:ns=test;indexname=new") == "ok"
    assert ask(commands, "sindex-stat:ns=test;indexname=new") == "ERROR:201:no index"
    assert ask(commands, "sindex-exists:ns=test;indexname=new") == "false"


class Unwalkable(dict[bytes, Record]):
    """A partition that must not be walked through."""

    def values(self) -> Never:
        raise AssertionError("walked through")

    items = __iter__ = keys = values


def test_what_a_node_holds_is_told_without_walking_through_its_records() -> None:
    commands = Commands()
    for number in range(20):
        commands.put({"a": 1}, digest=bytes([number]) * 20)
    commands.remove(durable=True, digest=bytes(20))
    cluster, node = commands.cluster, commands.cluster.nodes[0]
    num_bytes = cluster.count(node, b"s").num_bytes
    for each in cluster.nodes:
        each.sets[b"s"] = {pid: Unwalkable(copy) for pid, copy in each.sets[b"s"].items()}
    assert f":objects=19:tombstones=1:data_used_bytes={num_bytes}:" in ask(commands, "sets/test/s")
    told = decode_parameters(ask(commands, "namespace/test"))
    num_master = int(told["master_objects"])
    assert (told["objects"], told["tombstones"]) == ("19", "1")
    assert int(told["prole_objects"]) == 19 - num_master
    assert decode_parameters(ask(commands, "statistics"))["objects"] == "19"
    names, *lines = (line.split(":") for line in ask(commands, "partition-info").split(";"))
    told = {name: sum(int(line[names.index(name)]) for line in lines) for name in ("records", "tombstones")}
    assert told == {"records": 19, "tombstones": 1}


def test_the_entries_of_an_index_are_counted_once_and_then_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    for number in range(20):
        commands.put({"a": number % 5}, digest=bytes([number]) * 20)
    ask(commands, "sindex-create:ns=test;set=s;indexname=i;bin=a;type=numeric")
    request = "sindex-stat:ns=test;indexname=i"
    told = decode_parameters(ask(commands, request))
    assert (told["entries"], told["entries_per_bval"], told["entries_per_rec"]) == ("20", "4", "1")
    commands.remove(durable=True, digest=bytes(20))
    commands.put({"a": "no number"}, digest=b"\1" * 20)
    monkeypatch.setattr(Entries, "add", None)
    assert decode_parameters(ask(commands, request))["entries"] == "18"


def test_an_index_that_is_gone_is_counted_no_more() -> None:
    commands = Commands()
    commands.put({"a": 1})
    ask(commands, "sindex-create:ns=test;set=s;indexname=i;bin=a;type=numeric")
    ask(commands, "sindex-stat:ns=test;indexname=i")
    index = commands.cluster.indexes["i"]
    owner = commands.cluster.record_set(commands.cluster.nodes[0], b"s")
    counted = owner.entries(index)
    ask(commands, "sindex-delete:ns=test;indexname=i")
    commands.put({"a": 1}, digest=bytes(20))
    assert sum(counted.num_entries.values()) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["put", "big", "remove", "durable", "truncate", "cut"]))))
def test_the_counts_are_those_of_the_records_that_are_there(steps: list[tuple[int, str]]) -> None:
    commands = Commands(strong_consistency=False)
    cluster = commands.cluster
    index = Definition(b"s", b"a", Particle.STRING, 0)
    commands.put({"a": "first"}, digest=bytes([9]) * 20)
    cluster.record_set(cluster.nodes[0], b"s").entries(index)
    for number, step in steps:
        digest = bytes([number]) * 20
        if step in ("put", "big"):
            commands.put({"a": "x" * (100 if step == "big" else 1)}, digest=digest)
        elif step == "truncate":
            cluster.truncate(cluster.nodes[0], b"s", commands.now_ms)
            commands.drop_all()
        elif step == "cut":
            cluster.form(cluster.nodes[0].view.members)
        else:
            commands.remove(durable=step == "durable", digest=digest)
        commands.pass_s(1)
    cluster.record_set(cluster.nodes[0], b"s")
    for node in cluster.nodes:
        held = [record for copy in node.sets.get(b"s", {}).values() for record in copy.values()]
        num_tombstones = sum(record.is_tombstone for record in held)
        expected = (len(held) - num_tombstones, num_tombstones, sum(len(record.row) for record in held))
        assert cluster.count(node, b"s") == expected
    owner = cluster.record_set(cluster.nodes[0], b"s")
    entries = owner.entries(index)
    values = [value for pid in owner.filled for record in owner.records(pid).values() for value in index.values(record)]
    assert sum(entries.num_records.values()) == sum(entries.num_entries.values()) == len(values)
    assert entries.num_values == len(set(values))


def test_truncating_whole_partitions_handles_no_record_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    for number in range(20):
        commands.put({"a": 1}, digest=bytes([number]) * 20)
    monkeypatch.setattr(commands.cluster, "put", None)
    commands.cluster.truncate(commands.cluster.nodes[0], b"s", commands.now_ms + 1)
    commands.drop_all()
    assert [commands.cluster.count(node, b"s") for node in commands.cluster.nodes] == [(0, 0, 0)] * 3
    assert commands.scan() == []


def test_sets_are_listed_with_and_without_a_namespace(commands: Commands) -> None:
    commands.put({"a": 1})
    told = ask(commands, "sets/test")
    assert told.startswith("ns=test:set=s:")
    assert ask(commands, "sets") == ask(commands, "sets/") == told
    assert ask(commands, "sets/nosuch").startswith("ERROR:4:")


@pytest.mark.parametrize("absent", [{Field.SET: b""}, {}])
def test_a_record_is_found_by_its_digest_where_the_request_names_no_set(absent: dict[int, bytes]) -> None:
    commands = Commands()
    commands.put({"a": 1})
    cluster = commands.cluster
    fields = {Field.NAMESPACE: b"test"} | absent

    def do(**what: Any) -> Outcome:
        request = Message(fields=dict(fields), **what)
        return execute(cluster, cluster.nodes[0], "client", request, DIGEST, None, commands.now_ms)

    assert do(info1=codes.INFO1_READ | codes.INFO1_GET_ALL).generation == 1
    written = do(info2=codes.INFO2_WRITE, ops=[operation(OpCode.WRITE, "a", 2)])
    assert (written.result_code, written.generation) == (0, 2)
    assert [message.bins() for message in commands.scan()] == [{"a": 2}]
    durable_delete = codes.INFO2_WRITE | codes.INFO2_DELETE | codes.INFO2_DURABLE_DELETE
    assert do(info2=durable_delete).result_code == 0
    assert commands.get().result_code == codes.ResultCode.NOT_FOUND
    assert b"" not in cluster.sets


def test_a_row_of_a_batch_finds_its_record_without_a_set() -> None:
    commands = Commands()
    commands.put({"a": 1})
    row = BatchRow(0, DIGEST, codes.INFO1_READ | codes.INFO1_GET_ALL, 0, 0, 0, 0, 0, {Field.NAMESPACE: b"test"}, [])
    node = commands.cluster.nodes[1]
    assert execute(commands.cluster, node, "batch_sub", row, DIGEST, None, commands.now_ms).generation == 1
    assert Field.SET not in row.fields


def test_counting_a_small_set_looks_only_where_it_has_records(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    for number in range(20):
        commands.put({"a": 1}, digest=bytes([number]) * 20)
    asked: list[int] = []
    counts = RecordSet.counts
    monkeypatch.setattr(RecordSet, "counts", lambda self, pids: asked.extend(pids) or counts(self, pids))
    assert commands.cluster.count(commands.cluster.nodes[0], b"s").num_records == 20
    assert len(asked) == 20
