"""Stands for leadership: feeds the leadership machine, keeps the lease, runs the jobs of a term. Knows no job."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from coordinator import leadership
from coordinator.leadership import Instruction, Leadership
from coordinator.lease import LeaseHolder
from geotrain.errors import Fenced, ViewError

logger = logging.getLogger(__name__)


class Candidate:
    """One coordinator between standby and leader.

    lead: runs a term under the epoch that it is given, until it is cancelled.
    """

    def __init__(self, machine: Leadership, holder: LeaseHolder, lead: Callable[[int], Awaitable[None]]) -> None:
        self._machine = machine
        self._holder = holder
        self._lead = lead
        self._events: asyncio.Queue[leadership.Event] = asyncio.Queue()
        self._term: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Stand until cancelled; then stop the jobs and give the lease back. Raises what a term raises: a bug."""
        said = ""
        try:
            while True:
                event = await self._next()
                for instruction in self._machine.handle(event, now_s=time.monotonic()):
                    self._perform(instruction)
                if self._term is not None and self._term.done() and not self._term.cancelled():
                    self._term.result()
                if (now := f"{self._machine.role}: {self._machine.reason}") != said:
                    said = now
                    logger.info("%s", said)
        finally:
            epoch = self._machine.epoch
            await self._end_term()
            if epoch:
                await asyncio.shield(asyncio.to_thread(self._give_back, epoch))

    async def _next(self) -> leadership.Event:
        try:
            left_s = max(0.0, self._machine.due_s - time.monotonic())
            async with asyncio.timeout(min(left_s, self._holder.lease_s)):
                return await self._events.get()
        except TimeoutError:
            return leadership.Tick()

    def _perform(self, instruction: Instruction) -> None:
        match instruction:
            case leadership.Lead(epoch):
                self._term = asyncio.create_task(self._run_term(epoch))
                self._term.add_done_callback(lambda _: self._events.put_nowait(leadership.Tick()))
            case leadership.Stop():
                self._keep(asyncio.create_task(self._stop()))
            case _:
                self._keep(asyncio.create_task(self._ask(instruction)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _run_term(self, epoch: int) -> None:
        await self._lead(epoch)
        raise AssertionError("a term runs until it is cancelled")

    async def _stop(self) -> None:
        await self._end_term()
        self._events.put_nowait(leadership.Stopped())

    async def _end_term(self) -> None:
        if self._term is not None:
            self._term.cancel()
            await asyncio.wait([self._term])
            self._term = None

    async def _ask(self, instruction: Instruction) -> None:
        try:
            answer = await asyncio.to_thread(self._call, instruction)
        except Fenced as error:
            answer = leadership.TakenOver(error.what)
        except ViewError as error:
            answer = leadership.Unanswered(error.what)
        self._events.put_nowait(answer)

    def _call(self, instruction: Instruction) -> leadership.Event:
        asked_s = time.monotonic()
        match instruction:
            case leadership.Take(seen):
                return leadership.Taken(self._holder.take(seen), asked_s)
            case leadership.Renew(epoch):
                self._holder.renew(epoch)
                return leadership.Renewed(asked_s)
        return leadership.Looked(self._holder.read())

    def _give_back(self, epoch: int) -> None:
        try:
            self._holder.give_back(epoch)
            logger.info("the lease is given back")
        except (Fenced, ViewError) as error:
            logger.warning("the lease could not be given back, it runs out by itself: %s", error)
