"""`python -m coordinator.launch task=...`: submits a job and follows it. The job goes on when this stops."""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, fields

import grpc
import hydra
from omegaconf import DictConfig

from coordinator.config import JobConfig, LaunchConfig, register
from geotrain.errors import ConfigError, GeotrainError, JobFailed
from geotrain.program import run_program
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import open_channel, retry_delays_s

logger = logging.getLogger(__name__)

LAUNCH_DEADLINE_S = 30.0
# How long a coordinator may be away before its follower gives up: the job goes on when it is back, followed or not.
AWAY_DEADLINE_S = 300.0
BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)


async def launch(config: LaunchConfig) -> AsyncIterator[pb.JobEvent]:
    """Submit the job and yield its events, from its start to its end, each once.

    Raises ConfigError if the coordinator refuses the job, GeotrainError if it can't be reached.
    """
    job = {field.name: value for field in fields(JobConfig) for value in [asdict(config)[field.name]]}
    async with open_channel(config.coordinator) as channel:
        stub = rpc.CoordinatorStub(channel)
        try:
            reply = await stub.Launch(pb.LaunchRequest(job_json=json.dumps(job)), timeout=LAUNCH_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            raise _explained(error, config.coordinator) from None
        async for event in follow(stub, reply.job, config.coordinator):
            yield event


async def follow(stub: rpc.CoordinatorStub, job: str, address: str) -> AsyncIterator[pb.JobEvent]:
    """Yield the job's events, each once, to its end; goes on where it was when the stream breaks.

    Raises GeotrainError when the coordinator does not know the job, or is away for too long.
    """
    seen: set[tuple[str, int | str]] = set()
    last_s = 0.0
    away_since_s, delays_s = time.monotonic(), retry_delays_s()
    while True:
        try:
            async for event in stub.Follow(pb.FollowRequest(job=job)):
                away_since_s, delays_s = math.inf, retry_delays_s()
                # The coordinator tells a job from its start; after a restart, without its sites' progress.
                about = subject(event)
                if about in seen or (about is None and event.time_s <= last_s):
                    continue
                last_s = max(last_s, event.time_s)
                if about is not None:
                    seen.add(about)
                yield event
                if event.HasField("ended"):
                    return
        except grpc.aio.AioRpcError as error:
            if error.code() not in BROKEN:
                raise _explained(error, address) from None
        away_since_s = min(away_since_s, time.monotonic())
        if time.monotonic() - away_since_s > AWAY_DEADLINE_S:
            raise GeotrainError(
                f"coordinator: it has not answered at {address} for {AWAY_DEADLINE_S:g} s; job {job} is not lost",
                "Start the coordinator again, and the job goes on.",
            )
        await asyncio.sleep(next(delays_s))


def subject(event: pb.JobEvent) -> tuple[str, int | str] | None:
    """What an event is about, where a job has only one such event; None for a site's progress."""
    match event.WhichOneof("body"):
        case "cut":
            return "cut", event.cut.round
        case "round":
            return "round", event.round.round
        case "localized":
            return "localized", event.localized.site
        case "started" | "ended" as kind:
            return kind, ""
    return None


def _explained(error: grpc.aio.AioRpcError, address: str) -> GeotrainError:
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return ConfigError(error.details() or "the job was refused")
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return GeotrainError(
            f"coordinator: no coordinator answers at {address}",
            "Start one with `python -m coordinator`, or name its address with coordinator=HOST:PORT.",
        )
    return GeotrainError(f"coordinator at {address}: {error.details()}")


def describe(event: pb.JobEvent) -> str | None:
    """One line for people, for the events worth one."""
    match event.WhichOneof("body"):
        case "started":
            return f"job {event.job}: {event.started.rounds} rounds at {', '.join(event.started.sites)}"
        case "cut":
            agreement = "equal everywhere" if event.cut.equal else f"{event.cut.dropped} rows dropped"
            return f"round {event.cut.round}: cut of {event.cut.rows} rows, {agreement}"
        case "round":
            loss = ", ".join(f"{site} {value:.4f}" for site, value in sorted(event.round.loss.items()))
            return f"round {event.round.round}: committed as version {event.round.version}, loss {loss}"
        case "localized":
            metrics = ", ".join(f"{name} {value:.4f}" for name, value in sorted(event.localized.metrics.items()))
            return f"{event.localized.state}: {event.localized.rows} rows, {metrics}"
        case "ended":
            return f"job {'finished' if event.ended.finished else 'failed'}: {event.ended.reason}"
    return None


async def _follow(config: LaunchConfig) -> float:
    localized: list[float] = []
    async for event in launch(config):
        line = describe(event)
        if line is not None:
            logger.info("%s", line)
        if event.HasField("localized"):
            localized.append(event.localized.metrics["localized"])
        if event.HasField("ended") and not event.ended.finished:
            raise JobFailed(event.ended.reason)
    return sum(localized) / len(localized)


register()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="launch")
def main(cfg: DictConfig) -> float | None:
    """Returns the localized models' mean metric, for sweeps that optimise it."""
    return run_program(cfg, lambda config: asyncio.run(_follow(config)))


if __name__ == "__main__":
    main()
