"""The demo leaves no process behind, and says which one failed and why."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from sim.processes import ProcessFailed, Supervisor

DEADLINE_S = 60.0

# A child that ignores SIGTERM, with a grandchild that left its session and whose own parent died: the worst that
# Ray or a shell could leave.
STUBBORN = r"""
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(1, b"orphan %d\n" % os.getpid())
        time.sleep(600)
    os._exit(0)
os.wait()
os.write(1, b"child %d\n" % os.getpid())
time.sleep(600)
"""

ORDINARY = r"""
import os, time
os.write(1, b"child %d\n" % os.getpid())
time.sleep(600)
"""

# What the demo does: start children, then wait until somebody stops it.
PARENT = """
import sys, time
from pathlib import Path
from sim.processes import Supervisor
with Supervisor(Path(sys.argv[1]), grace_s=float(sys.argv[2])) as processes:
    child = processes.start("stubborn", [sys.executable, "-c", sys.argv[3]])
    for word in sys.argv[4:]:
        processes.wait_says(child, word, deadline_s=30)
    print("ready", flush=True)
    time.sleep(600)
"""


@dataclass
class Demo:
    """A demo in a process of its own, and the process ids of what it started."""

    process: subprocess.Popen[str]
    pids: list[int]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    with ExitStack() as demos:

        def start(child_code: str, words: list[str], grace_s: float) -> Demo:
            command = [sys.executable, "-c", PARENT, str(tmp_path), str(grace_s), child_code, *words]
            process = demos.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            demos.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            pids = [int(line.split()[1]) for line in (tmp_path / "stubborn.log").read_text().splitlines()]
            for pid in pids:
                demos.callback(kill, pid)
            return Demo(process, pids)

        yield start


def kill(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()


def all_gone(pids: list[int]) -> bool:
    """Whether all these end within the deadline (a zombie is gone: it only waits to be reaped by init)."""
    give_up_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up_s:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_child_that_ignores_sigterm_and_its_orphaned_grandchild(
    start_demo: Callable[..., Demo], number: signal.Signals
) -> None:
    demo = start_demo(STUBBORN, ["child", "orphan"], grace_s=0.2)
    assert len(demo.pids) == 2
    demo.process.send_signal(number)
    assert demo.process.wait(DEADLINE_S) == 128 + number
    assert all_gone(demo.pids)


def test_a_second_ctrl_c_cuts_the_grace_short_and_still_leaves_nothing(start_demo: Callable[..., Demo]) -> None:
    demo = start_demo(STUBBORN, ["child", "orphan"], grace_s=600)
    give_up_s = time.monotonic() + DEADLINE_S
    while demo.process.poll() is None and time.monotonic() < give_up_s:
        demo.process.send_signal(signal.SIGINT)  # again and again: two pending ones may be delivered as one
        time.sleep(0.05)
    # One that comes while Python itself ends takes it with it; a shell says 130 of both.
    assert demo.process.returncode in (128 + signal.SIGINT, -signal.SIGINT)
    assert all_gone(demo.pids)


def test_children_die_with_a_demo_that_is_killed_outright(start_demo: Callable[..., Demo]) -> None:
    demo = start_demo(ORDINARY, ["child"], grace_s=600)
    demo.process.kill()
    demo.process.wait(DEADLINE_S)
    assert all_gone(demo.pids)


def test_a_child_gets_time_to_end_in_order(tmp_path: Path) -> None:
    code = """
import signal, sys, time
def end(*_):
    print("ended in order", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""
    with Supervisor(tmp_path) as processes:
        child = processes.start("orderly", [sys.executable, "-c", code])
        processes.wait_says(child, "up", deadline_s=DEADLINE_S)
    assert "ended in order" in child.log_text()


def test_a_child_that_takes_too_long_to_end_is_killed(tmp_path: Path) -> None:
    with Supervisor(tmp_path, grace_s=0.1) as processes:
        child = processes.start("deaf", ["sh", "-c", "trap '' TERM; echo up; while true; do sleep 1; done"])
        processes.wait_says(child, "up", deadline_s=DEADLINE_S)
    assert child.process.returncode == -signal.SIGKILL


def test_an_exception_in_the_demo_ends_its_children(tmp_path: Path) -> None:
    children = []

    def demo() -> None:
        with Supervisor(tmp_path) as processes:
            children.append(processes.start("sleeper", ["sleep", "600"]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        demo()
    assert children[0].process.poll() is not None


def test_an_early_death_is_reported_with_the_name_the_code_and_the_log(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as processes:
        child = processes.start("agent-ewr", ["sh", "-c", "echo error: site: unknown site xyz; exit 2"])
        with pytest.raises(ProcessFailed, match=r"agent-ewr ended with exit code 2") as caught:
            processes.wait_ready(child, lambda: False, "answer", deadline_s=DEADLINE_S)
    assert "error: site: unknown site xyz" in caught.value.remedy
    assert "agent-ewr.log" in caught.value.remedy


def test_a_child_that_is_not_ready_in_time_is_named_with_what_it_did_not_do(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as processes:
        child = processes.start("cluster", ["sh", "-c", "echo still loading; sleep 600"])
        processes.wait_says(child, "still loading", deadline_s=DEADLINE_S)
        with pytest.raises(ProcessFailed, match=r"cluster did not say 'ready: ' within 0.1 s") as caught:
            processes.wait_says(child, "ready: ", deadline_s=0.1)
    assert "still loading" in caught.value.remedy


def test_a_child_that_ends_by_itself_may_end_well_while_another_is_awaited(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as processes:
        quick = processes.start("quick", ["true"], ends=True)
        slow = processes.start("slow", ["sh", "-c", "sleep 0.3"], ends=True)
        processes.wait_done(slow, deadline_s=DEADLINE_S)
        processes.wait_done(quick, deadline_s=DEADLINE_S)
        broken = processes.start("broken", ["false"], ends=True)
        with pytest.raises(ProcessFailed, match="broken ended with exit code 1"):
            processes.wait_done(broken, deadline_s=DEADLINE_S)


def test_what_a_child_says_of_itself_is_found_in_its_log(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as processes:
        child = processes.start("relay", ["sh", "-c", "echo hello; echo ready at 127.0.0.1:4711; sleep 600"])
        assert processes.wait_says(child, r"ready at (\S+:\d+)", deadline_s=DEADLINE_S)[1] == "127.0.0.1:4711"


def test_what_comes_after_all_children_ended_can_be_interrupted_too(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as processes:
        processes.start("sleeper", ["sleep", "600"])
        processes.stop()
        with pytest.raises(SystemExit, match="130"):
            signal.raise_signal(signal.SIGINT)


def test_signals_are_as_before_afterwards(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Supervisor(tmp_path):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_processes_that_were_there_before_are_left_alone(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
        with Supervisor(tmp_path / "logs") as processes:
            child = processes.start("ordinary", [sys.executable, "-c", ORDINARY])
            processes.wait_says(child, r"child \d+", deadline_s=DEADLINE_S)
        assert child.process.poll() is not None
        assert other.poll() is None
        assert other.stdin is not None
        other.stdin.close()
        assert other.wait(DEADLINE_S) == 0
