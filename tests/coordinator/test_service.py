"""The coordinator's gRPC service over a real socket and a real view, with agents that do what the test says."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module

from coordinator.config import CoordinatorConfig, register
from coordinator.ledger import JOBS
from coordinator.service import CoordinatorService
from geotrain.program import to_config
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import new_server, open_channel
from geotrain.states.lookup import ModelLookup
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from tests.coordinator.leading import new_leader, term_of
from tests.updates.files import encoded, upload

register()
TIMEOUT_S = 60
HEARTBEAT_S = 1.0


def job_json(**changes: object) -> str:
    """A job of one round for two sites over the flights' task, which no agent here really runs."""
    with initialize_config_module("configs", version_base="1.3"):
        job = asdict(to_config(compose("launch", overrides=["sites=[ewr,jfk]", "rounds=1"])))
    del job["coordinator"], job["tls"], job["request_id"]
    job["task"]["model"] |= {"width": 4, "depth": 1}
    return json.dumps(job | changes)


class Agent:
    """One site's end of the session, scripted by the test."""

    def __init__(self, site: str, stub: rpc.CoordinatorStub) -> None:
        self.site = site
        self.stub = stub
        self.call = stub.Session(timeout=TIMEOUT_S)

    async def join(self, **hello: object) -> pb.ToAgent:
        await self.call.write(pb.FromAgent(hello=pb.Hello(site=self.site, version="test", **hello)))
        return await self.call.read()

    async def say_that_it_is_here(self, every_s: float, until: asyncio.Event) -> None:
        while not until.is_set():
            await self.call.write(pb.FromAgent(progress=pb.Progress(phase="idle")))
            await asyncio.sleep(every_s)

    async def expect(self, kind: str) -> object:
        message = await self.call.read()
        assert message.WhichOneof("body") == kind
        return getattr(message, kind)

    async def reach_training(self) -> tuple[str, pb.Train]:
        """Answer everything up to the training; returns the job and what is asked."""
        prepare = await self.expect("prepare")
        await self.call.write(pb.FromAgent(prepared=pb.Prepared(job=prepare.job, local_rows=10)))
        scan = await self.expect("scan_cut")
        report = pb.CutReport(job=scan.job, round=scan.round)
        report.sets.add(set="legs", rows=5, fingerprints=np.zeros(4096, "<u8").tobytes())
        await self.call.write(pb.FromAgent(cut_report=report))
        await self.expect("cut_decided")
        await self.expect("report_statistics")
        task = json.loads(prepare.task_json)
        numeric = {
            name: {"count": 2, "mean": 0.0, "squares": 2.0}
            for name, f in task["features"].items()
            if f["kind"] == "numeric"
        }
        categorical = {name: {"a": 100} for name, f in task["features"].items() if f["kind"] == "categorical"}
        text = json.dumps({"numeric": numeric, "categorical": categorical})
        await self.call.write(pb.FromAgent(statistics=pb.StatisticsReport(job=scan.job, statistics_json=text)))
        return prepare.job, await self.expect("train")

    async def upload(
        self, job: str, tensors: dict[str, torch.Tensor], number: int = 1, **header: object
    ) -> pb.UploadReceipt:
        fields = {
            "job": job,
            "site": self.site,
            "round": number,
            "samples": 10,
            "metrics": {"loss": 0.5, "localized": 0.5},
        }
        said = pb.UpdateHeader(**fields | header)
        return await upload(self.stub, said, encoded(tensors), timeout_s=TIMEOUT_S)


