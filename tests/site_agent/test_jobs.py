"""Several jobs at one site, with work that blocks until the test lets it go on."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import site_agent.jobs
from geotrain.errors import GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.updates.codec import Layout
from site_agent.config import SiteAgentConfig, SiteConfig
from site_agent.held import HeldUpdates
from site_agent.jobs import SiteJobs
from tests.until import until

DEADLINE_S = 60


class Gates:
    """Holds back the training of the jobs that are named, until it is opened."""

    def __init__(self) -> None:
        self.closed: dict[str, threading.Event] = {}
        self.begun: list[tuple[str, str]] = []
        self.ended: list[str] = []

    def close(self, job: str) -> threading.Event:
        return self.closed.setdefault(job, threading.Event())


class BlockedWork:
    """Stands in for a job's work: says what it was asked."""

    gates: Gates

    def __init__(self, request: pb.Prepare, *_: Any) -> None:
        if request.task_json == "no job":
            raise GeotrainError("task: it can't be read")
        self.id = request.job

    def handle(self, kind: str, body: Any) -> Iterator[Any]:
        self.gates.begun.append((self.id, kind))
        if kind == "train":
            if body.round == 13:
                raise GeotrainError("no memory is left")
            if body.round == 14:
                raise ZeroDivisionError
            if gate := self.gates.closed.get(self.id):
                assert gate.wait(DEADLINE_S)
        yield pb.FromAgent(prepared=pb.Prepared(job=self.id, local_rows=getattr(body, "round", 0)))

    def progress(self, phase: str, number: int) -> pb.Progress:
        return pb.Progress(job=self.id, phase=phase, round=number)

    def end(self) -> None:
        self.gates.ended.append(self.id)
        if gate := self.gates.closed.get(f"end of {self.id}"):
            assert gate.wait(DEADLINE_S)


class Stream:
    """Where answers go; keeps them. shown: by job, the phase that was told last."""

    def __init__(self) -> None:
        self.is_open = True
        self.sent: list[pb.FromAgent] = []
        self.shown: dict[str, str] = {}

    async def send(self, message: pb.FromAgent) -> None:
        if self.is_open and message.HasField("progress"):
            self.shown[message.progress.job] = message.progress.phase
        elif self.is_open:
            self.sent.append(message)

    def close(self) -> None:
        self.is_open = False

    def answers(self, job: str) -> list[int]:
        """Of the rounds that were answered."""
        return [one.prepared.local_rows for one in self.sent if one.HasField("prepared") and one.prepared.job == job]

    def reasons(self, job: str) -> list[str]:
        return [one.failed.reason for one in self.sent if one.HasField("failed") and one.failed.job == job]

    def waits(self, job: str) -> list[str]:
        return [one.waiting.reason for one in self.sent if one.HasField("waiting") and one.waiting.job == job]


class Site:
    def __init__(self, spool: Path, max_jobs: int) -> None:
        self.held = HeldUpdates(spool, "ewr")
        site = SiteConfig(name="ewr", rack=1, data_dir="nowhere", spool_dir=str(spool), max_jobs=max_jobs)
        self.jobs = SiteJobs(SiteAgentConfig(site=site), None, None)  # type: ignore[arg-type]

    async def prepare(self, outlet: Stream, *jobs: str) -> None:
        for job in jobs:
            await self.jobs.take(pb.ToAgent(prepare=pb.Prepare(job=job)), outlet)
            await until(lambda job=job: outlet.answers(job) == [0] or outlet.reasons(job) or outlet.waits(job))

    async def train(self, outlet: Stream, job: str, number: int) -> None:
        await self.jobs.take(pb.ToAgent(train=pb.Train(job=job, round=number)), outlet)

    async def end(self, outlet: Stream, job: str) -> None:
        await self.jobs.take(pb.ToAgent(job_ended=pb.JobEnded(job=job, status="cancelled")), outlet)

    def keep(self, job: str) -> None:
        tensors = {"w": torch.ones(2)}
        self.held.write(pb.UpdateHeader(job=job, site="ewr", round=1), Layout.of(tensors), tensors.__getitem__)


