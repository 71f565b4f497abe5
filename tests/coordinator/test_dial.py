"""Who asks one coordinator of several ends at the leader."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import pytest

from coordinator import dial
from coordinator.config import LaunchConfig, StrategyConfig
from coordinator.dial import ask_leader
from coordinator.launch import follow, launch
from geotrain.errors import ConfigError, GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import LEADER_KEY, new_server
from tests.coordinator.test_service import job_json

NOBODY = "127.0.0.1:1"
DEADLINE_S = 60
SIGN_S = 0.02
Answer = Callable[[grpc.aio.ServicerContext], Awaitable[pb.LaunchReply]]


class Coordinator(rpc.CoordinatorServicer):
    """Answers as it is told, one answer after the other, the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.num_calls = 0
        self.request_ids: list[str] = []
        self.address = ""
        self.num_signs = 0
        self.is_silent = False
        self.tells: list[pb.JobEvent] = []

    async def Launch(self, request, context):  # noqa: N802 - gRPC's name
        self.num_calls += 1
        if isinstance(request, pb.LaunchRequest):
            self.request_ids.append(request.request_id)
        return await (self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])(context)

    async def Follow(self, request, context):  # noqa: N802
        await self.Launch(request, context)
        for _ in range(self.num_signs):
            yield pb.JobEvent(job=request.job)
            await asyncio.sleep(SIGN_S)
        for event in self.tells:
            yield event
        if self.is_silent:
            await asyncio.Event().wait()
        yield pb.JobEvent(job=request.job, time_s=1, ended=pb.JobEnded(job=request.job, status="finished"))


async def leads(context: grpc.aio.ServicerContext) -> pb.LaunchReply:
    return pb.LaunchReply(job="job-1")


def names(other: Coordinator) -> Answer:
    return lambda context: context.abort(
        grpc.StatusCode.FAILED_PRECONDITION, "a standby", ((LEADER_KEY, other.address),)
    )


def fails(code: grpc.StatusCode) -> Answer:
    return lambda context: context.abort(code, "not now")


@asynccontextmanager
async def answering(*coordinators: Coordinator) -> AsyncIterator[None]:
    servers = []
    for coordinator in coordinators:
        server = new_server()
        rpc.add_CoordinatorServicer_to_server(coordinator, server)
        coordinator.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        servers.append(server)
    try:
        yield
    finally:
        for server in servers:
            await server.stop(None)


def launched(*addresses: str) -> Awaitable[pb.LaunchReply]:
    return ask_leader(addresses, lambda stub: stub.Launch(pb.LaunchRequest(), timeout=DEADLINE_S))


def play(scene: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(scene, DEADLINE_S))


def test_the_leader_that_a_standby_names_is_asked_at_once():
    async def scene() -> None:
        leader = Coordinator(leads)
        standby = Coordinator(names(leader))
        async with answering(leader, standby):
            assert (await launched(standby.address)).job == "job-1"
            assert [event.job async for event in follow([standby.address], "job-1")] == ["job-1"]
        assert standby.num_calls == 2

    play(scene())


@pytest.mark.parametrize("names_the_silent", [False, True])
def test_who_follows_a_leader_that_falls_silent_asks_the_others_who_leads(monkeypatch, names_the_silent):
    monkeypatch.setattr("coordinator.launch.SILENCE_S", 10 * SIGN_S)

    async def scene() -> None:
        paused, standby = Coordinator(leads), Coordinator()
        async with answering(paused, standby):
            paused.is_silent = True
            standby._answers = [names(paused), leads] if names_the_silent else [leads]
            addresses = [paused.address, standby.address]
            assert [event.job async for event in follow(addresses, "job-1")] == ["job-1"]
        assert standby.num_calls > names_the_silent

    play(scene())


def test_who_follows_is_not_told_the_signs_of_life():
    async def scene() -> None:
        leader = Coordinator(leads)
        async with answering(leader):
            leader.num_signs = 3
            assert [event.WhichOneof("body") async for event in follow([leader.address], "job-1")] == ["ended"]
        assert leader.num_calls == 1

    play(scene())


