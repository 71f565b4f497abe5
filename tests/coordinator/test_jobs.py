"""Jobs that are launched, paused, resumed and cancelled over a real view, with no agent connected: all gather."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import coordinator.jobs
from coordinator.config import CoordinatorConfig
from coordinator.jobs import Jobs, NoSuchJob, TooManyJobs
from coordinator.ledger import JOBS, Ledger, listed
from coordinator.links import Links
from geotrain.errors import ConfigError
from geotrain.updates.chunks import FREE, PART, spool_name
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from geotrain.view.refusals import Refusal
from tests.conftest import simulated_cluster
from tests.coordinator.leading import EPOCHS
from tests.coordinator.test_service import job_json
from tests.until import until

DEADLINE_S = 120


class AwayView:
    """A view that can't be reached while it is away."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        if self.is_away and name in ("get", "get_many", "put", "exist"):
            raise Refusal("writing: no connection to the cluster")
        return getattr(self._view, name)


def described(model: str, **changes: object) -> str:
    job = json.loads(job_json(gather_deadline_s=1000.0, **changes))
    job["task"]["name"] = model
    return json.dumps(job)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    """A view of this module's own: a coordinator takes up every unfinished job that it finds."""
    with (
        simulated_cluster(tmp_path_factory.mktemp("cluster")) as hosts,
        connect(ViewConfig(hosts=hosts, ride_through_s=2)) as view,
    ):
        yield view


class Leader:
    """What the coordinator's daemon does with its jobs, one term after the other."""

    def __init__(self, view: View, spool: Path) -> None:
        self.view = view
        self._spool = spool

    @asynccontextmanager
    async def term(self, view: Any = None, **config: Any) -> AsyncIterator[Jobs]:
        settings = CoordinatorConfig(view=self.view.config, spool_dir=str(self._spool), **config)
        jobs = Jobs(settings, view or self.view, Links(), epoch=next(EPOCHS))
        await jobs.recover()
        running = asyncio.create_task(jobs.run())
        try:
            yield jobs
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    def status(self, job: str) -> tuple[str, str]:
        facts = Ledger(self.view, job, epoch=0).facts()
        return facts.status, facts.reason


Play = Callable[[Callable[[Leader], Awaitable[None]]], None]


@pytest.fixture
def play(view, tmp_path) -> Play:
    """Runs a scene, and cancels every job that it leaves."""

    def run(scene: Callable[[Leader], Awaitable[None]]) -> None:
        leader = Leader(view, tmp_path / "spool")

        async def scenario() -> None:
            await scene(leader)
            async with leader.term() as jobs:
                for job in list(jobs.runners):
                    await jobs.control(job, "cancel", "the test is over")

        asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))

    return run


def gathering(jobs: Jobs, *names: str) -> bool:
    """Whether these, and no others, run."""
    running = {name for name in jobs.runners if jobs.running(name)}
    return running == set(names) and all(jobs.runners[name].machine for name in names)


def test_several_jobs_run_at_once_and_the_next_one_starts_when_one_has_stopped(play):
    async def scene(leader: Leader) -> None:
        async with leader.term(max_running_jobs=2, max_queued_jobs=1) as jobs:
            first, second, third = [await jobs.launch(described(model)) for model in ("ma", "mb", "mc")]
            await until(lambda: gathering(jobs, first, second))
            assert leader.status(third) == ("queued", "")
            with pytest.raises(TooManyJobs, match="max_queued_jobs"):
                await jobs.launch(described("md"))
            await jobs.control(first, "cancel", "enough")
            await until(lambda: gathering(jobs, second, third))

    play(scene)


def test_two_jobs_of_one_model_run_one_after_the_other(play):
    async def scene(leader: Leader) -> None:
        async with leader.term() as jobs:
            first, second, other = [await jobs.launch(described(model)) for model in ("same", "same", "other")]
            await until(lambda: gathering(jobs, first, other))
            assert jobs.runners[second].facts.status == "queued"
            await jobs.control(first, "pause", "later")
            await until(lambda: gathering(jobs, second, other))

    play(scene)


