"""A coordinator that dies between any two writes to a real view, over real sockets, with agents that do not train."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch

from coordinator.config import CoordinatorConfig
from coordinator.launch import follow
from coordinator.ledger import JOBS, ROUNDS, Ledger
from geotrain.errors import GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import new_server, open_channel
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import ALIASES, MANIFESTS, TENSORS, UnknownState
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from geotrain.view.refusals import InDoubt
from tests.conftest import simulated_cluster
from tests.coordinator.leading import new_leader, term_of
from tests.coordinator.test_service import job_json
from tests.updates.files import encoded, upload

SITES = {"ewr": 1.0, "jfk": 2.0}
DEADLINE_S = 120
MOMENTUM = {"outer": {"_target_": "torch.optim.SGD", "lr": 0.7, "momentum": 0.9, "nesterov": True}}


class Killed(BaseException):
    """What no handler of errors may catch."""


class MortalView:
    """A view whose owner dies before one of its writes; of batches of tensors in a row only the first counts."""

    def __init__(self, view: View, dies_before: int | None) -> None:
        self._view = view
        self.dies_before = dies_before
        self.writes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

    def put(self, set_name: str, *arguments: Any, **options: Any) -> None:
        self._die_or_note(set_name)
        self._view.put(set_name, *arguments, **options)

    def put_many(self, set_name: str, *arguments: Any) -> None:
        self._die_or_note(set_name)
        self._view.put_many(set_name, *arguments)

    def _die_or_note(self, set_name: str) -> None:
        if set_name != TENSORS or self.writes[-1:] != [TENSORS]:
            self.writes.append(set_name)
        if self.dies_before is not None and len(self.writes) >= self.dies_before:
            raise Killed


class DoubtfulView:
    """A view of which every third guarded write is carried out, and every third is not; neither is answered."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._num_writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

    def put(self, set_name: str, *arguments: Any, **options: Any) -> None:
        self._num_writes += options.get("generation") is not None
        kind = self._num_writes % 3 if options.get("generation") is not None else 2
        if kind > 0:
            self._view.put(set_name, *arguments, **options)
        if kind < 2:
            raise InDoubt(f"writing {set_name}: no answer")


class Agent:
    """A site that outlives its coordinators. Its update is a constant times the round; it keeps it as agents do."""

    def __init__(self, site: str, view: View) -> None:
        self.site = site
        self.trainings: Counter[int] = Counter()
        self._view = view
        self._tasks: dict[str, Any] = {}
        self._held: dict[str, pb.Held] = {}
        self._cut_rounds: Counter[str] = Counter()

    async def serve(self, stub: rpc.CoordinatorStub) -> None:
        call = stub.Session(timeout=DEADLINE_S)
        await call.write(pb.FromAgent(hello=pb.Hello(site=self.site, version="test")))
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            async for message in call:
                kind = message.WhichOneof("body")
                if answer := await self._answer(kind, getattr(message, kind), stub):
                    await call.write(answer)

    async def _answer(self, kind: str, body: Any, stub: rpc.CoordinatorStub) -> pb.FromAgent | None:
        match kind:
            case "prepare":
                self._tasks[body.job] = json.loads(body.task_json)
                held, cut_round = self._held.get(body.job), self._cut_rounds[body.job]
                return pb.FromAgent(prepared=pb.Prepared(job=body.job, local_rows=10, held=held, cut_round=cut_round))
            case "scan_cut":
                report = pb.CutReport(job=body.job, round=body.round)
                report.sets.add(set="legs", rows=5, fingerprints=np.zeros(4096, "<u8").tobytes())
                return pb.FromAgent(cut_report=report)
            case "cut_decided":
                self._cut_rounds[body.job] = body.round
            case "report_statistics":
                features = self._tasks[body.job]["features"].items()
                numeric = {"count": 2, "mean": 0.0, "squares": 2.0}
                statistics = {
                    "numeric": {name: numeric for name, f in features if f["kind"] == "numeric"},
                    "categorical": {name: {"a": 100} for name, f in features if f["kind"] == "categorical"},
                }
                report = pb.StatisticsReport(job=body.job, statistics_json=json.dumps(statistics))
                return pb.FromAgent(statistics=report)
            case "train":
                await self._send(body.job, body.round, body.base_version, stub)
            case "localize":
                await self._send(body.job, 0, body.base_version, stub)
        return None

    async def _send(self, job: str, number: int, base_version: int, stub: rpc.CoordinatorStub) -> None:
        update = pb.Held(round=number, base_version=base_version)
        if self._held.get(job) != update:
            self.trainings[number] += 1
            self._held[job] = update
        base = ModelLookup(self._view, self._tasks[job]["name"]).at(base_version).tensors
        data = encoded(
            {name: torch.full_like(tensor, 0.1 * SITES[self.site] + number) for name, tensor in base.items()}
        )
        header = pb.UpdateHeader(
            job=job,
            site=self.site,
            round=number,
            kind=pb.UpdateHeader.DIFFERENCE if number else pb.UpdateHeader.LOCALIZED,
            samples=int(10 * SITES[self.site]),
            metrics={"loss": 0.5, "localized": 0.7},
        )
        receipt = await upload(stub, header, data, timeout_s=DEADLINE_S, chunk_bytes=1 << 20)
        assert receipt.accepted, receipt.reason


