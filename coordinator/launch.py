"""`python -m coordinator.launch task=...`: submits a job, follows it to its end, and leaves its report. The job goes on
when this stops."""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import grpc
import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from coordinator.config import JobConfig, LaunchConfig, register
from coordinator.dial import CALL_DEADLINE_S, Leader, ask_leader
from coordinator.eventlog import SIGN_OF_LIFE_S
from coordinator.history import describe
from coordinator.report import report
from coordinator.requests import new_request_id
from geotrain.errors import GeotrainError, JobFailed
from geotrain.program import run_program
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc import tls
from geotrain.rpc.channels import open_channel, retry_delays_s

logger = logging.getLogger(__name__)

# How long a coordinator may be away before its follower gives up: the job goes on when it is back, followed or not.
AWAY_DEADLINE_S = 300.0
# After this the coordinator is taken for one that stands still, and the others are asked who leads.
SILENCE_S = 3 * SIGN_OF_LIFE_S


async def launch(config: LaunchConfig) -> AsyncIterator[pb.JobEvent]:
    """Submit the job and yield its events, from its start to its end, each once.

    Raises ConfigError if the coordinator refuses the job, GeotrainError if none can be reached.
    """
    identity = tls.load(config.tls, tls.OPERATOR)
    given = asdict(config)
    job = {field.name: given[field.name] for field in fields(JobConfig)}
    # Under one id: a launch that was not answered may have been noted all the same.
    request = pb.LaunchRequest(job_json=json.dumps(job), request_id=config.request_id or new_request_id())
    reply = await ask_leader(config.addresses, lambda stub: stub.Launch(request, timeout=CALL_DEADLINE_S), identity)
    async for event in follow(config.addresses, reply.job, identity):
        yield event


async def follow(
    addresses: Sequence[str], job: str, identity: tls.Identity | None = None
) -> AsyncIterator[pb.JobEvent]:
    """Yield the job's events, each once, to its end, under whoever leads; goes on where it was when a stream breaks.

    Raises GeotrainError when the leader does not know the job, or none answers for too long.
    """
    told = Told()
    leader, delays_s, away_since_s = Leader(addresses), retry_delays_s(), time.monotonic()
    while True:
        try:
            async with open_channel(leader.address, identity) as channel:
                async for event in _events(rpc.CoordinatorStub(channel).Follow(pb.FollowRequest(job=job))):
                    away_since_s, delays_s = math.inf, retry_delays_s()
                    if not told.is_news(event):
                        continue
                    yield event
                    if event.HasField("ended"):
                        return
        except grpc.aio.AioRpcError as error:
            if leader.look_on(error):
                continue
        except TimeoutError:
            leader.fell_silent()
        away_since_s = min(away_since_s, time.monotonic())
        if time.monotonic() - away_since_s > AWAY_DEADLINE_S:
            raise GeotrainError(
                f"coordinator: none has answered at {leader} for {AWAY_DEADLINE_S:g} s; job {job} is not lost",
                "Start the coordinator again, and the job goes on.",
            )
        await asyncio.sleep(next(delays_s))


async def _events(call: grpc.aio.UnaryStreamCall) -> AsyncIterator[pb.JobEvent]:
    """What is told in one call. Raises TimeoutError when the coordinator falls silent."""
    while True:
        async with asyncio.timeout(SILENCE_S):
            event: Any = await call.read()
        if event is grpc.aio.EOF:
            return
        if event.WhichOneof("body"):
            yield event


class Told:
    """What a follower knows of a job: a coordinator tells it from its start; after a restart, without its sites'
    progress and the cuts that were replaced."""

    def __init__(self) -> None:
        self._subjects: set[tuple[str, float | str]] = set()
        self._cuts: dict[int, pb.CutEvent] = {}  # the last of each round
        self._last_s = 0.0

    def is_news(self, event: pb.JobEvent) -> bool:
        """Take the next event that is told."""
        about = subject(event)
        is_news = about not in self._subjects if about else event.time_s > self._last_s
        if event.HasField("cut"):  # another one that says the same of the same round tells nobody anything
            is_news = is_news and self._cuts.get(event.cut.round) != event.cut
        if about:
            self._subjects.add(about)
        if is_news:
            self._last_s = max(self._last_s, event.time_s)
            if event.HasField("cut"):
                self._cuts[event.cut.round] = event.cut
        return is_news


def subject(event: pb.JobEvent) -> tuple[str, float | str] | None:
    """What an event is about, where a job has only one such event; None for a site's progress."""
    match event.WhichOneof("body"):
        case "cut":
            return "cut", event.time_s  # a round's may be replaced by another
        case "round":
            return "round", event.round.round
        case "localized":
            return "localized", event.localized.site
        case "started" | "ended" as kind:
            return kind, ""
    return None


async def _follow(config: LaunchConfig, folder: Path) -> float:
    """Leaves report.json in the folder. Returns the localized models' mean metric."""
    logger.info("%s", tls.described(config.tls))
    events: list[pb.JobEvent] = []
    async for event in launch(config):
        line = describe(event)
        if line is not None:
            logger.info("%s", line)
            events.append(event)
    path = folder / "report.json"
    path.write_text(json.dumps(report(events), indent=2, allow_nan=False) + "\n")
    logger.info("report: %s", path)
    if event.ended.status != "finished":
        raise JobFailed(event.ended.reason)
    localized = [event.localized.metrics["localized"] for event in events if event.HasField("localized")]
    return sum(localized) / len(localized)


register()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="launch")
def main(cfg: DictConfig) -> float | None:
    """Returns the localized models' mean metric, for sweeps that optimise it."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    return run_program(cfg, lambda config: asyncio.run(_follow(config, folder)))


if __name__ == "__main__":
    main()
