"""Orders to a running cluster from the command line, and its log."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.control import Control, main
from sim.schedule import draw, healing, parse
from tests.conftest import ROOT, simulated_cluster
from tests.sim.cluster.test_faults import get
from tests.sim.cluster.wire_client import WireClient

SITES = ["ewr", "jfk", "lga"]


class Running:
    """A cluster, by the address of its first node and that for orders."""

    def __init__(self, address: str) -> None:
        self.node_address = address
        with WireClient(address) as client:
            self.address = client.info("sim-control")

    def events(self, number: int) -> list[tuple[float, str]]:
        """The last lines of the log, each with its time; times never go back."""
        with Control(self.address) as control:
            lines = [line.split(" ") for line in control.order("log").split("|")]
        events = [(float(time_s), text) for time_s, text in lines]
        assert events == sorted(events, key=lambda event: event[0])
        return events[-number:]

    def said(self, number: int) -> list[str]:
        """The last lines of the log, without times."""
        return [text for _, text in self.events(number)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulated_cluster(tmp_path_factory.mktemp("control")) as addresses:
        yield Running(addresses[0])


def test_every_fault_is_in_the_log_with_its_time(running: Running) -> None:
    assert main([running.address, "slow:from=ewr;to=jfk;delay_ms=0"]) == 0
    ((time_s, text),) = running.events(1)
    assert time_s > 0
    assert text == "slow:from=ewr;to=jfk;delay_ms=0"


def test_every_command_that_a_node_answers_wrongly_is_in_the_log(running: Running) -> None:
    wrong = ["misbehave:node=ewr;kind=code;code=18;count=2", "misbehave:node=ewr;kind=late;delay_ms=1"]
    assert main([running.address, *wrong]) == 0
    with WireClient(running.node_address) as client:
        for _ in range(4):
            client.messages(get(9))
    assert running.said(4) == [
        "misbehave:node=ewr;kind=late;delay_ms=1",
        "misbehaved:node=ewr;kind=code;code=18",
        "misbehaved:node=ewr;kind=code;code=18",
        "misbehaved:node=ewr;kind=late;delay_ms=1",
    ]


def test_a_script_is_played_each_order_at_its_time(running: Running, tmp_path: Path) -> None:
    script = tmp_path / "faults.txt"
    script.write_text("# a site is away for a while\n0.2 heal:site=jfk\n0 cut:site=jfk\n")
    assert main([running.address, "behave:node=jfk"]) == 0
    assert main([running.address, "--script", str(script)]) == 0
    (before_s, _), (_, cut), (heal_s, heal) = running.events(3)
    assert (cut, heal) == ("cut:site=jfk", "heal:site=jfk")
    assert heal_s - before_s >= 0.199, "not before its time; the log rounds"


@pytest.mark.parametrize(
    ("line", "reason"),
    [("0 cut:site=sfo", "0.000 cut:site=sfo: no such"), ("soon heal", "line 1 must be seconds")],
)
def test_a_script_that_can_not_be_played_says_why(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, reason: str
) -> None:
    script = tmp_path / "faults.txt"
    script.write_text(line)
    assert main([running.address, "--script", str(script)]) == 1
    assert reason in capsys.readouterr().err


def test_faults_of_a_seed_are_printed_as_a_script_and_played(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = draw(7, SITES, 0.3)
    assert main([running.address, "--seed", "7", "--duration-s", "0.3"]) == 0
    assert parse(capsys.readouterr().out) == expected
    assert running.said(len(expected)) == [order.text for order in expected]


def test_faults_are_drawn_at_the_sites_that_are_given(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([running.address, "--seed", "7", "--duration-s", "0.1", "--sites", "ewr,jfk"]) == 0
    assert "lga" not in capsys.readouterr().out


def test_faults_are_drawn_at_no_site_that_there_is_not(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([running.address, "--seed", "7", "--sites", "ewr,sfo"]) == 1
    assert "no node stands at 'sfo'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_all_is_made_whole_where_the_faults_of_a_seed_are_interrupted(running: Running, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "sim.control", running.address, "--seed", "7", "--duration-s", "600"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "600.000 skew:site=lga;ms=0\n":  # all is printed, and being played
                break
        process.send_signal(number)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stopped: all is made whole\n")
    assert running.said(13) == healing(SITES)


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1", "address must be host:port"), ("127.0.0.1:1", "127.0.0.1:1 can't be reached")]
)
def test_an_address_where_nobody_takes_orders_is_named(
    capsys: pytest.CaptureFixture[str], address: str, reason: str
) -> None:
    assert main([address, "heal"]) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--seed", "1", "heal"], ["--seed", "1", "--script", "faults.txt"]])
def test_one_kind_of_orders_is_given_at_a_time(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["127.0.0.1:1", *arguments])
    assert "give either orders, --script or --seed" in capsys.readouterr().err
