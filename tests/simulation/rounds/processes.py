"""Processes that can be killed and paused at any await, on one loop in virtual time. Knows nothing of what they do.

Everything that a process schedules carries it in its context: what belongs to a dead process is never run, what
belongs to a paused one waits. Threads of a process are greenlets, so that a blocking call takes virtual time while the
others go on, and a seed still says it all.
"""

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from math import inf
from typing import Any

from greenlet import getcurrent, greenlet

EPOCH_S = 1_700_000_000.0  # of virtual time, on the clock of the world
WORLD = Context()
"""The context of what belongs to no process: the network, the store, the faults."""


class Stuck(AssertionError):
    """Everybody waits for something that never comes."""


class _Handle:
    """A call that is due at a time, in the context of whom it belongs to: asyncio's, without what a run never asks."""

    __slots__ = ("_arguments", "_callback", "_is_cancelled", "_when_s", "context")

    def __init__(self, when_s: float, callback: Callable[..., Any], arguments: Any, context: Context | None) -> None:
        self.context = copy_context() if context is None else context
        self._callback = callback
        self._arguments = arguments
        self._when_s = when_s
        self._is_cancelled = False

    def run(self) -> None:
        self.context.run(self._callback, *self._arguments)

    def when(self) -> float:
        return self._when_s

    def cancel(self) -> None:
        self._is_cancelled, self._arguments = True, ()

    def cancelled(self) -> bool:
        return self._is_cancelled


class Process:
    """A program that runs. skew_s: its wall clock minus the world's. ended_s: when it ended, by itself or not."""

    def __init__(self, name: str, *, skew_s: float = 0.0) -> None:
        self.name = name
        self.skew_s = skew_s
        self.is_alive = True
        self.is_paused = False
        self.ended_s = inf
        self.parked: list[_Handle] = []
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


class _Thread(greenlet):
    """A blocking call, which runs only while the loop waits for it to block, or to end."""

    def __init__(self, work: Callable[[], None], loop: "VirtualLoop") -> None:
        super().__init__(work)
        self.loop = loop
        self.is_killed = False

    def go_on(self) -> None:
        """Called in the loop: which is not to be seen from within, as it is not from a thread."""
        asyncio._set_running_loop(None)
        self.switch()
        asyncio._set_running_loop(self.loop)

    def wait(self) -> None:
        """Called in the thread: let the loop go on."""
        assert self.parent is not None
        self.parent.switch()
        if self.is_killed:
            raise Killed

    def end(self) -> None:
        self.is_killed = True
        while self and not self.dead:
            self.switch()


class _Task(asyncio.Task[Any]):
    """A task whose place in a set, and so the order in which a set of tasks is cancelled, is the seed's."""

    def __init__(self, program: Any, *, number: int, **options: Any) -> None:
        self.number = number  # it is hashed from the beginning
        super().__init__(program, **options)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop whose clock jumps to what is due next. Nothing comes from outside.

    errors: what nobody caught.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.errors: list[str] = []
        self.ready: deque[_Handle] = deque()
        self._due: list[tuple[float, int, _Handle]] = []  # a heap
        self._num_due = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._threads: list[_Thread] = []
        self.set_task_factory(self._new_task)
        self.set_exception_handler(self._note_error)

    def time(self) -> float:
        return self.now_s

    def call_soon(self, callback: Any, *arguments: Any, context: Context | None = None) -> Any:
        handle = _Handle(self.now_s, callback, arguments, context)
        self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(self, when_s: float, callback: Any, *arguments: Any, context: Context | None = None) -> Any:
        handle = _Handle(when_s, callback, arguments, context)
        self._num_due += 1  # what is due at the same moment is done in this order
        heapq.heappush(self._due, (when_s, self._num_due, handle))
        return handle

    def call_later(self, delay_s: float, callback: Any, *arguments: Any, context: Context | None = None) -> Any:
        return self.call_at(self.now_s + delay_s, callback, *arguments, context=context)

    def _run_once(self) -> None:
        ready, of = self.ready, PROCESS
        while not self._stopping:  # type: ignore[attr-defined]
            handle = ready.popleft() if ready else self._next_due()
            if handle._is_cancelled:
                continue
            process = handle.context.get(of)
            if process is None or (process.is_alive and not process.is_paused):
                self._run(handle)
            elif process.is_alive:
                process.parked.append(handle)

    def _run(self, handle: _Handle) -> None:
        try:
            handle.run()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - it is what we look for
            self.call_exception_handler({"message": "in a callback", "exception": error})

    def _next_due(self) -> _Handle:
        """What is due next, now that nobody has anything to do before."""
        if not self._due:
            raise Stuck("everybody waits for something that never comes")
        when_s, _, handle = heapq.heappop(self._due)
        if not handle._is_cancelled:
            self.now_s = max(self.now_s, when_s)
        return handle

    def _write_to_self(self) -> None:
        pass

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _new_task(self, loop: asyncio.AbstractEventLoop, program: Any, **options: Any) -> "asyncio.Task[Any]":
        task = _Task(program, number=len(self._tasks), loop=loop, **options)
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
        pass  # every call has a thread

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        future = self.create_future()

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

        thread = _Thread(work, self)
        self._threads.append(thread)
        self.call_soon(thread.go_on)
        return future

    def close(self) -> None:
        """Take down what dead processes have left, without letting it do anything more that counts."""
        for thread in self._threads:
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
    thread = getcurrent()
    assert isinstance(thread, _Thread), "a blocking call on the event loop: all else of this process stands still"
    if thread.is_killed:
        raise Killed
    thread.loop.call_later(seconds, thread.go_on)
    thread.wait()
