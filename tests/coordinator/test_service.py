"""The coordinator's gRPC service over a real socket and a real view, with agents that do what the test says."""

import asyncio
import hashlib
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
from coordinator.service import CoordinatorService
from geotrain.program import to_config
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import new_server, open_channel
from geotrain.states.lookup import ModelLookup
from geotrain.updates.chunks import split
from geotrain.updates.codec import encode
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect

register()
TIMEOUT_S = 60


def job_json(**changes: object) -> str:
    """A job of one round for two sites over the flights' task, which no agent here really runs."""
    with initialize_config_module("configs", version_base="1.3"):
        job = asdict(to_config(compose("launch", overrides=["sites=[ewr,jfk]", "rounds=1"])))
    del job["coordinator"]
    job["task"]["model"] |= {"width": 4, "depth": 1}
    return json.dumps(job | changes)


class Agent:
    """One site's end of the session, scripted by the test."""

    def __init__(self, site: str, stub: rpc.CoordinatorStub) -> None:
        self.site = site
        self.stub = stub
        self.call = stub.Session(timeout=TIMEOUT_S)

    async def join(self) -> pb.ToAgent:
        await self.call.write(pb.FromAgent(hello=pb.Hello(site=self.site, version="test")))
        return await self.call.read()

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
        data = encode(tensors)
        fields = {
            "job": job,
            "site": self.site,
            "round": number,
            "samples": 10,
            "metrics": {"loss": 0.5, "localized": 0.5},
            "num_bytes": len(data),
            "sha256": hashlib.sha256(data).digest(),
        }
        parts = [pb.UploadPart(header=pb.UpdateHeader(**fields | header))]
        parts += [
            pb.UploadPart(chunk=pb.Chunk(offset=at, data=bytes(chunk), crc32=crc))
            for at, chunk, crc in split(data, 1000)
        ]
        return await self.stub.Upload(iter(parts), timeout=TIMEOUT_S)


class Coordinator:
    """A coordinator that answers on a real port."""

    def __init__(self, view: View, service: CoordinatorService, stub: rpc.CoordinatorStub) -> None:
        self.view = view
        self.service = service
        self.stub = stub

    async def launch(self, **changes: object) -> str:
        return (await self.stub.Launch(pb.LaunchRequest(job_json=job_json(**changes)), timeout=TIMEOUT_S)).job

    async def end(self, job: str) -> pb.JobEnded:
        async for event in self.stub.Follow(pb.FollowRequest(job=job), timeout=TIMEOUT_S):
            if event.HasField("ended"):
                return event.ended
        raise AssertionError("the events ended before the job")

    def base(self, version: int) -> dict[str, torch.Tensor]:
        return dict(ModelLookup(self.view, "flights").at(version).tensors)


@asynccontextmanager
async def coordinator_over(view_config: ViewConfig, spool: Path) -> AsyncIterator[Coordinator]:
    config = CoordinatorConfig(view=view_config, spool_dir=str(spool), heartbeat_s=TIMEOUT_S, sites=["ewr", "jfk"])
    with connect(view_config) as view:
        service = CoordinatorService(config, view)
        server = new_server()
        rpc.add_CoordinatorServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        jobs = asyncio.create_task(service.run_jobs())
        async with open_channel(f"127.0.0.1:{port}") as channel:
            yield Coordinator(view, service, rpc.CoordinatorStub(channel))
        jobs.cancel()
        await server.stop(None)


Play = Callable[[Callable[[Coordinator], Awaitable[None]]], None]


@pytest.fixture
def play(cluster, tmp_path) -> Play:
    """Runs a scene against a fresh coordinator."""
    view = ViewConfig(
        hosts=cluster.hosts, namespace=cluster.namespace, require_strong_consistency=cluster.strong_consistency
    )

    def run(scene: Callable[[Coordinator], Awaitable[None]]) -> None:
        async def scenario() -> None:
            async with coordinator_over(view, tmp_path / "spool") as coordinator:
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
        assert not ended.finished
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
        assert (await coordinator.end(job)).finished
        localized = ModelLookup(coordinator.view, "flights", scope="site/jfk").latest()
        assert localized.tensors["head.bias"].item() == 7.0
        assert torch.equal(localized.tensors["head.weight"], base["head.weight"])
        assert localized.manifest.lineage["job"] == job

    play(scene)


@pytest.mark.parametrize(
    ("site", "code"),
    [
        ("ewr", grpc.StatusCode.ALREADY_EXISTS),
        ("mars", grpc.StatusCode.PERMISSION_DENIED),
        ("../../etc/x", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_second_agent_of_a_site_and_a_stranger_are_refused_by_name(play, site, code):
    async def scene(coordinator: Coordinator) -> None:
        await Agent("ewr", coordinator.stub).join()
        with pytest.raises(grpc.aio.AioRpcError, match=site) as refused:
            await Agent(site, coordinator.stub).join()
        assert refused.value.code() is code

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
        assert [event.WhichOneof("body") for event in events] == ["started", "ended"]

    play(scene)
