"""Whoever launches jobs, follows, pauses, resumes and cancels them: by the programs' own functions, again and again."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import fields

from coordinator.config import JobConfig, LaunchConfig
from coordinator.dial import ask_leader
from coordinator.launch import launch, subject
from geotrain.errors import GeotrainError
from geotrain.program import config_from_json
from geotrain.rpc import coordinator_pb2 as pb
from tests.simulation.rounds.faults import MODELS
from tests.simulation.rounds.invariants import DISCOUNT, OUTER
from tests.simulation.rounds.site import SITES, TASK

ROUNDS = 2
MIN_SITES = dict(zip(MODELS, (2, 3), strict=True))


class Desk:
    """addresses: of the coordinators. tell: takes a line for people. fail: takes what was broken."""

    def __init__(
        self, models: Sequence[str], addresses: list[str], tell: Callable[[str], None], fail: Callable[[str], None]
    ) -> None:
        self._events: dict[str, list[pb.JobEvent]] = {model: [] for model in models}
        self._addresses = addresses
        self._tell = tell
        self._fail = fail

    @property
    def jobs(self) -> dict[str, str]:
        """Those that it follows, by model."""
        return {model: events[0].job for model, events in self._events.items() if events}

    async def run(self) -> None:
        """Launch the jobs, as often as it takes, and follow them to their ends."""
        await asyncio.gather(*(self._follow(model) for model in self._events))

    async def _follow(self, model: str) -> None:
        job = {field.name: getattr(JOBS[model], field.name) for field in fields(JOBS[model])}
        events = self._events[model]
        while not events:
            try:
                async for event in launch(LaunchConfig(**job, coordinator=self._addresses)):
                    events.append(event)
            except GeotrainError as error:
                self._tell(f"desk: {error.what}")
                await asyncio.sleep(1.0)
        self._check_events(events)
        self._tell(f"desk: {model} {events[-1].ended.status}: {events[-1].ended.reason}")

    def _check_events(self, events: Sequence[pb.JobEvent]) -> None:
        """Each happened once, and the last is the end."""
        about = [subject(event) for event in events if subject(event)]
        if len(set(about)) < len(about) or not events[-1].HasField("ended"):
            self._fail(f"the desk was told {about}")

    async def pause(self, job: str, seconds: float) -> None:
        await self._control(job, pb.ControlRequest.PAUSE)
        await asyncio.sleep(seconds)
        await self._control(job, pb.ControlRequest.RESUME)

    async def cancel(self, job: str) -> None:
        await self._control(job, pb.ControlRequest.CANCEL)

    async def _control(self, job: str, action: pb.ControlRequest.Action) -> None:
        """Order it, as often as it takes."""
        request = pb.ControlRequest(job=job, action=action, reason="the desk orders it")
        while True:
            try:
                reply = await ask_leader(self._addresses, lambda stub: stub.Control(request, timeout=10.0))
            except GeotrainError as error:
                self._tell(f"desk: {error.what}")
                await asyncio.sleep(1.0)
            else:
                self._tell(f"desk: {job} is {reply.status}: {reply.reason}")
                return


def _job(model: str) -> JobConfig:
    deadlines = {"gather_deadline_s": 30.0, "phase_deadline_s": 30.0}
    strategy = {"outer": OUTER, "max_staleness": 1, "staleness_discount": DISCOUNT}
    job = {"sites": list(SITES), "min_sites": MIN_SITES[model], "rounds": ROUNDS, "strategy": strategy, **deadlines}
    return config_from_json(JobConfig, json.dumps(job | {"task": TASK | {"name": model}}))


JOBS = {model: _job(model) for model in MODELS}