def test_who_follows_is_told_a_cut_once_and_the_one_that_replaces_it():
    def cut(time_s: float, rows: int) -> pb.JobEvent:
        return pb.JobEvent(job="job-1", time_s=time_s, cut=pb.CutEvent(round=1, rows=rows))

    async def scene() -> None:
        leader = Coordinator(leads)
        async with answering(leader):
            leader.tells = [cut(0.25, 100), cut(0.5, 100), cut(0.75, 90)]
            told = [event async for event in follow([leader.address], "job-1")]
        assert [event.cut.rows for event in told if event.HasField("cut")] == [100, 90]

    play(scene())


def test_a_launch_goes_under_the_request_id_that_it_is_given_and_else_under_a_new_one():
    async def scene() -> None:
        leader = Coordinator(leads)
        async with answering(leader):
            for request_id in ("nightly-1", "nightly-1", "", ""):
                job = json.loads(job_json())
                config = LaunchConfig(coordinator=leader.address, request_id=request_id, **job)
                assert [event.job async for event in launch(config)] == ["job-1"]
        assert leader.request_ids[:2] == ["nightly-1", "nightly-1"]
        assert len({*leader.request_ids, ""}) == 4

    play(scene())


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_of_several_addresses_each_is_asked_until_one_leads(code):
    async def scene() -> None:
        other = Coordinator(fails(code), fails(code), leads)
        async with answering(other):
            assert (await launched(NOBODY, other.address)).job == "job-1"
        assert other.num_calls == 3

    play(scene())


def test_two_that_name_each_other_are_asked_again_after_a_pause(monkeypatch):
    async def scene() -> None:
        one, two = Coordinator(), Coordinator()
        async with answering(one, two):
            one._answers, two._answers = [names(two), names(two), leads], [names(one)]
            assert (await launched(one.address)).job == "job-1"

    play(scene())


def test_what_the_leader_refuses_is_not_asked_of_others():
    async def scene() -> None:
        leader, other = Coordinator(fails(grpc.StatusCode.INVALID_ARGUMENT)), Coordinator(leads)
        async with answering(leader, other):
            with pytest.raises(ConfigError, match="not now"):
                await launched(leader.address, other.address)
        assert other.num_calls == 0

    play(scene())


def test_when_nobody_answers_for_long_the_addresses_are_named(monkeypatch):
    monkeypatch.setattr(dial, "PATIENCE_S", 0.2)
    with pytest.raises(GeotrainError, match=f"no coordinator answers at {NOBODY}, 127.0.0.1:2"):
        play(launched(NOBODY, "127.0.0.1:2"))


@pytest.mark.parametrize(
    ("coordinator", "addresses"),
    [("a:1", ["a:1"]), ("a:1,b:2", ["a:1", "b:2"]), (["a:1", "b:2"], ["a:1", "b:2"])],
)
def test_coordinators_are_named_one_by_one_or_as_a_list(coordinator, addresses):
    assert LaunchConfig(coordinator=coordinator, **json.loads(job_json())).addresses == addresses


NAN = float("nan")


@pytest.mark.parametrize("field", ["gather_deadline_s", "phase_deadline_s", "grace_s", "skew_margin_s"])
def test_a_duration_that_is_not_a_number_is_refused_by_the_fields_name(field):
    with pytest.raises(ValueError, match=field):
        LaunchConfig(**json.loads(job_json()) | {field: NAN})


@pytest.mark.parametrize("field", ["max_update_norm", "staleness_discount"])
def test_a_strategys_parameter_that_is_not_a_number_is_refused_by_the_fields_name(field):
    with pytest.raises(ValueError, match=f"strategy.{field}"):
        StrategyConfig(**{field: NAN})


@pytest.mark.parametrize("coordinator", ["", [], "a", ["a:1", 2]])
def test_what_is_no_address_is_refused_by_the_fields_name(coordinator):
    with pytest.raises(ValueError, match="coordinator must be host:port"):
        LaunchConfig(coordinator=coordinator, **json.loads(job_json()))
