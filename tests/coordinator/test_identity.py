"""Who may say what to a coordinator with mutual TLS, over real sockets: everyone for itself, and nobody for another."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from coordinator import daemon
from coordinator.cli import client
from coordinator.config import CoordinatorConfig
from coordinator.dial import ask_leader
from coordinator.ledger import JOBS
from geotrain.errors import ConfigError, GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import new_server, open_channel
from geotrain.rpc.tls import COORDINATOR, OPERATOR, Identity, TlsConfig, site_name
from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect
from site_agent import daemon as agent_daemon
from site_agent.config import SiteAgentConfig, SiteConfig
from tests.coordinator.leading import new_leader, term_of
from tests.coordinator.test_service import job_json
from tests.rpc.certificates import Authority, identity

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make certificates with")
DEADLINE_S = 60
EWR, JFK = site_name("ewr"), site_name("jfk")

Scene = Callable[[str], Awaitable[None]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def own(authority) -> dict[str, Identity]:
    """The identities that this coordinator's authority has signed."""
    return {name: identity(authority.issue(name)) for name in (COORDINATOR, OPERATOR, EWR, JFK)}


@pytest.fixture
def play(cluster, tmp_path, own) -> Callable[..., None]:
    """Runs a scene with the address of a coordinator that leads, and that shows this identity."""
    view_config = ViewConfig(
        hosts=cluster.hosts, namespace=cluster.namespace, require_strong_consistency=cluster.strong_consistency
    )

    @asynccontextmanager
    async def coordinator(shows: Identity) -> AsyncIterator[str]:
        config = CoordinatorConfig(view=view_config, spool_dir=str(tmp_path / "spool"), sites=["ewr", "jfk"])
        with connect(view_config) as view:
            view.client.truncate(view_config.namespace, JOBS, 0)
            service, server = new_leader(config, view), new_server()
            rpc.add_CoordinatorServicer_to_server(service, server)
            port = server.add_secure_port("127.0.0.1:0", shows.to_listen())
            await server.start()
            async with term_of(service):
                yield f"127.0.0.1:{port}"
            await server.stop(None)

    def run(scene: Scene, shows: Identity = own[COORDINATOR]) -> None:
        async def scenario() -> None:
            async with coordinator(shows) as address:
                await scene(address)

        asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))

    return run


async def join(channel: grpc.aio.Channel, site: str) -> pb.ToAgent:
    async with channel:
        call = rpc.CoordinatorStub(channel).Session(timeout=DEADLINE_S)
        await call.write(pb.FromAgent(hello=pb.Hello(site=site, version="test")))
        return await call.read()


async def refused(answer: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await answer
    return failed.value


def test_an_agent_joins_as_the_site_that_its_certificate_names(play, own):
    async def scene(address: str) -> None:
        assert (await join(open_channel(address, own[EWR]), "ewr")).HasField("welcome")

    play(scene)


def test_an_agent_does_not_join_as_another_site(play, own):
    async def scene(address: str) -> None:
        error = await refused(join(open_channel(address, own[EWR]), "jfk"))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert error.details() == f"the caller's certificate is for {EWR}, not for {JFK}"

    play(scene)


def test_an_update_is_taken_from_its_own_site_only(play, own):
    async def scene(address: str) -> None:
        async with open_channel(address, own[EWR]) as channel:
            for site, reason in (("jfk", f"is for {EWR}, not for {JFK}"), ("ewr", "job nothing is not running")):
                call = rpc.CoordinatorStub(channel).Upload(timeout=DEADLINE_S)
                await call.write(pb.UploadPart(header=pb.UpdateHeader(job="nothing", site=site)))
                receipt = (await call.read()).receipt
                assert not receipt.accepted
                assert reason in receipt.reason

    play(scene)


def test_no_certificate_none_of_this_authority_and_an_expired_one_are_not_let_in(play, own, authority, tmp_path):
    foreign = identity(Authority(tmp_path / "other").issue(EWR))
    expired = identity(authority.issue(EWR, days=-1))
    without = grpc.ssl_channel_credentials(own[EWR].ca)
    named = (("grpc.ssl_target_name_override", COORDINATOR),)

    async def scene(address: str) -> None:
        channels = [
            open_channel(address),
            grpc.aio.secure_channel(address, without, options=named),
            open_channel(address, Identity(ca=own[EWR].ca, cert=foreign.cert, key=foreign.key)),
            open_channel(address, expired),
        ]
        for channel in channels:
            assert (await refused(join(channel, "ewr"))).code() is grpc.StatusCode.UNAVAILABLE

    play(scene)


@pytest.mark.parametrize("who", ["a site", "another authority's coordinator"])
def test_an_agent_does_not_take_another_for_the_coordinator(play, own, tmp_path, who):
    async def scene(address: str) -> None:
        error = await refused(join(open_channel(address, own[EWR]), "ewr"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE

    foreign = identity(Authority(tmp_path / "other").issue(COORDINATOR))
    shown = own[JFK] if who == "a site" else Identity(ca=own[JFK].ca, cert=foreign.cert, key=foreign.key)
    play(scene, shown)


def test_jobs_are_launched_followed_and_controlled_by_an_operator_only(play, own):
    async def scene(address: str) -> None:
        async with open_channel(address, own[EWR]) as channel:
            stub = rpc.CoordinatorStub(channel)
            for call in (
                stub.Launch(pb.LaunchRequest(job_json=job_json()), timeout=DEADLINE_S),
                stub.Control(pb.ControlRequest(job="j", action="CANCEL"), timeout=DEADLINE_S),
                stub.Follow(pb.FollowRequest(job="j"), timeout=DEADLINE_S).read(),
            ):
                error = await refused(call)
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
                assert error.details() == f"the caller's certificate is for {EWR}, not for {OPERATOR}"
        request = pb.LaunchRequest(job_json=job_json())
        reply = await ask_leader([address], lambda stub: stub.Launch(request, timeout=DEADLINE_S), own[OPERATOR])
        control = pb.ControlRequest(job=reply.job, action="CANCEL", reason="seen")
        assert (await client._control(address, control, own[OPERATOR])).status == "cancelled"
        with pytest.raises(client.Refused, match="not for operator"):
            await client._control(address, control, own[EWR])

    play(scene)


def test_both_daemons_name_the_file_that_they_can_not_read_before_they_do_anything_else(authority, tmp_path):
    def without_key(name: str) -> TlsConfig:
        config = authority.issue(name, days=29)
        Path(config.key).unlink()
        return config

    with pytest.raises(ConfigError, match=r"tls.key: .*key.pem can't be read: No such file"):
        daemon.serve(CoordinatorConfig(tls=without_key(COORDINATOR)))
    site = SiteConfig(name="ewr", rack=1, data_dir=str(tmp_path))
    with pytest.raises(GeotrainError, match=r"tls.key: .*key.pem can't be read: No such file"):
        agent_daemon.serve(SiteAgentConfig(site=site, tls=without_key(EWR)))
