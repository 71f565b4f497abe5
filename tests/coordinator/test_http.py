"""A real coordinator with scripted agents, seen over HTTP and through the program `geotrain` while a job runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch

from coordinator import http
from coordinator.cli import client
from coordinator.config import CoordinatorConfig
from geotrain.errors import ConfigError
from geotrain.rpc import coordinator_pb2 as pb
from tests.coordinator.test_service import Agent, Coordinator, play, two_agents_in_training  # noqa: F401 - play is a fixture


@asynccontextmanager
async def status_of(coordinator: Coordinator) -> AsyncIterator[str]:
    bound = http.bind("127.0.0.1:0")
    pages = http.Pages(CoordinatorConfig(), coordinator.view, coordinator.service, coordinator.address)
    async with http.serving(bound, pages):
        yield http.found_at(bound, "")


async def seen(status: str) -> Any:
    return (await asyncio.to_thread(client.leading, [status]))[1]


async def seen_of(status: str, job: str) -> Any:
    return await asyncio.to_thread(client.job, [status], job)


def zeros(base: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in base.items()}


def test_what_is_seen_of_a_job_is_what_its_sites_have_done(play):  # noqa: F811
    async def scene(coordinator: Coordinator) -> None:
        async with status_of(coordinator) as status:
            name, ewr, jfk, base = await two_agents_in_training(coordinator)
            await ewr.call.write(pb.FromAgent(progress=pb.Progress(job=name, round=1, phase="training", loss=0.5)))
            await ewr.upload(name, zeros(base))
            job = await seen_of(status, name)
            while not any(site["standing"] == "reported" and site["loss"] for site in job["standing"]):
                job = await seen_of(status, name)
            assert (job["status"], job["phase"], job["round"]) == ("running", "training", 1)
            first = job["version"]
            assert {site["site"]: site["standing"] for site in job["standing"]} == {"ewr": "reported", "jfk": "asked"}
            assert job["reason"].startswith("waiting for jfk: 1 of 2")
            everything = await seen(status)
            assert {site["site"]: site["state"] for site in everything["sites"]} == {"ewr": "here", "jfk": "here"}
            assert everything["sites"][0]["work"][0]["loss"] == 0.5
            assert everything["time_s"] >= everything["jobs"][0]["since_s"] >= everything["jobs"][0]["launched_s"]
            assert json.loads(json.dumps(everything, allow_nan=False)) == everything
            await jfk.upload(name, zeros(base))
            committed = await ewr.expect("round_committed")
            job = await seen_of(status, name)
            assert (job["phase"], job["version"]) == ("localizing", committed.version)
            assert committed.version == first + 1
            assert job["history"][0]["commit"]["weights"] == {"ewr": 10, "jfk": 10}
            assert job["history"][0]["commit"]["phases_s"].keys() >= {"scanning", "training", "publishing"}
            kinds = [event["kind"] for event in await asyncio.to_thread(client.job_events, [status], name)]
            assert (kinds[0], kinds.count("cut"), kinds.count("round")) == ("started", 1, 1)

    play(scene)


def test_what_a_site_said_before_it_left_is_not_shown_of_who_comes_back(play):  # noqa: F811
    async def work_of_jfk(status: str) -> tuple[str, list[str]]:
        site = next(site for site in (await seen(status))["sites"] if site["site"] == "jfk")
        return site["state"], [work["phase"] for work in site["work"]]

    async def scene(coordinator: Coordinator) -> None:
        async with status_of(coordinator) as status:
            name, _, jfk, _ = await two_agents_in_training(coordinator)
            await jfk.call.write(pb.FromAgent(progress=pb.Progress(job=name, round=1, phase="training")))
            while await work_of_jfk(status) != ("here", ["training"]):
                pass
            jfk.call.cancel()
            while await work_of_jfk(status) != ("gone", []):
                pass
            await Agent("jfk", coordinator.stub).join()
            assert await work_of_jfk(status) == ("here", [])

    play(scene)


def test_a_job_is_paused_resumed_and_cancelled_through_the_leader_that_is_seen(play):  # noqa: F811
    async def scene(coordinator: Coordinator) -> None:
        async with status_of(coordinator) as status:
            name, *_ = await two_agents_in_training(coordinator)
            now = await asyncio.to_thread(client.control, [status], name, "pause", "ann wants it")
            assert (now["status"], now["reason"]) == ("paused", "ann wants it")
            [job] = (await seen(status))["jobs"]
            assert (job["status"], job["phase"], job["reason"]) == ("paused", None, "ann wants it")
            await asyncio.to_thread(client.control, [status], name, "resume", "")
            assert (await seen(status))["jobs"][0]["status"] in ("queued", "running")
            now = await asyncio.to_thread(client.control, [status], name, "cancel", "")
            assert now["status"] == "cancelled"
            assert now["reason"].startswith("asked by ")
            with pytest.raises(client.NoSuchJob, match="no job 'nothing'"):
                await asyncio.to_thread(client.control, [status], "nothing", "cancel", "")

    play(scene)


def test_a_job_is_followed_to_its_end(play):  # noqa: F811
    async def scene(coordinator: Coordinator) -> None:
        async with status_of(coordinator) as status:
            name = await coordinator.launch(gather_deadline_s=0.01)
            told = [event async for event in client.follow([status], name)]
            assert (told[0]["kind"], told[-1]["kind"]) == ("started", "ended")
            assert "deadline passed without ewr, jfk" in told[-1]["text"]
            with pytest.raises(client.NoSuchJob, match="no job 'nothing'"):
                await anext(client.follow([status], "nothing"))

    play(scene)


@pytest.mark.parametrize("address", ["127.0.0.1", "256.0.0.1:1", "127.0.0.1:port"])
def test_an_address_that_can_not_be_had_is_named_with_its_field(address):
    with pytest.raises(ConfigError, match=f"http_listen: {address}"):
        http.bind(address)


def test_what_listens_everywhere_is_found_where_the_coordinator_is():
    bound = http.bind("0.0.0.0:0")
    assert bound is not None
    with bound:
        assert http.found_at(bound, "eu.example:50551") == f"eu.example:{bound.getsockname()[1]}"
    assert http.found_at(http.bind(""), "eu.example:50551") == ""
