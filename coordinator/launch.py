"""`python -m coordinator.launch task=...`: submits a job and follows it. The job goes on when this stops."""

import asyncio
import json
import logging
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
from geotrain.rpc.channels import open_channel

logger = logging.getLogger(__name__)

LAUNCH_DEADLINE_S = 10.0


async def launch(config: LaunchConfig) -> AsyncIterator[pb.JobEvent]:
    """Submit the job and yield its events, from its start to its end.

    Raises ConfigError if the coordinator refuses the job, GeotrainError if it can't be reached.
    """
    job = {field.name: value for field in fields(JobConfig) for value in [asdict(config)[field.name]]}
    async with open_channel(config.coordinator) as channel:
        stub = rpc.CoordinatorStub(channel)
        try:
            reply = await stub.Launch(pb.LaunchRequest(job_json=json.dumps(job)), timeout=LAUNCH_DEADLINE_S)
            async for event in stub.Follow(pb.FollowRequest(job=reply.job)):
                yield event
        except grpc.aio.AioRpcError as error:
            raise _explained(error, config.coordinator) from None


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
