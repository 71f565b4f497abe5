import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.control import Control, OrderError, main
from sim.wan.config import RouteConfig, WanConfig
from tests.conftest import ROOT


def route(target: str) -> list[str]:
    return [
        "~routes.lga",
        "control_port=0",
        "routes.jfk.listen=127.0.0.1:0",
        f"routes.jfk.target={target}",
    ]


@pytest.fixture
def service() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as service:
        service.settimeout(20)
        yield service


@pytest.fixture
def said(tmp_path: Path, service: socket.socket) -> Iterator[str]:
    """What a running proxy with one route to the service says until it is ready."""
    command = [sys.executable, "-m", "sim.wan", f"hydra.run.dir={tmp_path}"]
    command += route(f"127.0.0.1:{service.getsockname()[1]}")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = ""
            for line in process.stdout:
                said += line
                if "ready" in line:
                    break
            yield said
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_a_route_carries_a_connection_and_is_cut_and_healed_from_outside(
    said: str, service: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    listen = re.search(r"route jfk: (\S+):(\d+), from jfk to ewr", said)
    control = re.search(r"ordered at (\S+:\d+)", said)
    assert listen
    assert control
    with socket.create_connection((listen[1], int(listen[2])), timeout=60) as client:
        served, _ = service.accept()
        with served:
            client.sendall(b"a")
            assert served.recv(1) == b"a"
            assert main([control[1], "cut:from=jfk;to=ewr", "log"]) == 0
            client.sendall(b"b")
            served.settimeout(0.2)
            with pytest.raises(TimeoutError):
                served.recv(1)
            assert main([control[1], "heal"]) == 0
            served.settimeout(20)
            assert served.recv(1) == b"b"
    with Control(control[1]) as orders, pytest.raises(OrderError, match="no such site"):
        orders.order("cut:site=sfo")
    assert main([control[1], "explode"]) == 1
    out, err = capsys.readouterr()
    assert "cut:from=jfk;to=ewr" in out
    assert "no such order: explode" in err


def test_a_port_in_use_is_said_in_two_lines(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "sim.wan", f"hydra.run.dir={tmp_path}", "~routes.lga"]
        command += [f"routes.jfk.listen={address}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: routes.jfk.listen: {address} can't be listened on")
    assert "port 0" in second


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"listen": "nowhere"}, "listen must be host:port"),
        ({"target": "host:99999"}, "target must be host:port"),
        ({"site": ""}, "site must name a site"),
        ({"target_site": ""}, "target_site must name a site"),
    ],
)
def test_a_wrong_field_of_a_route_is_refused_by_its_name(fields: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RouteConfig(**({"site": "a", "target": "b:1", "target_site": "b"} | fields))


def test_without_routes_there_is_nothing_to_do() -> None:
    with pytest.raises(ValueError, match="routes must name"):
        WanConfig()
