"""Processes that can be killed and paused at any await, on one loop in virtual time. Knows nothing of what they do.

Everything that a process schedules carries it in its context: what belongs to a dead process is never run, what
belongs to a paused one waits. Threads of a process are real ones of which one runs at a time, so that a blocking call
takes virtual time while the others go on, and a seed still says it all.
"""

import asyncio
import contextlib
import heapq
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from math import inf
from typing import Any

EPOCH_S = 1_700_000_000.0  # of virtual time, on the clock of the world
WORLD = Context()
"""The context of what belongs to no process: the network, the store, the faults."""


class Stuck(AssertionError):
    """Everybody waits for something that never comes."""


class Process:
    """A program that runs. skew_s: its wall clock minus the world's. ended_s: when it ended, by itself or not."""

    def __init__(self, name: str, *, skew_s: float = 0.0) -> None:
        self.name = name
        self.skew_s = skew_s
        self.is_alive = True
        self.is_paused = False
        self.ended_s = inf
        self.parked: list[asyncio.Handle] = []
        self.handlers: dict[int, Callable[[], Any]] = {}
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    def start(self, program: Coroutine[Any, Any, None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.create_task(program, context=self.context.copy())

    def kill(self) -> None:
        self.is_alive, self.ended_s = False, min(self.ended_s, self.loop.time())
        self.parked = []

    def signal(self, number: int) -> None:
        """As `kill` does; a process that does not handle it dies."""
        if number in self.handlers:
            self.loop.call_soon(self.handlers[number], context=self.context.copy())
        else:
            self.kill()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        parked, self.parked = self.parked, []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.ready.extend(parked)


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class Killed(BaseException):
    """The thread's process is gone; no handler of errors may catch this."""


class _Thread:
    """A real thread that runs only while the loop waits for it to block, or to end."""

    here = threading.local()
    idle: "list[_Thread]" = []  # noqa: RUF012 - kept for the next run, and the next

    def __init__(self) -> None:
        self.is_killed = False
        self._go, self._back = allocate_lock(), allocate_lock()
        self._go.acquire()
        self._back.acquire()
        self._work: Callable[[], None] | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        self.here.thread = self
        while True:
            self._go.acquire()
            assert self._work is not None
            self._work()
            self._work = None
            self._back.release()

    def begin(self, work: Callable[[], None], loop: "VirtualLoop") -> None:
        self._work, self.loop = work, loop
        self.go_on()

    def go_on(self) -> None:
        self._go.release()
        self._back.acquire()
        if self._work is None:
            self.idle.append(self)

    def wait(self) -> None:
        """Called in the thread: let the loop go on."""
        self._back.release()
        self._go.acquire()
        if self.is_killed:
            raise Killed

    def end(self) -> None:
        self.is_killed = True
        while self._work is not None:
            self.go_on()
        self.is_killed = False


def in_simulation() -> bool:
    """Whether this thread is the simulation's: its loop's, or one of its processes'."""
    return getattr(_Thread.here, "thread", None) is not None or isinstance(asyncio._get_running_loop(), VirtualLoop)


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop whose clock jumps to what is due next. Nothing comes from outside.

    errors: what nobody caught.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.num_steps = 0
        self.errors: list[str] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._busy: list[_Thread] = []
        self.set_task_factory(self._new_task)
        self.set_exception_handler(self._note_error)

    @property
    def ready(self) -> deque[asyncio.Handle]:
        return self._ready  # type: ignore[attr-defined,no-any-return]

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self.ready  # type: ignore[attr-defined]
        while scheduled and (scheduled[0]._cancelled or scheduled[0]._when <= self.now_s or not ready):
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                self.now_s = max(self.now_s, handle._when)
                ready.append(handle)
        if not ready:
            raise Stuck("everybody waits for something that never comes")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is not None and not process.is_alive:
                continue
            if process is not None and process.is_paused:
                process.parked.append(handle)
                continue
            self.num_steps += 1
            handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # it is thrown away when it is due

    def _write_to_self(self) -> None:
        pass

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _new_task(self, loop: asyncio.AbstractEventLoop, program: Any, **options: Any) -> "asyncio.Task[Any]":
        task = asyncio.Task(program, loop=loop, **options)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.append(task)
        return task

    def _note_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context['message']}: {error!r}")

    def _asyncgen_finalizer_hook(self, generator: Any) -> None:
        pass  # of a process that is gone

    def add_signal_handler(self, number: int, callback: Callable[..., Any], *arguments: Any) -> None:
        process = PROCESS.get()
        assert process is not None
        process.handlers[number] = lambda: callback(*arguments)

    def set_default_executor(self, executor: Any) -> None:
        pass  # there is a thread for every call

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        future = self.create_future()
        thread = _Thread.idle.pop() if _Thread.idle else _Thread()
        self._busy.append(thread)

        def work() -> None:
            try:
                result = function(*arguments)
            except Killed:
                return
            except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        def begin() -> None:
            thread.begin(work, self)

        self.call_soon(begin)
        return future

    def close(self) -> None:
        """Take down what dead processes have left, without letting it do anything more that counts."""
        for thread in self._busy:
            thread.end()
        for task in self._tasks:
            if not task.done():
                _close(task.get_coro())
        self._tasks = []
        super().close()


def _close(program: Any) -> None:
    with contextlib.suppress(BaseException):  # it wanted to wait for something more
        program.close()


def block(seconds: float) -> None:
    """Called in a process's thread: let virtual time pass, while the others go on."""
    thread = getattr(_Thread.here, "thread", None)
    assert thread is not None, "a blocking call on the event loop: everything else of this process stands still"
    if thread.is_killed:
        raise Killed
    thread.loop.call_later(seconds, thread.go_on)
    thread.wait()
