"""Starts, watches and stops the processes of the demo, so that none outlives it. Knows nothing of what they do.

Linux only: every descendant stays in our tree (child subreaper), and each child gets SIGTERM when we die.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import psutil

from geotrain.errors import GeotrainError

POLL_S = 0.05
NUM_TAIL_LINES = 12
MAX_KILL_SWEEPS = 25
PR_SET_CHILD_SUBREAPER = 36
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessFailed(GeotrainError):
    """A process of the demo ended early, or was not ready in time. Shows the last lines of its log."""

    exit_code = 8


@dataclass(slots=True, eq=False)
class Child:
    """A process that was started, the file that takes its standard output and error, and whether it ends by itself."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ends: bool

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def log_tail(self) -> str:
        lines = [f"    {line}" for line in self.log_text().splitlines()[-NUM_TAIL_LINES:]]
        return "\n".join([f"The last lines of {self.log}:", *lines]) if lines else f"{self.log} is empty."


@dataclass(slots=True)
class Supervisor:
    """The children of one demo. A context manager: on the way out, whatever the reason, all that descends from us ends,
    but what was there before.

    A first signal (Ctrl-C, SIGTERM, SIGHUP) raises SystemExit in the main thread. A further one raises nothing: it only
    cuts the grace short, so that no impatience leaves a process behind.

    logs: folder for one log file a child.
    grace_s: how long children may take to end after SIGTERM before the whole tree is killed.
    """

    logs: Path
    grace_s: float = 10.0
    children: list[Child] = field(default_factory=list)
    _stopping: bool = False
    _hurry: bool = False
    _handlers: dict[signal.Signals, object] = field(default_factory=dict)
    _there_before: list[psutil.Process] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        self._there_before = psutil.Process().children()
        _adopt_orphans()
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def start(self, name: str, command: Sequence[str], *, ends: bool = False) -> Child:
        """Start a process in a session of its own: a terminal's Ctrl-C reaches only us, and we end it in order."""
        log = self.logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*_dies_with_us(), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        child = Child(name, process, log, ends)
        self.children.append(child)
        return child

    def start_python(self, name: str, module: str, *arguments: str, ends: bool = False) -> Child:
        """Start `python -m module arguments...` with this interpreter."""
        return self.start(name, [sys.executable, "-m", module, *arguments], ends=ends)

    def wait_ready(self, child: Child, ready: Callable[[], bool], what: str, *, deadline_s: float) -> None:
        """Return when `ready()`. Raises ProcessFailed when a child dies or the deadline passes."""
        give_up_s = time.monotonic() + deadline_s
        while not ready():
            self.check()
            if time.monotonic() > give_up_s:
                raise ProcessFailed(f"{child.name} did not {what} within {deadline_s:g} s.", child.log_tail())
            time.sleep(POLL_S)

    def wait_says(self, child: Child, pattern: str, *, deadline_s: float) -> re.Match[str]:
        """Return the first match of the pattern in the child's log."""
        self.wait_ready(
            child, lambda: bool(re.search(pattern, child.log_text())), f"say {pattern!r}", deadline_s=deadline_s
        )
        found = re.search(pattern, child.log_text())
        assert found is not None
        return found

    def wait_done(self, child: Child, *, deadline_s: float) -> None:
        """Return when a child that ends by itself ended well."""
        self.wait_ready(child, lambda: child.process.poll() == 0, "finish", deadline_s=deadline_s)

    def check(self) -> None:
        """Raise ProcessFailed for a child that ended although nobody asked it to."""
        for child in self.children:
            code = child.process.poll()
            if code is not None and not (child.ends and code == 0):
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                raise ProcessFailed(f"{child.name} {how} before its time.", child.log_tail())

    def stop(self) -> None:
        """SIGTERM for the children, last started first; then SIGKILL for whatever still descends from us."""
        self._stopping = True
        for child in reversed(self.children):
            if child.process.poll() is None:
                child.process.terminate()
        give_up_s = time.monotonic() + self.grace_s
        while any(child.process.poll() is None for child in self.children):
            if self._hurry or time.monotonic() > give_up_s:
                break
            time.sleep(POLL_S)
        self._kill_tree()
        self._stopping = False  # what comes after may be interrupted again

    def _kill_tree(self) -> None:
        """SIGKILL in sweeps until the tree is empty: a process may be born while others are killed."""
        for _ in range(MAX_KILL_SWEEPS):
            descendants = _descendants(self._there_before)
            if not descendants:
                return
            for process in descendants:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            for child in self.children:
                child.process.wait()
            psutil.wait_procs(descendants, timeout=0.2)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            self._hurry = True
        else:
            self._stopping = True
            raise SystemExit(128 + number)


def _dies_with_us() -> list[str]:
    """A prefix for a command: it gets SIGTERM when we die, even by SIGKILL. Empty where util-linux is not there.

    SIGTERM, since an agent that ends in order also ends the processes of its Ray, which would linger for minutes.
    """
    return ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []


def _adopt_orphans() -> None:
    """Make the kernel hand us the descendants whose own parents die, so that none escapes from our tree."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _descendants(but: Sequence[psutil.Process]) -> list[psutil.Process]:
    """All processes that descend from us, but these children of ours and what descends from them."""
    children = [child for child in psutil.Process().children() if child not in but]
    found = list(children)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            found += child.children(recursive=True)
    return found
