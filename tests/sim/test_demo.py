"""The whole demo, small: every part a process of its own, a report at the end, nothing left behind."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from geotrain.rpc import coordinator_pb2 as pb
from sim.demo import with_pauses

SMALL = ["scenario=smoke", "days_a_month=2", "sites=[ewr,lga]"]
DEADLINE_S = 280


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sim", *SMALL, f"hydra.run.dir={folder}", *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def left_of(folder: Path) -> list[str]:
    """The command lines of the processes that still work for the demo in this folder."""
    return [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in argument for argument in process.info["cmdline"] or [])
    ]


@pytest.mark.e2e
def test_the_demo_ends_with_a_report_and_without_processes(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        output, _ = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 0, output
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["view"] == {"consistency": "strong", "racks": 3, "cluster": "simulated"}
    assert [each["round"] for each in told["rounds"]] == [1]
    assert told["sites"].keys() == {"ewr", "lga"}
    assert all(site["auc_by_lookup"] == pytest.approx(site["auc"]["localized"]) for site in told["sites"].values())
    assert told["rows_moved"] == 0
    assert all(counts["up"] == counts["captured"] > 0 for counts in told["wire"].values())
    assert "</html>" in (tmp_path / "report.html").read_text()
    assert left_of(tmp_path) == []


@pytest.mark.e2e
def test_ctrl_c_in_the_middle_of_the_job_leaves_no_process(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "joining" in line:
                break
        descendants = psutil.Process(demo.pid).children(recursive=True)
        assert any("raylet" in process.name() for process in descendants)
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        assert demo.wait(DEADLINE_S) == 128 + signal.SIGINT
    assert [process for process in descendants if process.is_running()] == []
    assert left_of(tmp_path) == []


@pytest.mark.e2e
def test_a_program_that_dies_ends_the_demo_and_is_named(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "run the job" in line:
                break
        agents = [p for p in psutil.Process(demo.pid).children() if "site=lga" in p.cmdline()]
        agents[0].kill()
        output = demo.stdout.read()
        assert demo.wait(DEADLINE_S) == 8
    assert "error: agent-lga was killed by SIGKILL before its time." in output
    assert "agent-lga.log" in output
    assert "Traceback" not in output
    assert left_of(tmp_path) == []


@pytest.mark.e2e
def test_without_a_cluster_at_the_address_it_says_so(tmp_path: Path) -> None:
    with start(tmp_path, "cluster=external", "cluster.hosts=[127.0.0.1:1]") as demo:
        output, _ = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 3
    assert "error: no cluster answers at 127.0.0.1:1" in output
    assert "Traceback" not in output


def test_pauses_come_between_events_and_none_is_lost() -> None:
    async def scenario() -> list[pb.JobEvent | None]:
        waited = asyncio.Event()

        async def events() -> AsyncIterator[pb.JobEvent]:
            yield pb.JobEvent(job="first")
            await waited.wait()
            yield pb.JobEvent(job="second")

        seen: list[pb.JobEvent | None] = []
        async for event in with_pauses(events(), 0.01):
            seen.append(event)
            if event is None:
                waited.set()
        return seen

    seen = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert [event.job for event in seen if event is not None] == ["first", "second"]
    assert None in seen
