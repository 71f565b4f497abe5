"""Runs seeds, looks for one that breaks a promise, and for the least that breaks it too."""

import gc
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from coordinator import http
from site_agent import datasets
from tests.simulation.rounds.faults import Fault, draw, models_of, places_of
from tests.simulation.rounds.patches import everywhere, patched
from tests.simulation.rounds.processes import Stuck, VirtualLoop
from tests.simulation.rounds.site import SITES
from tests.simulation.rounds.world import Outcome, World

Plant = Callable[[Any], None]
"""A fault of the program's own, for a MonkeyPatch to plant."""

MEMORY = Path("/dev/shm")
"""What is written there waits for no disk."""
MAX_RUNS = 60  # of the search for a shorter history
STORY_LINES = 150
NO_CUT = "cut can't be read again"
"""Why an untouched site may have no part in a round: its leader died before all sites had been told of the cut."""


@dataclass(frozen=True)
class Run:
    """A finished run. violation: of a promise, None where all were kept. outcomes: by model; none after a violation.
    num_waits: how often one was seen to wait for a place at a site."""

    seed: int
    faults: tuple[Fault, ...]
    violation: str | None
    outcomes: dict[str, Outcome]
    story: tuple[str, ...]
    num_waits: int


def nothing(_: Any) -> None:
    pass


def prepare() -> None:
    """For a process that is for runs, and nothing else."""
    logging.disable()  # what counts is in the stories
    torch.set_num_threads(1)
    undisturbed()  # what is imported and parsed once is, too
    gc.freeze()


def run(seed: int, faults: Sequence[Fault], plant: Plant = nothing) -> Run:
    """One run from beginning to end, and the verdict."""
    loop = VirtualLoop()
    folder = Path(tempfile.mkdtemp(prefix="rounds-", dir=MEMORY if MEMORY.is_dir() else None))
    places = places_of(seed)
    world = World(seed, faults, models_of(seed), places, loop, folder)
    gc.disable()  # it would close what dead processes left, at moments that no seed says
    try:
        with patched(loop, world.network, seed) as patch:
            everywhere(patch, datasets.load, lambda *_: SimpleNamespace(frame=range(10)))
            patch.setattr(http, "serving", world.seen.serving)
            plant(patch)
            outcomes = {}
            try:
                outcomes = loop.run_until_complete(world.run())
            except Stuck as stuck:
                world.fail(str(stuck))
            for error in loop.errors:
                world.fail(error)
            violation, story = world.violation, tuple(world.story)
            loop.close()
    finally:
        gc.enable()
        shutil.rmtree(folder, ignore_errors=True)
    if violation is None and faults:
        violation = next(filter(None, (_broken(faults, places, outcomes[model]) for model in outcomes)), None)
    return Run(seed, tuple(faults), violation, outcomes, story, world.seen.num_waits)


@cache
def undisturbed() -> Outcome:
    """What becomes of a job to which nothing happens."""
    calm = run(0, ())
    assert calm.violation is None, calm.violation
    return next(iter(calm.outcomes.values()))


def _broken(faults: Sequence[Fault], places: Mapping[str, int], outcome: Outcome) -> str | None:
    """Which promise the job's end breaks."""
    calm = undisturbed()
    if "internal error" in outcome.reason:
        return outcome.reason
    all_took_part = all(set(sites) == set(SITES) for sites in outcome.weights.values())
    if outcome.status == "finished" and all_took_part and outcome.model != calm.model:
        return "every site took part in every round, and the model is not that of the undisturbed run"
    if outcome.status == "cancelled" and any(fault.kind == "cancel the jobs" for fault in faults):
        return None
    if places or any(fault.touches_sites for fault in faults):
        is_explained = outcome.status == "finished" or "abandoned" in outcome.reason
        return None if is_explained else f"the job {outcome.status}: {outcome.reason}"
    if outcome.status != "finished":
        return f"no site was touched, and the job {outcome.status}: {outcome.reason}"
    if unexplained := {where: why for where, why in outcome.absent.items() if NO_CUT not in why}:
        return f"no site was touched, and one had no part in a round: {unexplained}"
    left_out = {(site, number) for number, site in outcome.absent}
    if outcome.trainings != {training: 1 for training in calm.trainings if training not in left_out}:
        return f"no site was touched, and one trained more than once, or never: {dict(outcome.trainings)}"
    return None


def check(seed: int, plant: Plant = nothing) -> str | None:
    """Which promise the seed breaks; None where it breaks none."""
    return run(seed, draw(seed), plant).violation


def shrink(seed: int, plant: Plant = nothing) -> Run:
    """A run with the fewest and shortest of the seed's faults that still breaks a promise."""
    best = run(seed, draw(seed), plant)
    left = MAX_RUNS
    found_less = best.violation is not None
    while found_less:
        found_less = False
        for less in _less(best.faults)[:left]:
            left -= 1
            tried = run(seed, less, plant)
            if tried.violation is not None:
                best, found_less = tried, True
                break
    return best


def _less(faults: tuple[Fault, ...]) -> list[tuple[Fault, ...]]:
    without = [faults[:at] + faults[at + 1 :] for at in range(len(faults))]
    shorter = [
        (*faults[:at], replace(fault, length_s=round(fault.length_s / 2, 3)), *faults[at + 1 :])
        for at, fault in enumerate(faults)
        if fault.length_s > 0.2
    ]
    return without + shorter


def report(seed: int, plant: Plant = nothing) -> str:
    """The shortest history of the seed that breaks a promise, for people."""
    found = shrink(seed, plant)
    faults = "\n".join(f"  {fault}" for fault in found.faults) or "  none"
    verdict = found.violation or "no promise is broken"
    return f"seed {seed}: {verdict}\nfaults:\n{faults}\nstory:\n" + "\n".join(found.story[-STORY_LINES:])