class Coordinator:
    """A coordinator that answers on a real port."""

    def __init__(self, view: View, service: CoordinatorService, stub: rpc.CoordinatorStub, address: str) -> None:
        self.view = view
        self.service = service
        self.stub = stub
        self.address = address

    async def launch(self, **changes: object) -> str:
        return (await self.stub.Launch(pb.LaunchRequest(job_json=job_json(**changes)), timeout=TIMEOUT_S)).job

    async def control(self, job: str, action: int, reason: str) -> pb.ControlReply:
        request = pb.ControlRequest(job=job, action=action, reason=reason)
        return await self.stub.Control(request, timeout=TIMEOUT_S)

    async def end(self, job: str) -> pb.JobEnded:
        async for event in self.stub.Follow(pb.FollowRequest(job=job), timeout=TIMEOUT_S):
            if event.HasField("ended"):
                return event.ended
        raise AssertionError("the events ended before the job")

    def base(self, version: int) -> dict[str, torch.Tensor]:
        return dict(ModelLookup(self.view, "flights").at(version).tensors)


@asynccontextmanager
async def coordinator_over(view_config: ViewConfig, spool: Path, heartbeat_s: float) -> AsyncIterator[Coordinator]:
    config = CoordinatorConfig(view=view_config, spool_dir=str(spool), heartbeat_s=heartbeat_s, sites=["ewr", "jfk"])
    with connect(view_config) as view:
        view.client.truncate(view_config.namespace, JOBS, 0)  # a leader takes up what other tests have left
        service = new_leader(config, view)
        server = new_server()
        rpc.add_CoordinatorServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with term_of(service), open_channel(f"127.0.0.1:{port}") as channel:
            yield Coordinator(view, service, rpc.CoordinatorStub(channel), f"127.0.0.1:{port}")
        await server.stop(None)


Play = Callable[..., None]


@pytest.fixture
def play(cluster, tmp_path) -> Play:
    """Runs a scene against a fresh coordinator. Agents that do as they are told send no heartbeats, and need none."""
    view = ViewConfig(
        hosts=cluster.hosts, namespace=cluster.namespace, require_strong_consistency=cluster.strong_consistency
    )

    def run(scene: Callable[[Coordinator], Awaitable[None]], heartbeat_s: float = TIMEOUT_S) -> None:
        async def scenario() -> None:
            async with coordinator_over(view, tmp_path / "spool", heartbeat_s) as coordinator:
                await scene(coordinator)

        asyncio.run(asyncio.wait_for(scenario(), TIMEOUT_S))

    return run


async def two_agents_in_training(
    coordinator: Coordinator, **changes: object
) -> tuple[str, Agent, Agent, dict[str, torch.Tensor]]:
    ewr, jfk = Agent("ewr", coordinator.stub), Agent("jfk", coordinator.stub)
    await ewr.join()
    await jfk.join()
    await coordinator.launch(**changes)
    (job, train), _ = await asyncio.gather(ewr.reach_training(), jfk.reach_training())
    return job, ewr, jfk, coordinator.base(train.base_version)


def test_the_published_model_is_the_base_moved_by_the_weighted_mean(play):
    async def scene(coordinator: Coordinator) -> None:
        job, ewr, jfk, base = await two_agents_in_training(coordinator)
        assert (await jfk.upload(job, {name: torch.full_like(t, 4.0) for name, t in base.items()}, samples=30)).accepted
        assert (await ewr.upload(job, {name: torch.zeros_like(t) for name, t in base.items()}, samples=10)).accepted
        committed = await ewr.expect("round_committed")
        after = coordinator.base(committed.version)
        assert all(torch.allclose(after[name], tensor + 3.0) for name, tensor in base.items())

    play(scene)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda update: update | {"head.bias": torch.tensor([math.nan])}, "tensor head.bias has values that are not"),
        (
            lambda update: update | {"head.weight": torch.zeros(2, 4)},
            r"tensor head.weight is float32[2, 4], the model's",
        ),
        (lambda update: {"head.bias": update["head.bias"]}, "missing ["),
    ],
)
def test_an_update_unfit_for_the_mean_is_refused_by_name_and_the_round_goes_on_without_it(play, spoil, reason):
    async def scene(coordinator: Coordinator) -> None:
        job, ewr, jfk, base = await two_agents_in_training(coordinator, min_sites=1)
        zero = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
        receipt = await ewr.upload(job, spoil(zero))
        assert not receipt.accepted
        assert reason in receipt.reason
        assert (await jfk.upload(job, zero)).accepted
        await jfk.expect("round_committed")

    play(scene)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"kind": pb.UpdateHeader.LOCALIZED}, "kind does not fit its round"),
        ({"metrics": {}}, "lack a finite loss"),
        ({"metrics": {"loss": math.nan}}, "lack a finite loss"),
        ({"samples": 0}, "trained on no samples"),
    ],
)
def test_an_update_whose_header_can_not_be_believed_is_refused(play, header, reason):
    async def scene(coordinator: Coordinator) -> None:
        job, ewr, _, base = await two_agents_in_training(coordinator, min_sites=1)
        receipt = await ewr.upload(job, {name: torch.zeros_like(tensor) for name, tensor in base.items()}, **header)
        assert not receipt.accepted
        assert reason in receipt.reason

    play(scene)


