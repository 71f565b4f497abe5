import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT

FREE = ["nodes.ewr.port=0", "nodes.jfk.port=0", "nodes.lga.port=0"]


def start(run_dir: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sim.cluster", *FREE, f"hydra.run.dir={run_dir}", *overrides]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_says_when_it_is_ready_and_ends_when_it_is_told_to(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path) as process:
        assert process.stdout is not None
        assert "simulated cluster ready, namespace geotrain: ewr=127.0.0.1:" in process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_memory_that_is_reserved_is_there_from_the_start(tmp_path: Path) -> None:
    resident_bytes = []
    for reserved_mb in (0, 300):
        with start(tmp_path, f"reserved_mb={reserved_mb}") as process:
            assert process.stdout is not None
            assert "ready" in process.stdout.readline()
            resident_bytes.append(psutil.Process(process.pid).memory_info().rss)
            process.terminate()
            process.communicate(timeout=60)
    assert resident_bytes[1] - resident_bytes[0] > 250_000_000


def test_a_port_in_use_is_said_in_two_lines(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(tmp_path, f"nodes.jfk.port={port}") as process:
            _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert err.splitlines() == [
        f"error: nodes.jfk.port: 127.0.0.1:{port} is in use",
        "  Stop what listens there, or choose another port: nodes.jfk.port=0 takes any free one.",
    ]


def test_the_file_in_the_how_to_puts_sites_far_from_each_other(tmp_path: Path) -> None:
    guide = (ROOT / "docs/how-to/simulated-cluster.md").read_text()
    (tmp_path / "far.yaml").write_text(guide.partition("```yaml\n")[2].partition("```")[0])
    with start(tmp_path, "--config-dir", str(tmp_path), "--config-name", "far") as process:
        assert process.stdout is not None
        assert "from site ewr: ewr=" in process.stdout.readline()
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_a_wrong_field_is_refused_by_its_name_without_a_stack_trace(tmp_path: Path) -> None:
    with start(tmp_path, "edition=communty") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "edition must be one of enterprise, community" in err
    assert "Traceback" not in err
