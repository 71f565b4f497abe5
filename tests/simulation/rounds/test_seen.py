"""The simulation notices a coordinator that shows what is not so."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coordinator import membership
from coordinator.membership import Membership
from coordinator.runner import JobRunner
from geotrain.rpc import coordinator_pb2 as pb
from tests.simulation.rounds.search import check

SEEDS_TO_FIND = 60


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def a_site_that_died_stays(patch: pytest.MonkeyPatch) -> None:
    handle = Membership.handle

    def forgetful(self: Membership, event: membership.Event, *, now_s: float) -> Any:
        gone = isinstance(event, membership.Tick | membership.HungUp)
        return [] if gone else handle(self, event, now_s=now_s)

    patch.setattr(Membership, "handle", forgetful)


def a_job_that_stopped_runs_on(patch: pytest.MonkeyPatch) -> None:
    stop = JobRunner.stop

    async def forgetful(self: JobRunner, stopped: Any) -> None:
        before = self.facts
        await stop(self, stopped)
        self.facts = before

    patch.setattr(JobRunner, "stop", forgetful)


def what_a_site_did_first_it_does_for_ever(patch: pytest.MonkeyPatch) -> None:
    take = JobRunner.take_progress

    def deaf(self: JobRunner, site: str, progress: pb.Progress) -> None:
        known = self.progress.get(site)
        take(self, site, known if known and known.phase == "training" else progress)

    patch.setattr(JobRunner, "take_progress", deaf)


@pytest.mark.parametrize(
    "plant", [a_site_that_died_stays, a_job_that_stopped_runs_on, what_a_site_did_first_it_does_for_ever]
)
def test_a_coordinator_that_shows_what_is_not_so_is_found(plant: Callable[[Any], None]):
    found = (violation for seed in range(SEEDS_TO_FIND) if (violation := check(seed, plant)))
    assert any("shows what is not so" in violation for violation in found)
