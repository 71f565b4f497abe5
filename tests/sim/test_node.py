"""A process that stands for a node of a simulated cluster: its end is the node's."""

import asyncio
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from geotrain.wire.info import decode_parameters
from sim import node
from sim.control import Control
from tests.conftest import ROOT, free_port, simulated_cluster
from tests.sim.cluster.wire_client import WireClient

DEADLINE_S = 60.0


@contextmanager
def standing_for(name: str, life: int, host: str, target: int) -> Iterator[subprocess.Popen[str]]:
    """`python -m sim.node`, from when the node lives."""
    command = [sys.executable, "-m", "sim.node", f"--name={name}", f"--life=127.0.0.1:{life}", f"{host}:{target}"]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout is not None
    return next(line for line in process.stdout if re.search(pattern, line))


def wait_until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


@pytest.fixture
def cluster(tmp_path) -> Iterator[tuple[int, Control]]:
    """The life port of a cluster, and orders to it."""
    life = free_port()
    with (
        simulated_cluster(tmp_path, f"life_port={life}") as hosts,
        WireClient(hosts[0]) as client,
        Control(client.info("sim-control")) as control,
    ):
        yield life, control


def state_of(control: Control, name: str) -> dict[str, str]:
    nodes = map(decode_parameters, control.order("state").split("|"))
    return next(node for node in nodes if node["node"] == name)


def test_a_node_dies_with_who_stands_for_it_and_comes_back_with_the_next(cluster):
    life, control = cluster
    for _ in range(2):
        # Its listener is anywhere but here: 127.0.0.2 is this machine as well.
        with standing_for("lga", life, "127.0.0.2", free_port()) as process:
            said(process, "node lga lives")
            wait_until(lambda: state_of(control, "lga")["state"] == "up")
            assert set(state_of(control, "ewr")["members"].split(",")) == {"ewr", "jfk", "lga"}
            process.kill()
            wait_until(lambda: state_of(control, "lga")["state"] == "down")
            assert set(state_of(control, "ewr")["members"].split(",")) == {"ewr", "jfk"}


def test_a_node_whose_stand_in_has_fallen_silent_dies(cluster):
    """As when a container is gone with its network, before the end of its connections was sent."""
    life, control = cluster
    with socket.create_connection(("127.0.0.1", life)) as silent:
        silent.sendall(b"lga\n")
        assert silent.recv(8) == b"ok\n"
        wait_until(lambda: state_of(control, "lga")["state"] == "down")


def test_a_node_lives_on_when_who_stood_for_it_before_the_next_is_found_silent(cluster):
    life, control = cluster
    with socket.create_connection(("127.0.0.1", life)) as before:
        before.sendall(b"lga\n")
        assert before.recv(8) == b"ok\n"
        with standing_for("lga", life, "127.0.0.2", free_port()) as process:
            said(process, "node lga lives")
            assert before.recv(8) == b"", "it was hung up on"
            assert state_of(control, "lga")["state"] == "up"


def test_clients_are_told_each_node_at_a_host_of_its_own(tmp_path):
    port = free_port()
    overrides = ("client_sites=[jfk]", f"+client_addresses.jfk='{{node}}.localhost:{port}'")
    with simulated_cluster(tmp_path, *overrides), WireClient(f"localhost:{port}") as client:
        assert client.info("service-clear-std") == f"ewr.localhost:{port}"
        assert f"lga.localhost:{port + 2}" in client.info("peers-clear-std")


def test_a_node_that_is_not_there_can_not_be_stood_for(cluster):
    life, control = cluster
    with standing_for("sfo", life, "127.0.0.2", free_port()) as process:
        said(process, "has hung up on node sfo")
    assert {state_of(control, name)["state"] for name in ("ewr", "jfk", "lga")} == {"up"}


def test_a_cluster_that_does_not_answer_is_said_and_asked_again(monkeypatch, caplog):
    monkeypatch.setattr(node, "ANSWER_DEADLINE_S", 0.05)
    monkeypatch.setattr(node, "AGAIN_S", 0.0)

    async def asked_twice() -> None:
        asked: asyncio.Queue[object] = asyncio.Queue()
        silent = await asyncio.start_server(lambda reader, writer: asked.put_nowait((reader, writer)), "127.0.0.1", 0)
        standing = asyncio.create_task(node.stand_for("lga", silent.sockets[0].getsockname(), []))
        async with asyncio.timeout(DEADLINE_S):
            kept = [await asked.get(), await asked.get()]
        standing.cancel()
        silent.close()
        del kept

    asyncio.run(asked_twice())
    assert "can't be reached: no answer" in caplog.text