def test_a_paused_job_stays_paused_through_a_restart_until_it_is_resumed(play):
    async def scene(leader: Leader) -> None:
        async with leader.term() as jobs:
            job = await jobs.launch(described("paused"))
            await until(lambda: gathering(jobs, job))
            assert await jobs.control(job, "pause", "kim: the line is needed") == ("paused", "kim: the line is needed")
            assert await jobs.control(job, "pause", "asked again") == ("paused", "kim: the line is needed")
            assert leader.status(job) == ("paused", "kim: the line is needed")
        async with leader.term() as jobs:
            assert jobs.runners[job].facts.status == "paused"
            assert gathering(jobs)
            assert await jobs.control(job, "resume", "") == ("queued", "")
            await until(lambda: gathering(jobs, job))
            assert leader.status(job) == ("running", "")
            assert (await jobs.control(job, "resume", ""))[0] == "running"

    play(scene)


@pytest.mark.parametrize("state", ["running", "queued", "paused"])
def test_a_job_can_be_cancelled_whatever_it_does_and_its_followers_are_told(play, state):
    async def scene(leader: Leader) -> None:
        async with leader.term(max_running_jobs=1) as jobs:
            if state == "queued":
                await jobs.launch(described("before"))
            job = await jobs.launch(described("cancelled"))
            if state == "running":
                await until(lambda: gathering(jobs, job))
            elif state == "paused":
                await jobs.control(job, "pause", "kim")
            followed = asyncio.create_task(last_event(jobs, job))
            assert await jobs.control(job, "cancel", "kim: a mistake") == ("cancelled", "kim: a mistake")
            assert await jobs.control(job, "cancel", "again") == ("cancelled", "kim: a mistake")
            assert (await jobs.control(job, "resume", ""))[0] == "cancelled"
            ended = (await followed).ended
            assert (ended.status, ended.reason) == ("cancelled", "kim: a mistake")
            assert leader.status(job) == ("cancelled", "kim: a mistake")
        async with leader.term() as jobs:
            assert job not in jobs.runners
            assert (await last_event(jobs, job)).ended.status == "cancelled"

    play(scene)


async def last_event(jobs: Jobs, job: str) -> Any:
    runner = await jobs.find(job)
    assert runner is not None
    return [event async for event in runner.log.follow()][-1]


def test_a_job_that_nobody_launched_can_not_be_paused(play):
    async def scene(leader: Leader) -> None:
        async with leader.term() as jobs:
            with pytest.raises(NoSuchJob, match="no job 'nothing'"):
                await jobs.control("nothing", "pause", "")

    play(scene)


def test_a_launch_that_is_sent_again_is_the_same_job_also_to_the_next_leader_and_after_its_end(play, view):
    async def scene(leader: Leader) -> None:
        async with leader.term() as jobs:
            job = await jobs.launch(described("once"), "request-1")
            assert await asyncio.gather(*(jobs.launch(described("once"), "request-1") for _ in range(3))) == [job] * 3
        async with leader.term() as jobs:
            assert await jobs.launch(described("once"), "request-1") == job
            await until(lambda: gathering(jobs, job))
            await jobs.control(job, "cancel", "")
        async with leader.term() as jobs:
            assert await jobs.launch(described("once"), "request-1") == job
            await jobs.launch(described("once"), "request-2")

    play(scene)
    rows = view.scan(JOBS, {"job": "string"}).read_all()["job"].to_pylist()
    assert sorted(row for row in rows if row.startswith("once-")) == ["once-request-1", "once-request-2"]


@pytest.mark.parametrize(
    ("request_id", "reason"), [("taken", "another configuration"), ("No Spaces!", "request_id must be")]
)
def test_a_request_id_that_means_another_job_or_is_none_is_refused(play, request_id, reason):
    async def scene(leader: Leader) -> None:
        async with leader.term() as jobs:
            await jobs.launch(described("first"), "taken")
            with pytest.raises(ConfigError, match=reason):
                await jobs.launch(described("first", rounds=7), request_id)

    play(scene)