def test_a_report_that_does_not_fit_the_task_costs_its_site_the_round_and_no_one_else(play):
    async def scene(coordinator: Coordinator) -> None:
        ewr, jfk = Agent("ewr", coordinator.stub), Agent("jfk", coordinator.stub)
        await ewr.join()
        await jfk.join()
        await coordinator.launch(min_sites=1)

        async def garbage() -> None:
            prepare = await ewr.expect("prepare")
            await ewr.call.write(pb.FromAgent(prepared=pb.Prepared(job=prepare.job, local_rows=10)))
            scan = await ewr.expect("scan_cut")
            report = pb.CutReport(job=scan.job, round=scan.round)
            report.sets.add(set="legs", rows=5, fingerprints=b"too short")
            await ewr.call.write(pb.FromAgent(cut_report=report))

        (_, train), _ = await asyncio.gather(jfk.reach_training(), garbage())
        assert train.round == 1

    play(scene)


def test_when_every_update_is_refused_the_job_fails_with_the_reasons_and_leaves_no_spool(play, tmp_path):
    async def scene(coordinator: Coordinator) -> None:
        job, ewr, jfk, base = await two_agents_in_training(coordinator)
        await ewr.upload(job, {name: tensor * math.inf for name, tensor in base.items()})
        ended = await coordinator.end(job)
        assert ended.status == "failed"
        assert "ewr: update refused" in ended.reason
        assert (await jfk.expect("job_ended")).reason == ended.reason

    play(scene)
    assert list((tmp_path / "spool").glob("**/*.*")) == []


def test_localized_tensors_are_laid_over_the_global_model_under_the_sites_scope(play):
    async def scene(coordinator: Coordinator) -> None:
        job, ewr, jfk, base = await two_agents_in_training(coordinator)
        for agent in (ewr, jfk):
            await agent.upload(job, {name: torch.zeros_like(tensor) for name, tensor in base.items()})
        for agent in (ewr, jfk):
            await agent.expect("round_committed")
            await agent.expect("localize")
            head = {"head.bias": torch.tensor([7.0])}
            assert (await agent.upload(job, head, number=0, kind=pb.UpdateHeader.LOCALIZED)).accepted
        assert (await coordinator.end(job)).status == "finished"
        localized = ModelLookup(coordinator.view, "flights", scope="site/jfk").latest()
        assert localized.tensors["head.bias"].item() == 7.0
        assert torch.equal(localized.tensors["head.weight"], base["head.weight"])
        assert localized.manifest.lineage["job"] == job

    play(scene)


@pytest.mark.parametrize(
    ("site", "code"),
    [("mars", grpc.StatusCode.PERMISSION_DENIED), ("../../etc/x", grpc.StatusCode.INVALID_ARGUMENT)],
)
def test_a_stranger_is_refused_by_name(play, site, code):
    async def scene(coordinator: Coordinator) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match=site) as refused:
            await Agent(site, coordinator.stub).join()
        assert refused.value.code() is code

    play(scene)


