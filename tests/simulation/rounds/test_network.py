"""gRPC, as the simulation of rounds has it: the generated stub and servicer over simulated links."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any

import grpc
import pytest

from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import new_server, open_channel
from tests.simulation.rounds.network import KEEPALIVE_S, Network
from tests.simulation.rounds.patches import patched
from tests.simulation.rounds.processes import Process, VirtualLoop

ADDRESS = "10.0.0.1:1"


class Echo(rpc.CoordinatorServicer):
    """Answers each hello with a welcome of as many seconds as its version says."""

    def __init__(self) -> None:
        self.was_cancelled = False

    async def Session(self, _: object, context: Any) -> None:  # noqa: N802 - gRPC's name
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                await context.write(pb.ToAgent(welcome=pb.Welcome(heartbeat_s=float(message.hello.version))))
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise

    async def Launch(self, request: pb.LaunchRequest, context: Any) -> pb.LaunchReply:  # noqa: N802
        if not request.job_json:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no job")
        if request.job_json == "cancel":
            raise asyncio.CancelledError
        return pb.LaunchReply(job=request.job_json)

    async def Follow(self, request: pb.FollowRequest, context: Any) -> AsyncIterator[pb.JobEvent]:  # noqa: N802
        for _ in range(3):
            yield pb.JobEvent(job=request.job)


Body = Callable[[rpc.CoordinatorStub, Network, Echo], Awaitable[None]]


def play(body: Body) -> None:
    loop = VirtualLoop()
    network = Network(Random(0), pytest.fail, lambda name: None)
    echo = Echo()

    async def serve() -> None:
        server = new_server()
        rpc.add_CoordinatorServicer_to_server(echo, server)
        server.add_insecure_port(ADDRESS)
        await server.start()

    async def dial(done: "asyncio.Future[None]") -> None:
        await asyncio.sleep(0.1)
        try:
            async with open_channel(ADDRESS) as channel:
                await body(rpc.CoordinatorStub(channel), network, echo)
        except BaseException as error:  # noqa: BLE001 - it is told to the test
            done.set_exception(error)
        else:
            done.set_result(None)

    async def main() -> None:
        done = asyncio.get_running_loop().create_future()
        Process("server").start(serve())
        Process("client").start(dial(done))
        await done

    with patched(loop, network, seed=0):
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()


def hello(number: int) -> pb.FromAgent:
    return pb.FromAgent(hello=pb.Hello(site="ewr", version=str(number)))


async def welcomed(call: Any) -> float:
    return float((await call.read()).welcome.heartbeat_s)


def test_messages_of_one_stream_stay_in_order():
    async def body(stub: rpc.CoordinatorStub, network: Network, echo: Echo) -> None:
        call = stub.Session()

        async def write() -> None:
            for number in range(100):
                await call.write(hello(number))

        writing = asyncio.create_task(write())
        assert [await welcomed(call) for _ in range(100)] == [float(number) for number in range(100)]
        await writing
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    play(body)


def test_single_answers_streams_of_answers_and_refusals_come_back():
    async def body(stub: rpc.CoordinatorStub, network: Network, echo: Echo) -> None:
        assert (await stub.Launch(pb.LaunchRequest(job_json="j"), timeout=10)).job == "j"
        assert [event.job async for event in stub.Follow(pb.FollowRequest(job="j"))] == ["j"] * 3
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Launch(pb.LaunchRequest(), timeout=10)
        assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no job")

    play(body)


def test_what_is_sent_over_a_cut_link_arrives_when_it_heals():
    async def body(stub: rpc.CoordinatorStub, network: Network, echo: Echo) -> None:
        call = stub.Session()
        await call.write(hello(1))
        assert await welcomed(call) == 1.0
        network.cut("client", "server")
        await call.write(hello(2))
        asyncio.get_running_loop().call_later(KEEPALIVE_S / 2, network.heal, "client", "server")
        assert await welcomed(call) == 2.0
        assert asyncio.get_running_loop().time() > KEEPALIVE_S / 2

    play(body)


@pytest.mark.parametrize("fault", ["break", "long cut"])
def test_a_lost_connection_is_told_at_both_ends(fault):
    async def body(stub: rpc.CoordinatorStub, network: Network, echo: Echo) -> None:
        call = stub.Session()
        await call.write(hello(1))
        await call.read()
        if fault == "break":
            network.break_streams("client", "server")
        else:
            network.cut("client", "server")
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            await call.read()
        assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.sleep(1.0)
        assert echo.was_cancelled

    play(body)


def test_a_lost_reply_leaves_the_caller_in_doubt():
    async def body(stub: rpc.CoordinatorStub, network: Network, echo: Echo) -> None:
        arrived: list[str] = []

        def break_at_the_reply(name: str) -> None:
            arrived.append(name)
            if arrived.count("client") == 3:  # after the request, and its end
                network.break_streams("client")

        network.on_message = break_at_the_reply
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Launch(pb.LaunchRequest(job_json="j"), timeout=10)
        assert (await stub.Launch(pb.LaunchRequest(job_json="j"), timeout=10)).job == "j"

    play(body)


def test_a_server_that_cancels_a_call_is_an_error_to_who_called_and_does_not_cancel_them():
    async def body(stub: rpc.CoordinatorStub, network: Network, echo: Echo) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Launch(pb.LaunchRequest(job_json="cancel"), timeout=10)
        assert error.value.code() is grpc.StatusCode.CANCELLED

    play(body)
