"""`get-config`, `set-config`: what is told of the configuration, and what may change while the cluster runs."""

import pytest

from geotrain.wire.codes import ResultCode
from geotrain.wire.info import decode_parameters
from sim.cluster.answers.info import answer
from tests.sim.cluster.in_process import Commands


def ask(commands: Commands, request: str) -> str:
    return answer(commands.cluster, commands.cluster.nodes[0], request)


def set_config(commands: Commands, **parameters: str) -> str:
    text = ";".join(f"{name.replace('_', '-')}={value}" for name, value in parameters.items())
    return ask(commands, f"set-config:context=namespace;id=test;{text}")


def test_the_configuration_is_told_by_context() -> None:
    commands = Commands(nsup_period_s=7, replication_factor=2)
    told = decode_parameters(ask(commands, "get-config:context=namespace;id=test"))
    assert (told["nsup-period"], told["replication-factor"], told["strong-consistency"]) == ("7", "2", "true")
    assert ask(commands, "get-config:context=namespace;namespace=test") == ask(
        commands, "get-config:context=namespace;id=test"
    )
    parts = [ask(commands, f"get-config:context={context}") for context in ("service", "network", "security")]
    assert ask(commands, "get-config:") == ask(commands, "get-config") == ";".join(parts)
    service, network, security = map(decode_parameters, parts)
    assert (service["batch-max-requests"], service["node-id"]) == ("5000", commands.cluster.nodes[0].node_id)
    assert network["service.address"] == "127.0.0.1"
    assert security["enable-security"] == "false"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("get-config:context=nosuch", "ERROR:4:bad 'context'"),
        ("get-config:context=namespace;id=nosuch", "ERROR:4:bad namespace 'nosuch'"),
        ("get-config:context=namespace", "ERROR:4:bad namespace ''"),
        ("set-config:", "ERROR:4:missing 'context'"),
        ("set-config:context=nosuch;nsup-period=1", "ERROR:4:bad 'context'"),
        ("set-config:context=namespace;id=nosuch;nsup-period=1", "ERROR:4:bad namespace 'nosuch'"),
        ("set-config:context=namespace;id=test", "ERROR:4:bad parameter or value"),
        ("set-config:context=namespace;id=test;nosuch=1", "ERROR:4:bad parameter or value"),
        ("set-config:context=namespace;id=test;nsup-period=often", "ERROR:4:bad parameter or value"),
        ("set-config:context=namespace;id=test;nsup-period=-1", "ERROR:4:bad parameter or value"),
        ("set-config:context=namespace;id=test;allow-ttl-without-nsup=2", "ERROR:4:bad parameter or value"),
        ("set-config:context=namespace;id=test;default-read-touch-ttl-pct=101", "ERROR:4:bad parameter or value"),
        ("set-config:context=namespace;id=test;default-ttl=9999D;nsup-period=1", "ERROR:4:bad parameter or value"),
        ("set-config:context=namespace;id=test;migrate-threads=2", "ERROR:4:bad parameter or value"),
        ("set-config:context=namespace;id=test;migrate-sleep=2", "ERROR:16:"),
        ("set-config:context=service;migrate-threads=2", "ERROR:16:"),
        ("set-config:context=namespace;id=test;set=s;stop-writes-count=2", "ERROR:16:"),
    ],
)
def test_what_can_not_be_told_or_set_is_refused_with_the_reason(request_: str, expected: str) -> None:
    commands = Commands()
    before = ask(commands, "get-config:context=namespace;id=test")
    assert ask(commands, request_).startswith(expected)
    assert ask(commands, "get-config:context=namespace;id=test") == before


def test_records_may_expire_once_nsup_is_switched_on() -> None:
    commands = Commands()
    assert commands.put({"a": 1}, ttl=60).result_code == ResultCode.FORBIDDEN
    assert set_config(commands, nsup_period="2m") == "ok"
    assert commands.put({"a": 1}, ttl=60).result_code == ResultCode.OK
    assert "nsup-period=120;" in ask(commands, "namespace/test")


def test_a_default_time_to_live_may_be_set_with_what_it_needs() -> None:
    commands = Commands()
    assert set_config(commands, default_ttl="1D").startswith("ERROR:4:")
    assert set_config(commands, allow_ttl_without_nsup="yes", default_ttl="1D") == "ok"
    commands.put({"a": 1})
    commands.pass_s(86_400)
    assert commands.get().result_code == ResultCode.OK
    commands.pass_s(2)
    assert commands.get().result_code == ResultCode.NOT_FOUND


def test_the_largest_record_may_be_set() -> None:
    commands = Commands()
    assert set_config(commands, max_record_size="1K") == "ok"
    assert commands.put({"a": "x" * 2000}).result_code == ResultCode.TOO_BIG
    assert set_config(commands, max_record_size="1M") == "ok"
    assert commands.put({"a": "x" * 2000}).result_code == ResultCode.OK
