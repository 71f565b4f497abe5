"""The view of a simulation: the real one over a store that may not answer, and forgets nothing."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from geotrain.errors import ViewError
from geotrain.view.connect import View
from geotrain.view.keyed import Conflict
from geotrain.view.query import read_set
from geotrain.view.refusals import InDoubt
from tests.simulation.rounds.network import Network
from tests.simulation.rounds.patches import patched
from tests.simulation.rounds.processes import Process, VirtualLoop
from tests.simulation.rounds.store import VIEW, Store, Trouble


def play(body: Callable[[View, Store], None]) -> list[str]:
    """What was written, in the order in which it took effect."""
    writes: list[str] = []
    store = Store(Random(0), lambda write: writes.append(str(write.after["value"])))
    loop = VirtualLoop()

    async def program(done: "asyncio.Future[None]") -> None:
        try:
            await asyncio.to_thread(body, store.view(VIEW), store)
            await asyncio.sleep(60)
        except BaseException as error:  # noqa: BLE001 - it is told to the test
            done.set_exception(error)
        else:
            done.set_result(None)

    async def main() -> None:
        done = asyncio.get_running_loop().create_future()
        Process("writer").start(program(done))
        await done

    with patched(loop, Network(Random(0), pytest.fail, print), seed=0):
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
    return writes


def put(view: View, value: str, generation: int | None = None, **options: Any) -> None:
    view.put("s", "k", {"value": value}, generation=generation, **options)


def test_a_compare_and_set_holds_only_for_the_generation_that_is_there():
    def body(view: View, store: Store) -> None:
        put(view, "first", 0)
        with pytest.raises(Conflict):
            put(view, "second", 0)
        put(view, "third", 1)
        assert view.get("s", "k") == ({"value": "third"}, 2)
        assert view.get_many("s", ["k", "other"])[1] is None
        assert read_set(view, "s", ["value"]) == [{"value": "third"}]
        assert read_set(view, "t", ["value"]) == []

    assert play(body) == ["first", "third"]


@pytest.mark.parametrize(("fate", "applied"), [("lost", []), ("applied", ["first"]), ("late", ["first"])])
def test_a_write_without_an_answer_was_applied_or_not_or_is_only_later(fate, applied):
    def body(view: View, store: Store) -> None:
        store.troubles["writer"] = Trouble(unanswered=[fate])
        with pytest.raises(InDoubt):
            put(view, "first", 0)
        assert (view.get("s", "k") is not None) == (fate == "applied")

    assert play(body) == applied


def test_a_record_that_was_written_a_moment_ago_is_not_idle():
    def body(view: View, store: Store) -> None:
        put(view, "first", 0)
        with pytest.raises(Conflict):
            put(view, "second", 1, idle_s=5.0)
        store.records["s", "k"].updated_s -= 5.0
        put(view, "third", 1, idle_s=5.0)

    assert play(body) == ["first", "third"]


def test_a_store_that_is_away_is_waited_for_so_long_and_no_longer():
    def body(view: View, store: Store) -> None:
        store.troubles["writer"] = Trouble(is_away=True)
        with pytest.raises(ViewError, match="partition is unavailable"):
            put(view, "first")

    assert play(body) == []
