"""Answers to administrators' info requests that no vector has."""

import pytest

from geotrain.wire.info import decode_parameters
from sim.cluster.answers.info import answer
from tests.sim.cluster.in_process import Commands


@pytest.fixture(scope="module")
def commands() -> Commands:
    return Commands(nsup_period_s=7, replication_factor=2)


def ask(commands: Commands, request: str, node: int = 0) -> str:
    return answer(commands.cluster, commands.cluster.nodes[node], request)


def test_the_configuration_is_told_by_context(commands: Commands) -> None:
    told = decode_parameters(ask(commands, "get-config:context=namespace;id=test"))
    assert (told["nsup-period"], told["replication-factor"], told["strong-consistency"]) == ("7", "2", "true")
    assert decode_parameters(ask(commands, "get-config:"))["batch-max-requests"] == "5000"
    assert ask(commands, "get-config:context=security") == "enable-security=false"
    assert ask(commands, "get-config:context=nosuch") == "ERROR:4:bad 'context'"
    assert ask(commands, "get-config:context=namespace;id=nosuch") == "ERROR:4:bad namespace 'nosuch'"


def test_functions_of_users_are_not_simulated_and_that_is_said(commands: Commands) -> None:
    assert ask(commands, "udf-list") == ""
    assert ask(commands, "udf-put:filename=a.lua;content=YQ==;content-len=1;udf-type=LUA;").startswith("ERROR:16:")


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
        ("ns=test;indexname=j;bin=a;type=numeric;context=kQ==", "ERROR:16:"),
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
    assert ask(commands, "sindex-list:ns=test") == ask(commands, "sindex-list") == listed
    state = decode_parameters(ask(commands, "sindex-stat:ns=test;indexname=new"))
    assert (state["entries"], state["load_pct"]) == ("1", "100")
    assert ask(commands, "sindex-exists:ns=test;indexname=new") == "true"
    assert "sindexes=1" in ask(commands, "sets/test/s")
    assert ask(commands, "sindex-delete:ns=test;indexname=new") == "ok"
    assert ask(commands, "sindex-stat:ns=test;indexname=new") == "ERROR:201:no index"
    assert ask(commands, "sindex-exists:ns=test;indexname=new") == "false"
