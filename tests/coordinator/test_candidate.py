"""A coordinator between standby and leader, around a lease in memory and the real clock."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from coordinator.candidate import Candidate
from coordinator.leadership import Leadership
from geotrain.errors import Fenced, ViewError
from geotrain.lease import Lease
from geotrain.view.keyed import Conflict
from tests.until import until

# A machine under load may hold up this process for a second: not for so long that a leader loses its lease.
LEASE_S = 2.5
DEADLINE_S = 60


class Record:
    """The lease, as a server would keep it. hangs: what the next calls wait for."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.written_s = 0.0
        self.num_writes = 0
        self.is_away = False


class Holder:
    """One coordinator's hand on it."""

    lease_s = LEASE_S

    def __init__(self, record: Record, owner: str) -> None:
        self.owner = owner
        self._record = record

    def read(self) -> Lease | None:
        self._answer()
        return self._record.lease

    def take(self, seen: Lease | None) -> Lease:
        self._answer()
        record = self._record
        is_held = seen is not None and seen.is_held and time.monotonic() - record.written_s < LEASE_S
        if seen != record.lease or is_held:
            raise Conflict("another's")
        epoch = seen.epoch + 1 if seen else 1
        return self._write(Lease(owner=self.owner, epoch=epoch, lease_s=LEASE_S, address=self.owner))

    def renew(self, epoch: int) -> None:
        self._write(self._own(epoch))

    def give_back(self, epoch: int) -> None:
        self._write(replace(self._own(epoch), owner=""))

    def _own(self, epoch: int) -> Lease:
        self._answer()
        lease = self._record.lease
        if lease is None or (lease.owner, lease.epoch) != (self.owner, epoch):
            raise Fenced("another's")
        return lease

    def _answer(self) -> None:
        if self._record.is_away:
            raise ViewError("no answer")

    def _write(self, lease: Lease) -> Lease:
        record = self._record
        record.num_writes += 1
        record.lease, record.written_s = replace(lease, generation=lease.generation + 1), time.monotonic()
        return record.lease


class Terms:
    """What a candidate's terms are: each says when it begins and ends."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    async def lead(self, epoch: int) -> None:
        await self.said.put(("leads", epoch))
        try:
            await asyncio.Event().wait()
        finally:
            self.said.put_nowait(("stops", epoch))


@asynccontextmanager
async def standing(
    record: Record, owner: str, lead: Callable[[int], Awaitable[None]]
) -> AsyncIterator["asyncio.Task[None]"]:
    leadership = Leadership(owner, LEASE_S, now_s=time.monotonic())
    holder = Holder(record, owner)
    task = asyncio.create_task(Candidate(leadership, holder, lead).run())  # type: ignore[arg-type]
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def play(scene: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(scene, DEADLINE_S))


def test_a_standby_leads_when_the_leader_is_gone_and_at_once_when_it_has_given_back():
    async def scene() -> None:
        record, first, second = Record(), Terms(), Terms()
        async with standing(record, "first", first.lead):
            assert await first.said.get() == ("leads", 1)
            async with standing(record, "second", second.lead):
                await until(lambda: record.num_writes > 6)  # longer than a lease
                assert second.said.empty()
                record.lease = replace(record.lease, owner="someone who has died", epoch=5)
                assert await second.said.get() == ("leads", 6)
                assert await first.said.get() == ("stops", 1)
            assert await second.said.get() == ("stops", 6)
            assert await first.said.get() == ("leads", 7)

    play(scene())


def test_a_leader_that_can_not_renew_stops_and_leads_again_under_a_later_epoch():
    async def scene() -> None:
        record, terms = Record(), Terms()
        async with standing(record, "me", terms.lead):
            assert await terms.said.get() == ("leads", 1)
            record.is_away = True
            assert await terms.said.get() == ("stops", 1)
            record.is_away = False
            assert await terms.said.get() == ("leads", 2)

    play(scene())


def test_a_renewal_that_hangs_does_not_keep_the_jobs_from_being_stopped(monkeypatch):
    released = threading.Event()

    async def scene() -> None:
        terms = Terms()
        monkeypatch.setattr(Holder, "renew", lambda *_: released.wait(DEADLINE_S))
        async with standing(Record(), "me", terms.lead):
            assert await terms.said.get() == ("leads", 1)
            assert await terms.said.get() == ("stops", 1)
            released.set()

    play(scene())


def test_a_term_that_ends_by_itself_is_a_bug_and_is_raised():
    async def scene() -> None:
        async def broken(epoch: int) -> None:
            raise ZeroDivisionError

        async with standing(Record(), "me", broken) as task:
            await asyncio.wait([task])
            with pytest.raises(ZeroDivisionError):
                task.result()

    play(scene())
