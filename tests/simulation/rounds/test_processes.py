"""Processes, threads and time, as the simulation of rounds has them."""

import asyncio
import time
from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest

from tests.simulation.rounds.network import Network
from tests.simulation.rounds.patches import patched
from tests.simulation.rounds.processes import EPOCH_S, Process, Stuck, VirtualLoop


def run(main: Coroutine[Any, Any, Any]) -> Any:
    loop = VirtualLoop()
    with patched(loop, Network(Random(0), pytest.fail, print), seed=0):
        try:
            return loop.run_until_complete(main)
        finally:
            loop.close()


async def tick(said: list[float]) -> None:
    while True:
        said.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1.0)


def test_an_hour_takes_no_time_and_blocking_calls_take_virtual_time():
    async def main() -> tuple[float, float]:
        await asyncio.sleep(3600)
        began_s = time.monotonic()
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 5.0) for _ in range(3)))
        return time.time() - EPOCH_S, time.monotonic() - began_s

    assert run(main()) == (3605.0, 5.0)


def test_a_killed_process_does_nothing_more_not_even_in_its_threads():
    said: list[float] = []

    def work() -> None:
        time.sleep(2.5)
        said.append(-1.0)

    async def program() -> None:
        await asyncio.gather(tick(said), asyncio.to_thread(work))

    async def main() -> None:
        process = Process("mortal")
        process.start(program())
        await asyncio.sleep(1.5)
        process.kill()
        await asyncio.sleep(10)

    run(main())
    assert said == [0.0, 1.0]


def test_a_paused_process_goes_on_later_and_finds_that_time_has_passed():
    said: list[float] = []

    async def main() -> None:
        process = Process("sleepy")
        process.start(tick(said))
        await asyncio.sleep(1.5)
        process.pause()
        await asyncio.sleep(8.0)
        process.resume()
        await asyncio.sleep(1.2)

    run(main())
    assert said == [0.0, 1.0, 9.5, 10.5]


def test_the_clocks_of_processes_may_differ():
    said: list[float] = []

    async def program() -> None:
        said.append(time.time() - EPOCH_S)

    async def main() -> None:
        Process("late", skew_s=-30.0).start(program())
        await asyncio.sleep(1.0)

    run(main())
    assert said == [-30.0]


def test_a_blocking_call_on_the_loop_is_told():
    async def main() -> None:
        time.sleep(1.0)  # noqa: ASYNC251 - what is to be found

    with pytest.raises(AssertionError, match="a blocking call on the event loop"):
        run(main())


def test_who_waits_for_what_never_comes_is_told():
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        run(main())