Play = Callable[..., None]


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Gates:
    BlockedWork.gates = Gates()
    monkeypatch.setattr(site_agent.jobs, "JobWork", BlockedWork)
    return BlockedWork.gates


@pytest.fixture
def play(gates: Gates, tmp_path: Path) -> Play:
    """Runs a scene; then every job ends."""

    def run(scene: Callable[[Site], Awaitable[None]], max_jobs: int = 4) -> None:
        async def scenario() -> None:
            site = Site(tmp_path / "spool", max_jobs)
            await scene(site)
            for gate in gates.closed.values():
                gate.set()
            for job in site.jobs.known():
                await site.end(Stream(), job)

        asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))

    return run


def test_a_job_that_trains_for_long_does_not_hold_up_another_one(play, gates):
    async def scene(site: Site) -> None:
        outlet = Stream()
        await site.prepare(outlet, "slow", "quick")
        gates.close("slow")
        await site.train(outlet, "slow", 1)
        await until(lambda: ("slow", "train") in gates.begun)
        await site.train(outlet, "quick", 1)
        await until(lambda: outlet.answers("quick") == [0, 1])
        assert outlet.answers("slow") == [0]
        assert {progress.job for progress in site.jobs.progress()} == {"slow", "quick"}

    play(scene)


def test_the_messages_of_a_job_are_answered_in_their_order(play, gates):
    async def scene(site: Site) -> None:
        outlet = Stream()
        await site.prepare(outlet, "job")
        gate = gates.close("job")
        for number in (1, 2, 3):
            await site.train(outlet, "job", number)
        await until(lambda: ("job", "train") in gates.begun)
        assert gates.begun.count(("job", "train")) == 1
        gate.set()
        await until(lambda: outlet.answers("job") == [0, 1, 2, 3])

    play(scene)


async def paused(site: Site, outlet: Stream, job: str) -> None:
    await site.jobs.take(pb.ToAgent(job_paused=pb.JobPaused(job=job)), outlet)


def test_a_job_too_many_waits_for_a_place_and_says_so_until_one_is_paused_or_ends(play, gates):
    async def scene(site: Site) -> None:
        outlet = Stream()
        await site.prepare(outlet, "first", "second", "third", "fourth")
        reason = "it waits for a place: this site works on 2 of 2 jobs (site.max_jobs)"
        assert (outlet.waits("third"), outlet.waits("fourth")) == ([reason], [reason])
        await paused(site, outlet, "first")
        await until(lambda: outlet.answers("third") == [0])
        assert (outlet.answers("fourth"), gates.ended) == ([], ["first"])
        assert outlet.shown["first"] == "idle"
        await site.end(outlet, "second")
        await until(lambda: outlet.answers("fourth") == [0])

    play(scene, max_jobs=2)


def test_a_job_that_waits_and_is_paused_or_ends_or_whose_stream_is_gone_is_not_begun(play, gates):
    async def scene(site: Site) -> None:
        before, outlet = Stream(), Stream()
        await site.prepare(before, "first", "gone")
        before.close()
        await site.prepare(outlet, "first", "ended", "paused", "last")
        await site.end(outlet, "ended")
        await paused(site, outlet, "paused")
        await site.end(outlet, "first")
        await until(lambda: outlet.answers("last") == [0])
        assert {job for job, _ in gates.begun} == {"first", "last"}

    play(scene, max_jobs=1)


def test_a_job_that_still_works_though_its_stream_is_gone_makes_room_when_it_is_done(play, gates):
    async def scene(site: Site) -> None:
        before, outlet = Stream(), Stream()
        await site.prepare(before, "works")
        gate = gates.close("works")
        await site.train(before, "works", 1)
        await until(lambda: ("works", "train") in gates.begun)
        before.close()
        await site.prepare(outlet, "new")
        assert len(outlet.waits("new")) == 1
        gate.set()
        await until(lambda: outlet.answers("new") == [0])

    play(scene, max_jobs=1)