async def launch(stub: rpc.CoordinatorStub, model: str) -> str:
    config = json.loads(job_json(sites=list(SITES), rounds=2, strategy=MOMENTUM))
    config["task"]["name"] = model
    return (await stub.Launch(pb.LaunchRequest(job_json=json.dumps(config)), timeout=DEADLINE_S)).job


class World:
    """One view, the agents, and coordinators that follow one another at one address."""

    def __init__(self, view: View, spool: Path) -> None:
        self.view = view
        self.agents = [Agent(site, view) for site in SITES]
        self.writes: list[str] = []
        self.events: list[pb.JobEvent] = []
        self.num_lives = 0
        self._spool = spool
        self._port = 0

    @asynccontextmanager
    async def coordinator(self, dies_before: int | None) -> AsyncIterator[tuple[rpc.CoordinatorStub, asyncio.Task]]:
        """A coordinator, with its agents; and the task that ends when it dies."""
        self.num_lives += 1
        config = CoordinatorConfig(view=self.view.config, spool_dir=str(self._spool), sites=list(SITES))
        self.mortal = mortal = MortalView(self.view, dies_before)
        service = new_leader(config, mortal)  # type: ignore[arg-type]
        server = new_server()
        rpc.add_CoordinatorServicer_to_server(service, server)
        self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        await server.start()
        async with term_of(service) as leading, open_channel(f"127.0.0.1:{self._port}") as channel:
            stub = rpc.CoordinatorStub(channel)
            tasks = [asyncio.create_task(agent.serve(stub)) for agent in self.agents]
            yield stub, leading
            for task in (leading, *tasks):
                task.cancel()
            await asyncio.gather(leading, *tasks, return_exceptions=True)
        await server.stop(None)
        self.writes += mortal.writes

    async def follow(self, job: str) -> None:
        async for event in follow([f"127.0.0.1:{self._port}"], job):
            self.events.append(event)

    async def play(self, model: str, deaths: Iterable[int | None]) -> str:
        """One job to its end, through as many coordinators as it takes. Returns its name."""
        job, following = "", None
        for dies_before in deaths:
            async with self.coordinator(dies_before) as (stub, jobs):
                if following is None:
                    job = await launch(stub, model)
                    following = asyncio.create_task(self.follow(job))
                await asyncio.wait([jobs, following], return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    break
        assert following is not None
        await following
        return job


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    """A view of this module's own: a coordinator takes up every unfinished job that it finds."""
    with (
        simulated_cluster(tmp_path_factory.mktemp("cluster")) as hosts,
        connect(ViewConfig(hosts=hosts, ride_through_s=2)) as view,
    ):
        yield view


def outcome(world: World, model: str) -> dict[str, Any]:
    """All that a job leaves behind but for its times and names."""
    states = {}
    for scope in ("global", "site/ewr", "site/jfk"):
        state = ModelLookup(world.view, model, scope=scope).latest()
        tensors = {name: tensor.numpy().tobytes() for name, tensor in state.tensors.items()}
        states[scope] = state.manifest.version, tensors, state.manifest.resume
    return states


def lasting(events: Iterable[pb.JobEvent]) -> list[str]:
    """What is told again after a restart: not where phases and sites stood."""
    return [kind for event in events if (kind := event.WhichOneof("body")) not in ("phase", "site")]


def play(world: World, model: str, deaths: Iterable[int | None]) -> str:
    return asyncio.run(asyncio.wait_for(world.play(model, deaths), DEADLINE_S))


@pytest.fixture(scope="module")
def undisturbed(view, tmp_path_factory) -> World:
    world = World(view, tmp_path_factory.mktemp("spool"))
    play(world, "undisturbed", [None])
    return world


def test_an_undisturbed_job_writes_tensors_manifest_ledger_alias_in_this_order(undisturbed):
    published = [TENSORS, MANIFESTS, ROUNDS, ALIASES]
    assert undisturbed.writes == [
        JOBS,  # launched
        *(JOBS, ROUNDS, ROUNDS, ALIASES),  # taken, with all that an earlier leader could write
        *(ROUNDS, ROUNDS, *published),  # round 1: open, its cut; the first model
        *published,
        *(ROUNDS, ROUNDS, *published),
        *(*published, *published),  # localized
        JOBS,
    ]


# The write before which each coordinator dies, in turn. To take a job takes up to seven of them, to do again what was
# not committed four.
@pytest.mark.parametrize("deaths", [(11,), (12,), (4, 13), (3, 6, 9, 14)])
def test_a_job_whose_coordinators_die_before_any_write_ends_as_if_none_had(undisturbed, view, tmp_path, deaths):
    world, model = World(view, tmp_path / "spool"), f"killed-{'-'.join(map(str, deaths))}"
    job = play(world, model, cycle(deaths))
    assert world.num_lives > 3
    assert outcome(world, model) == outcome(undisturbed, "undisturbed")
    assert [agent.trainings for agent in world.agents] == [{1: 1, 2: 1, 0: 1}] * 2
    assert sorted(lasting(world.events)) == sorted(lasting(undisturbed.events))
    assert [event.round.version for event in world.events if event.HasField("round")] == [2, 3]
    assert world.events[-1].ended.status == "finished"
    facts = Ledger(view, job, epoch=0).facts()
    assert [past.commit.weights for past in facts.rounds[1:]] == [{"ewr": 10, "jfk": 20}] * 2
    assert not list((tmp_path / "spool").glob("**/*.*"))


def test_a_job_of_which_most_writes_are_not_answered_ends_as_if_all_were(undisturbed, view, tmp_path):
    world = World(DoubtfulView(view), tmp_path / "spool")  # type: ignore[arg-type]
    play(world, "doubted", [None])
    assert outcome(world, "doubted") == outcome(undisturbed, "undisturbed")
    assert world.writes.count(ALIASES) > undisturbed.writes.count(ALIASES)
    assert [agent.trainings for agent in world.agents] == [{1: 1, 2: 1, 0: 1}] * 2


def test_who_reads_while_coordinators_die_sees_versions_go_up_and_each_is_one_state(view, tmp_path):
    world, model = World(view, tmp_path / "spool"), "read"
    seen: list[tuple[int, bytes]] = []

    async def read() -> None:
        lookup = ModelLookup(view, model)
        while True:
            with suppress(UnknownState):
                state = await asyncio.to_thread(lookup.latest)
                tensors = b"".join(tensor.numpy().tobytes() for tensor in state.tensors.values())
                seen.append((state.manifest.version, hashlib.sha256(tensors).digest()))
            await asyncio.sleep(0)

    async def scene() -> None:
        reading = asyncio.create_task(read())
        await world.play(model, cycle((11, 12, 14)))
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))
    versions = [version for version, _ in seen]
    assert versions == sorted(versions)
    assert versions[-1] == 3
    assert len(set(seen)) == len(set(versions))


