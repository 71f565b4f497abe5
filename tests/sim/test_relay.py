"""The relay passes every byte on, counts each one, and keeps the uplink up to its limit."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sim.processes import Supervisor
from sim.relay import Counts, SiteLink, read_counts
from sim.wan import proxy
from sim.wan.model import Network

ANY = "127.0.0.1", 0


async def echo_in_upper_case(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers only once the other side has finished writing: the relay must pass on a half-close."""
    received = await reader.read(-1)
    writer.write(received.upper() + b"!")
    writer.close()


def exchange(folder: Path, messages: list[bytes], *, max_bytes: int = 1 << 20) -> tuple[list[bytes], Counts]:
    """Send each message over a connection of its own through the relay; the answers, and what was counted."""

    async def scenario() -> tuple[list[bytes], Counts]:
        coordinator = await asyncio.start_server(echo_in_upper_case, "127.0.0.1", 0)
        target = coordinator.sockets[0].getsockname()
        link = SiteLink("ewr", folder=folder, max_bytes=max_bytes)
        server = await proxy.listen(Network((), 0), "ewr", "coordinator", ANY, target, link.observer)
        answers = []
        for message in messages:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(message)
            writer.write_eof()
            answers.append(await reader.read(-1))
            writer.close()
        server.close()
        coordinator.close()
        return answers, link.counts

    return asyncio.run(asyncio.wait_for(scenario(), 30))


def test_bytes_arrive_and_are_counted_in_both_directions(tmp_path: Path) -> None:
    answers, counts = exchange(tmp_path, [b"hello", b"x" * 300_000])
    assert answers == [b"HELLO!", b"X" * 300_000 + b"!"]
    assert counts == Counts(up=300_005, down=300_007, connections=2, captured=300_005)


def test_each_connections_uplink_is_kept_in_a_file_of_its_own(tmp_path: Path) -> None:
    exchange(tmp_path, [b"first", b"second"])
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.up")} == {
        "ewr.1.up": b"first",
        "ewr.2.up": b"second",
    }


def test_the_capture_stops_at_its_limit_and_says_so_once_but_the_relay_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers, counts = exchange(tmp_path, [b"abcdef", b"ghi"], max_bytes=4)
    assert answers == [b"ABCDEF!", b"GHI!"]
    assert counts == Counts(up=9, down=11, connections=2, captured=4)
    assert (tmp_path / "ewr.1.up").read_bytes() == b"abcd"
    assert capsys.readouterr().out.count("capture stopped at its limit of 4 bytes") == 1


def test_the_counts_on_disk_are_those_of_every_site_and_sigterm_ends_open_connections_in_order(tmp_path: Path) -> None:
    wire = tmp_path / "wire"
    with socket.create_server(("127.0.0.1", 0)) as coordinator, Supervisor(tmp_path / "logs") as processes:
        target = f"--target=127.0.0.1:{coordinator.getsockname()[1]}"
        arguments = [target, f"--folder={wire}", "--max-bytes=10", "ewr=127.0.0.1:0", "jfk=127.0.0.1:0"]
        child = processes.start_python("relay", "sim.relay", *arguments)
        port = processes.wait_says(child, r"jfk is relayed at \S+:(\d+)", deadline_s=30)[1]
        with socket.create_connection(("127.0.0.1", int(port))) as agent:
            agent.sendall(b"hello")
            arrived, _ = coordinator.accept()
            with arrived:
                assert arrived.recv(5, socket.MSG_WAITALL) == b"hello"
                processes.stop()
                assert arrived.recv(1) == b""
    assert child.process.returncode == 0
    assert "Traceback" not in child.log_text()
    assert read_counts(wire) == {"ewr": Counts(), "jfk": Counts(up=5, connections=1, captured=5)}


def test_a_port_in_use_is_an_error_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = ["--target", "127.0.0.1:1", "--folder", str(tmp_path), "--max-bytes", "1"]
        listen = f"ewr=127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "sim.relay", *command, listen],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the relay can't listen:")
    assert "Traceback" not in done.stderr