def test_a_job_that_is_asked_for_anew_while_room_is_made_for_it_begins_on_the_new_stream(play, gates):
    async def scene(site: Site) -> None:
        first, before, outlet = Stream(), Stream(), Stream()
        await site.prepare(first, "idle")
        first.close()
        gate = gates.close("end of idle")
        asked = asyncio.create_task(site.prepare(before, "new"))
        await until(lambda: gates.ended == ["idle"])
        before.close()
        anew = asyncio.create_task(site.prepare(outlet, "new"))
        await asyncio.sleep(0)  # it is taken, and waits for the one before
        gate.set()
        await anew
        assert outlet.answers("new") == [0]
        asked.cancel()

    play(scene, max_jobs=1)


def test_no_more_jobs_wait_than_may(play, gates, monkeypatch):
    monkeypatch.setattr(site_agent.jobs, "MAX_WAITING", 1)

    async def scene(site: Site) -> None:
        outlet = Stream()
        await site.prepare(outlet, "first", "second", "second", "third")
        assert len(outlet.waits("second")) == 2
        assert outlet.reasons("third") == ["1 jobs wait for a place at this site already"]

    play(scene, max_jobs=1)


def test_jobs_of_a_stream_that_is_gone_make_room_but_not_one_that_still_works(play, gates):
    async def scene(site: Site) -> None:
        before, outlet = Stream(), Stream()
        await site.prepare(before, "works", "idle")
        gates.close("works")
        await site.train(before, "works", 1)
        await until(lambda: ("works", "train") in gates.begun)
        before.close()
        await site.prepare(outlet, "new")
        assert outlet.answers("new") == [0]
        assert gates.ended == ["idle"]

    play(scene, max_jobs=2)


def test_the_end_of_a_job_stops_its_work_at_once_and_drops_its_update(play, gates):
    async def scene(site: Site) -> None:
        outlet = Stream()
        await site.prepare(outlet, "job")
        gates.close("job")
        await site.train(outlet, "job", 1)
        await site.train(outlet, "job", 2)
        await until(lambda: ("job", "train") in gates.begun)
        site.keep("job")
        await site.end(outlet, "job")
        assert gates.ended == ["job"]
        assert site.jobs.known() == []
        gates.closed["job"].set()
        await site.train(outlet, "job", 3)
        assert outlet.reasons("job") == ["job job was not prepared by this agent"]
        assert outlet.answers("job") == [0]
        assert gates.begun.count(("job", "train")) == 1

    play(scene)


def test_the_update_of_a_job_that_ended_while_the_agent_was_away_is_dropped(play):
    async def scene(site: Site) -> None:
        site.keep("past")
        assert site.jobs.known() == ["past"]
        await site.end(Stream(), "past")
        assert site.jobs.known() == []

    play(scene)


def test_what_a_stream_asked_that_is_gone_is_not_begun_and_what_was_begun_comes_to_its_end(play, gates):
    async def scene(site: Site) -> None:
        before, outlet = Stream(), Stream()
        await site.prepare(before, "job")
        gate = gates.close("job")
        await site.train(before, "job", 1)
        await site.train(before, "job", 2)
        await until(lambda: ("job", "train") in gates.begun)
        before.close()
        await site.jobs.take(pb.ToAgent(prepare=pb.Prepare(job="job")), outlet)
        gate.set()
        await until(lambda: outlet.answers("job") == [0])
        assert gates.begun == [("job", "prepare"), ("job", "train"), ("job", "prepare")]
        assert before.answers("job") == [0]

    play(scene)


@pytest.mark.parametrize(("number", "reason"), [(13, "no memory is left"), (14, "internal error: ZeroDivisionError()")])
def test_what_a_job_can_not_do_is_said_with_its_round_and_the_job_goes_on(play, number, reason):
    async def scene(site: Site) -> None:
        outlet = Stream()
        await site.prepare(outlet, "job")
        await site.train(outlet, "job", number)
        await site.train(outlet, "job", 1)
        await until(lambda: outlet.answers("job") == [0, 1])
        assert outlet.reasons("job") == [reason]
        assert [one.failed.round for one in outlet.sent if one.HasField("failed")] == [number]

    play(scene)


def test_what_is_no_job_is_refused(play):
    async def scene(site: Site) -> None:
        outlet = Stream()
        await site.jobs.take(pb.ToAgent(prepare=pb.Prepare(job="job", task_json="no job")), outlet)
        assert outlet.reasons("job") == ["task: it can't be read"]
        assert site.jobs.known() == []

    play(scene)