def test_jobs_that_wait_survive_and_one_that_has_ended_is_told_and_not_run_again(view, tmp_path):
    async def scene(world: World) -> None:
        async with world.coordinator(None) as (stub, jobs):
            names = [await launch(stub, "first"), await launch(stub, "second")]
            world.mortal.dies_before = 0  # the next write: the second has all but its first to come
            await asyncio.wait([jobs])
        async with world.coordinator(None):
            for name in names:
                await world.follow(name)
        lived, world.events = world.events, []
        trained = [agent.trainings.copy() for agent in world.agents]
        async with world.coordinator(None) as (stub, _):
            for name in names:
                await world.follow(name)
            with pytest.raises(GeotrainError, match="no job 'third'"):
                await world.follow("third")
        assert lasting(world.events) == lasting(lived)
        assert [event.job for event in world.events if event.HasField("ended")] == names
        assert [agent.trainings for agent in world.agents] == trained == [{1: 2, 2: 2, 0: 2}] * 2

    asyncio.run(asyncio.wait_for(scene(World(view, tmp_path / "spool")), DEADLINE_S))


def test_a_job_that_can_not_go_on_here_is_paused_with_the_reason_and_does_not_stop_the_others(view, tmp_path):
    config = json.loads(job_json(sites=list(SITES), rounds=2))
    config["task"]["model"]["_target_"] = "os.system"
    Ledger(view, "forbidden", epoch=0).launch(config)

    async def scene(world: World) -> None:
        async with world.coordinator(None) as (stub, _):
            await world.follow(await launch(stub, "allowed"))
            assert world.events[-1].ended.status == "finished"

    asyncio.run(asyncio.wait_for(scene(World(view, tmp_path / "spool")), DEADLINE_S))
    facts = Ledger(view, "forbidden", epoch=0).facts()
    assert facts.status == "paused"
    assert "task.model._target_: 'os.system' is not allowed here" in facts.reason
