"""Decides whether a phase in which sites report goes on, closes or is given up. Pure."""

from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    WAIT = "wait"
    CLOSE = "close"
    ABANDON = "abandon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    outcome: Outcome
    reason: str


def decide(*, reported: Set[str], expected: Set[str], waited_s: float, min_sites: int, deadline_s: float) -> Decision:
    """What to do with a phase in which `reported` of the `expected` sites have answered, and why."""
    missing = ", ".join(sorted(expected - reported))
    tally = f"{len(reported)} of {len(expected | reported)} sites reported, {min_sites} needed"
    if len(expected | reported) < min_sites:
        return Decision(outcome=Outcome.ABANDON, reason=f"too few sites left: {tally}")
    if expected <= reported:
        return Decision(outcome=Outcome.CLOSE, reason=f"every live site reported: {tally}")
    if waited_s < deadline_s:
        return Decision(outcome=Outcome.WAIT, reason=f"waiting for {missing}: {tally}")
    if len(reported) >= min_sites:
        return Decision(outcome=Outcome.CLOSE, reason=f"{deadline_s:g} s deadline passed without {missing}: {tally}")
    return Decision(outcome=Outcome.ABANDON, reason=f"{deadline_s:g} s deadline passed without {missing}: {tally}")
