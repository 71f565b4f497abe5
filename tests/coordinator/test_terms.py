"""What a coordinator answers before, during and after a term of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest

from coordinator import service as service_module
from coordinator.config import CoordinatorConfig
from coordinator.jobs import Jobs
from coordinator.leadership import Leadership, Looked, Tick
from coordinator.service import CoordinatorService
from geotrain.errors import Fenced, ViewError
from geotrain.lease import Lease
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import LEADER_KEY, new_server, open_channel
from tests.coordinator.leading import new_leader, term_of

TIMEOUT_S = 60
CONFIG = CoordinatorConfig(heartbeat_s=TIMEOUT_S)
OTHERS = Lease(owner="other", epoch=4, lease_s=6, address="b:1")


class NoView:
    """A view that nobody reads."""


@pytest.fixture(autouse=True)
def no_jobs(monkeypatch):
    """A ledger without jobs."""

    async def nothing(self):
        return None

    monkeypatch.setattr(Jobs, "recover", nothing)


def standby(lease: Lease | None) -> CoordinatorService:
    leadership = Leadership("me", 6.0, now_s=0.0)
    leadership.handle(Tick(), now_s=0)
    leadership.handle(Looked(lease), now_s=0)
    return CoordinatorService(CONFIG, NoView(), leadership)  # type: ignore[arg-type]


def leader() -> CoordinatorService:
    return new_leader(CONFIG, NoView())  # type: ignore[arg-type]


@asynccontextmanager
async def serving(service: CoordinatorService) -> AsyncIterator[rpc.CoordinatorStub]:
    server = new_server()
    rpc.add_CoordinatorServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield rpc.CoordinatorStub(channel)
    await server.stop(None)


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def joined(stub: rpc.CoordinatorStub) -> grpc.aio.StreamStreamCall:
    call = stub.Session(timeout=TIMEOUT_S)
    await call.write(pb.FromAgent(hello=pb.Hello(site="ewr", instance="1")))
    assert (await call.read()).HasField("welcome")
    return call


def play(scene: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(scene, TIMEOUT_S))


def test_a_standby_refuses_every_call_and_names_the_leader():
    async def scene() -> None:
        async with serving(standby(OTHERS)) as stub:
            calls = [
                stub.Launch(pb.LaunchRequest(), timeout=TIMEOUT_S),
                stub.Control(pb.ControlRequest(job="x"), timeout=TIMEOUT_S),
                stub.Follow(pb.FollowRequest(job="x"), timeout=TIMEOUT_S).read(),
                stub.Session(timeout=TIMEOUT_S).read(),
                stub.Upload(timeout=TIMEOUT_S).read(),
            ]
            for call in calls:
                error = await refusal(call)
                assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
                assert dict(error.trailing_metadata())[LEADER_KEY] == "b:1"
                assert "the leader is at b:1" in error.details()

    play(scene())


@pytest.mark.parametrize("lease", [None, replace(OTHERS, owner="")])
def test_where_nobody_leads_a_caller_is_told_to_come_again(lease):
    async def scene() -> None:
        async with serving(standby(lease)) as stub:
            error = await refusal(stub.Launch(pb.LaunchRequest(), timeout=TIMEOUT_S))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "no coordinator leads yet" in error.details()

    play(scene())


def test_who_dials_a_leader_that_is_still_taking_up_its_jobs_waits_for_it(monkeypatch):
    taken_up = asyncio.Event()

    async def slowly(self):
        await taken_up.wait()

    monkeypatch.setattr(Jobs, "recover", slowly)

    async def scene() -> None:
        service = leader()
        async with serving(service) as stub:
            leading = asyncio.create_task(service.lead(service.leadership.epoch))
            joining = asyncio.create_task(joined(stub))
            taken_up.set()
            await joining
            leading.cancel()
            await asyncio.wait([leading])

    play(scene())


def test_a_leader_that_takes_long_to_take_up_its_jobs_says_so(monkeypatch):
    async def never(self):
        await asyncio.Event().wait()

    monkeypatch.setattr(Jobs, "recover", never)
    monkeypatch.setattr(service_module, "TAKING_UP_S", 0.05)

    async def scene() -> None:
        service = leader()
        async with serving(service) as stub:
            leading = asyncio.create_task(service.lead(service.leadership.epoch))
            error = await refusal(stub.Launch(pb.LaunchRequest(), timeout=TIMEOUT_S))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            leading.cancel()
            await asyncio.wait([leading])

    play(scene())


def test_a_view_that_is_away_when_a_term_begins_is_asked_again(monkeypatch):
    monkeypatch.setattr(service_module, "RECOVER_AGAIN_S", 0.0)
    failures = iter([ViewError("away"), ViewError("away")])

    async def flaky(self):
        for failure in failures:
            raise failure

    monkeypatch.setattr(Jobs, "recover", flaky)

    async def scene() -> None:
        service = leader()
        async with serving(service) as stub, term_of(service):
            await joined(stub)

    play(scene())


def test_when_a_term_ends_its_streams_end_and_a_later_term_takes_them_again():
    async def scene() -> None:
        service = leader()
        async with serving(service) as stub:
            async with term_of(service):
                call = await joined(stub)
            error = await refusal(call.read())
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "leads no longer" in error.details()
            assert service.term is None
            async with term_of(service):
                await joined(stub)

    play(scene())


def test_a_term_that_meets_a_later_epoch_waits_for_the_lease_to_say_so(monkeypatch):
    async def fenced(self):
        raise Fenced("epoch 9 was here")

    monkeypatch.setattr(Jobs, "recover", fenced)

    async def scene() -> None:
        service = leader()
        leading = asyncio.create_task(service.lead(service.leadership.epoch))
        done, _ = await asyncio.wait([leading], timeout=0.05)
        assert not done
        leading.cancel()
        await asyncio.wait([leading])

    play(scene())


def test_a_launch_that_was_noted_when_the_lease_had_run_out_is_not_promised(monkeypatch):
    async def noted(self, job_json, request_id=""):
        return "job-1"

    monkeypatch.setattr(Jobs, "launch", noted)

    async def scene() -> None:
        service = leader()
        async with serving(service) as stub, term_of(service):
            assert (await stub.Launch(pb.LaunchRequest(), timeout=TIMEOUT_S)).job == "job-1"
            monkeypatch.setattr(service.leadership, "_holds_until_s", time.monotonic())
            error = await refusal(stub.Launch(pb.LaunchRequest(), timeout=TIMEOUT_S))
            assert error.code() is grpc.StatusCode.UNAVAILABLE

    play(scene())


@pytest.mark.parametrize("listen", ["0.0.0.0:50551", "[::]:50551", ":50551"])
def test_who_listens_everywhere_must_say_where_it_is_dialled(listen):
    with pytest.raises(ValueError, match="advertise must say at which host:port"):
        CoordinatorConfig(listen=listen)
    CoordinatorConfig(listen=listen, advertise="coordinator.eu:50551")


def test_a_lease_that_is_too_short_to_be_renewed_is_refused():
    with pytest.raises(ValueError, match="lease_s must be at least 1"):
        CoordinatorConfig(lease_s=0.5)
