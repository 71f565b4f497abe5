"""Every seed another history of a job under faults; and the simulation finds what is planted."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator import cuts, runner
from coordinator.facts import JobFacts
from coordinator.ledger import Ledger
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.updates.chunks import Spool
from site_agent.held import HeldUpdates
from site_agent.jobs import SiteJobs
from site_agent.outlet import Outlet
from site_agent.work import JobWork, Report
from tests.simulation.rounds.faults import COORDINATORS, Fault, draw
from tests.simulation.rounds.search import check, report, run, shrink

SEEDS_PER_TEST = 10
NUM_SEEDS = 240
SEEDS_TO_FIND = 100
"""Within which every planted fault must be found."""


KINDS = {
    *("crash", "last words", "stop", "pause", "skew"),
    *("unanswered", "slow store", "no store"),
    *("break", "cut", "slow link"),
    *("pause the jobs", "cancel the jobs"),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, NUM_SEEDS, SEEDS_PER_TEST))
def test_jobs_keep_their_promises_under_faults(first):
    broken = {seed: violation for seed in range(first, first + SEEDS_PER_TEST) if (violation := check(seed))}
    assert not broken, report(min(broken))


def test_a_seed_says_it_all():
    seeds = [9, 10, 3005, 3052, 3054]  # in the last three several calls are cancelled at once
    first, again = ([run(seed, draw(seed)).story for seed in seeds] for _ in range(2))
    assert first == again
    assert first[0] != first[1]


def test_the_histories_have_what_is_worth_checking():
    seen: Counter[str] = Counter()
    for seed in range(60):
        found = run(seed, draw(seed))
        story = "\n".join(found.story)
        seen["leaders"] += story.count("gt_lease/leader status= epoch=2")
        seen["taken over while open"] += any("status=open epoch=2" in line for line in found.story)
        seen["exits"] += story.count(" exits: ")
        seen["rounds without a site"] += any(
            len(sites) < 3 for outcome in found.outcomes.values() for sites in outcome.weights.values()
        )
        seen["waits for a place"] += found.num_waits
        seen["replaced cuts"] += sum(outcome.num_replaced_cuts for outcome in found.outcomes.values())
    assert min(seen.values()) > 0, seen


def test_every_kind_of_fault_is_drawn_often():
    drawn = Counter(kind for seed in range(1000) for kind in {fault.kind for fault in draw(seed)})
    assert set(drawn) == KINDS
    assert min(drawn.values()) > 20, drawn


def drop_a_fence(patch: Any) -> None:
    """A leader that takes a job lets its open round be, so that what the leader before it has sent may still land."""
    patch.setattr(Ledger, "_next", lambda self, facts, config: {})


def acknowledge_before_spooling(patch: Any) -> None:
    """The coordinator says that it has an update when the last chunk has come, whether or not it lies in the spool."""
    patch.setattr(Spool, "finish", lambda self: None)


def forget_what_was_kept(patch: Any) -> None:
    """An agent says that it has kept its update before it has."""
    patch.setattr(HeldUpdates, "of", lambda self, job: None)


def commit_twice(patch: Any) -> None:
    """A leader that takes a job begins with the round that was committed last."""
    read = Ledger.facts

    def all_but_the_last_commit(self: Ledger) -> JobFacts:
        facts = read(self)
        if not facts.committed or facts.open_round:
            return facts
        return replace(facts, rounds=(*facts.rounds[:-1], replace(facts.rounds[-1], commit=None)))

    patch.setattr(Ledger, "facts", all_but_the_last_commit)


def take_a_cut_that_is_read_again_for_the_same(patch: Any) -> None:
    """A site that has lost its cut is believed to read the same rows again."""
    patch.setattr(cuts, "same_as", lambda known, read: set(read))


def keep_what_sites_read_differently(patch: Any) -> None:
    """A site does not drop the rows that others have in other versions."""
    drop = JobWork.cut_decided

    def keep(self: JobWork, decided: pb.CutDecided) -> Iterator[Report]:
        decided.ClearField("drop")
        return drop(self, decided)

    patch.setattr(JobWork, "cut_decided", keep)


def keep_who_waits_waiting(patch: Any) -> None:
    """A site that has done with a job lets those wait that wait for its place."""
    patch.setattr(SiteJobs, "_freed", lambda self: None)


def say_nothing_of_waiting(patch: Any) -> None:
    """A site does not say that a job waits for a place."""
    send = Outlet.send

    async def keep_back(self: Outlet, message: pb.FromAgent) -> None:
        if message.WhichOneof("body") != "waiting":
            await send(self, message)

    patch.setattr(Outlet, "send", keep_back)


def count_deadlines_by_the_wall_clock(patch: Any) -> None:
    patch.setattr(runner, "time", SimpleNamespace(time=lambda: time.time(), monotonic=lambda: time.time()))


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        (acknowledge_before_spooling, "the jobs have not ended"),
        (forget_what_was_kept, "though its update was not lost"),
        (commit_twice, "counts already, and is written again"),
        (take_a_cut_that_is_read_again_for_the_same, "as of one cut"),
        (keep_what_sites_read_differently, "as of one cut"),
        (keep_who_waits_waiting, "waits though there is a place"),
        (say_nothing_of_waiting, "does not say that it waits"),
    ],
)
def test_a_planted_fault_of_the_program_is_found(plant: Callable[[Any], None], what: str):
    found = (what in (check(seed, plant) or "") for seed in range(SEEDS_TO_FIND))
    assert any(found), f"not found within {SEEDS_TO_FIND} seeds"


def test_a_fence_left_out_is_found_where_a_leader_stands_still_in_mid_round():
    away = Fault("pause", "agent-jfk", at_s=0.9, length_s=14.0)
    counts = range(20, 60, 2)
    stills = [Fault("pause", COORDINATORS[0], after="messages", count=count, length_s=11.3) for count in counts]
    assert not any(run(87, [still, away]).violation for still in stills)
    found = (run(87, [still, away], drop_a_fence).violation or "" for still in stills)
    assert any("landed under epoch" in violation for violation in found)


def test_setting_the_wall_clock_in_mid_run_ends_no_phase():
    steps = [
        Fault("skew", COORDINATORS[0], after="messages", count=count, length_s=5.0, detail="3600.0")
        for count in range(20, 60, 4)
    ]
    assert not any(run(8, [step]).violation for step in steps)
    assert any("deadline" in (run(8, [step], count_deadlines_by_the_wall_clock).violation or "") for step in steps)


def test_a_history_is_shrunk_to_what_it_takes():
    seed = next(seed for seed in range(SEEDS_TO_FIND) if len(draw(seed)) > 3 and check(seed, commit_twice))
    found = shrink(seed, commit_twice)
    assert found.violation
    assert len(found.faults) < 3
    said = report(seed, commit_twice)
    assert said.startswith(f"seed {seed}: {found.violation}")
    assert all(str(fault) in said for fault in found.faults)