def test_a_job_that_can_not_go_on_here_waits_with_the_reason_until_it_can(play):
    async def scene(leader: Leader) -> None:
        async with leader.term() as jobs:
            job = await jobs.launch(described("moved", sites=["ewr", "jfk"]))
        async with leader.term(sites=["ewr", "lga"]) as jobs:
            status, reason = leader.status(job)
            assert status == "paused"
            assert "it can't go on here: sites: jfk unknown to this coordinator" in reason
            with pytest.raises(ConfigError, match="jfk unknown"):
                await jobs.control(job, "resume", "")
        async with leader.term() as jobs:
            await jobs.control(job, "resume", "")
            await until(lambda: gathering(jobs, job))

    play(scene)


def test_a_job_waits_for_a_view_that_is_away_and_is_not_failed_by_it(play):
    async def scene(leader: Leader) -> None:
        view = AwayView(leader.view)
        async with leader.term(view) as jobs:
            view.is_away, runner = False, None
            job = await jobs.launch(described("patient"))
            runner = jobs.runners[job]
            await until(lambda: gathering(jobs, job))
            view.is_away = True
            pausing = asyncio.create_task(jobs.control(job, "pause", "kim"))
            await until(lambda: bool(runner.waiting))
            assert "no connection to the cluster" in runner.waiting
            assert not pausing.done()
            view.is_away = False
            assert (await pausing)[0] == "paused"
            assert runner.waiting == ""
            await jobs.control(job, "resume", "")
            await until(lambda: gathering(jobs, job))

    play(scene)


def test_what_was_asked_is_done_though_who_asked_hangs_up(play):
    async def scene(leader: Leader) -> None:
        async with leader.term() as jobs:
            job = await jobs.launch(described("hung-up"))
            await until(lambda: gathering(jobs, job))
            asking = asyncio.create_task(jobs.control(job, "cancel", "kim"))
            await asyncio.sleep(0)
            asking.cancel()
            await until(lambda: jobs.runners[job].log.ended)
            assert leader.status(job)[0] == "cancelled"

    play(scene)


def test_a_new_term_clears_what_others_have_spooled_and_nothing_else(play, tmp_path):
    spool = tmp_path / "spool"
    whole = Path(spool_name("ewr", 1, bytes(16)))
    names = [whole, whole.with_suffix(PART), whole.with_suffix(FREE)]
    left = [spool / job / name for job in ("forgotten", "ended") for name in names]
    kept = ("notes.txt", "forgotten/notes.txt", "more/deep/a.part", "models/flights.safetensors")
    others = [spool / name for name in kept]
    for path in (*left, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    async def scene(leader: Leader) -> None:
        async with leader.term():
            assert [path for path in sorted(spool.rglob("*.*")) if path.is_file()] == sorted(others)
            assert not (spool / "ended").exists()

    play(scene)


def test_jobs_that_this_leader_has_not_run_are_listed_from_the_view(play, monkeypatch):
    monkeypatch.setattr(coordinator.jobs, "MAX_LISTED", 1)

    async def scene(leader: Leader) -> None:
        async with leader.term() as jobs:
            names = [await jobs.launch(described(model)) for model in ("la", "lb", "lc")]
            for job in names[:2]:
                await jobs.control(job, "cancel", "a mistake")
        async with leader.term() as jobs:
            [past], num_older = await jobs.past()
            assert num_older == len(listed(leader.view)) - len(jobs.runners) - 1
            assert num_older > 0, "the one that was cancelled before it"
            assert (past["job"], past["status"], past["reason"]) == (names[1], "cancelled", "a mistake")
            assert past["launched_s"] < past["ended_s"] == past["since_s"]

    play(scene)
