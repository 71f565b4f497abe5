"""An agent's session against a coordinator of which only the stream is real."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from site_agent.config import SiteAgentConfig, SiteConfig
from site_agent.session import Session

HEARTBEAT_S = 0.01
NUM_BEATS = 3


class Coordinator(rpc.CoordinatorServicer):
    """Welcomes whoever calls, and listens until it has heard a few heartbeats."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()

    async def Session(self, requests: AsyncIterator[pb.FromAgent], context: Any) -> AsyncIterator[pb.ToAgent]:  # noqa: N802 - gRPC's name
        yield pb.ToAgent(welcome=pb.Welcome(heartbeat_s=HEARTBEAT_S))
        num_beats = 0
        async for message in requests:
            num_beats += message.HasField("progress")
            if num_beats == NUM_BEATS:
                self.heard.set()


class NoJobs:
    def known(self) -> list[str]:
        return []

    def progress(self) -> list[pb.Progress]:
        return [pb.Progress(phase="idle")]


def test_an_agent_that_has_joined_gives_a_sign_with_its_heartbeats(tmp_path):
    sign = tmp_path / "spool" / "ewr.joined"

    async def join() -> None:
        server, coordinator = grpc.aio.server(), Coordinator()
        port = server.add_insecure_port("127.0.0.1:0")
        rpc.add_CoordinatorServicer_to_server(coordinator, server)
        await server.start()
        site = SiteConfig(name="ewr", rack=1, data_dir=".", spool_dir=str(sign.parent))
        config = SiteAgentConfig(site=site, coordinator=f"127.0.0.1:{port}")
        assert not sign.exists(), "it has not joined"
        running = asyncio.create_task(Session(config, NoJobs(), None).run())  # type: ignore[arg-type]
        await coordinator.heard.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop(None)

    asyncio.run(join())
    assert sign.exists()