def test_a_second_agent_of_a_site_is_refused_while_the_first_one_lives_and_welcome_when_it_is_dead(play):
    async def scene(coordinator: Coordinator) -> None:
        first = Agent("ewr", coordinator.stub)
        await first.join()
        lost_power = asyncio.Event()
        alive = asyncio.create_task(first.say_that_it_is_here(every_s=HEARTBEAT_S / 4, until=lost_power))
        with pytest.raises(grpc.aio.AioRpcError, match="ewr") as refused:
            await Agent("ewr", coordinator.stub).join()
        assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
        lost_power.set()  # its stream stands: a write that is cancelled would end it
        await alive
        assert (await Agent("ewr", coordinator.stub).join()).HasField("welcome")
        assert await first.call.read() is grpc.aio.EOF

    play(scene, heartbeat_s=HEARTBEAT_S)


def test_an_agent_hears_of_the_jobs_that_ended_while_it_was_away(play):
    async def scene(coordinator: Coordinator) -> None:
        job = await coordinator.launch(gather_deadline_s=0.01)
        ended = await coordinator.end(job)
        agent = Agent("ewr", coordinator.stub)
        await agent.join(held_jobs=[job, "flights-forgotten"])
        assert await agent.expect("job_ended") == pb.JobEnded(job=job, status="failed", reason=ended.reason)
        assert (await agent.expect("job_ended")).job == "flights-forgotten"

    play(scene)


def test_a_job_is_paused_resumed_and_cancelled_by_call_and_its_sites_are_told(play):
    async def scene(coordinator: Coordinator) -> None:
        job, ewr, jfk, base = await two_agents_in_training(coordinator)
        assert (await ewr.upload(job, {name: torch.zeros_like(tensor) for name, tensor in base.items()})).accepted
        paused = await coordinator.control(job, pb.ControlRequest.PAUSE, "kim")
        assert (paused.status, paused.reason) == ("paused", "kim")
        assert await ewr.expect("job_paused") == pb.JobPaused(job=job, reason="kim")
        late = await jfk.upload(job, {name: torch.zeros_like(tensor) for name, tensor in base.items()})
        assert not late.accepted
        assert "kim" in late.reason or "not running" in late.reason
        await coordinator.control(job, pb.ControlRequest.RESUME, "")
        for agent in (ewr, jfk):
            if agent is jfk:
                await agent.expect("job_paused")
            prepare = await agent.expect("prepare")
            held = pb.Held(round=1, base_version=1) if agent is ewr else None
            prepared = pb.Prepared(job=prepare.job, local_rows=10, held=held, cut_round=1)
            await agent.call.write(pb.FromAgent(prepared=prepared))
        for agent in (ewr, jfk):
            assert (await agent.expect("train")).round == 1
        cancelled = await coordinator.control(job, pb.ControlRequest.CANCEL, "kim: a mistake")
        assert (cancelled.status, cancelled.reason) == ("cancelled", "kim: a mistake")
        assert (await jfk.expect("job_ended")).status == "cancelled"
        with pytest.raises(grpc.aio.AioRpcError, match="no job 'other'"):
            await coordinator.control("other", pb.ControlRequest.PAUSE, "kim")

    play(scene)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"sites": ["ewr", "mars"]}, "mars unknown to this coordinator"),
        ({"roundz": 3}, "roundz"),
        ({"seed": "${oc.env:HOME}"}, "interpolation"),
        ({"min_sites": 0}, "min_sites"),
    ],
)
def test_a_launch_that_is_no_job_is_refused_with_the_fields_name(play, changes, reason):
    async def scene(coordinator: Coordinator) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match=reason) as refused:
            await coordinator.launch(**changes)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    play(scene)


def test_who_follows_late_sees_everything_from_the_start(play):
    async def scene(coordinator: Coordinator) -> None:
        job = await coordinator.launch(gather_deadline_s=0.01)
        await coordinator.end(job)
        events = [event async for event in coordinator.stub.Follow(pb.FollowRequest(job=job), timeout=TIMEOUT_S)]
        kinds = [event.WhichOneof("body") for event in events]
        assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("started", "ended", {"phase"})

    play(scene)
