"""Decides whether a phase in which sites report goes on, closes or is given up. Pure."""

import math
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


def decide(
    *,
    reported: Set[str],
    expected: Set[str],
    waited_s: float,
    min_sites: int,
    deadline_s: float,
    away: Set[str] = frozenset(),
    quorum_waited_s: float = 0.0,
    grace_s: float = math.inf,
) -> Decision:
    """What to do with a phase in which `reported` of the `expected` sites have answered, and why.

    away: sites that have left and may come back: waited for only where there are too few without them.
    quorum_waited_s: since `min_sites` had reported; after grace_s of it the others are not waited for any more.
    """
    here = expected | reported
    missing = ", ".join(sorted(expected - reported))
    tally = f"{len(reported)} of {len(here)} sites reported, {min_sites} needed"
    if len(here) < min_sites:
        if len(here | away) < min_sites:
            return Decision(outcome=Outcome.ABANDON, reason=f"too few sites left: {tally}")
        gone = ", ".join(sorted(away - here))
        if waited_s < deadline_s:
            return Decision(outcome=Outcome.WAIT, reason=f"waiting for {gone} to come back: {tally}")
        return Decision(outcome=Outcome.ABANDON, reason=f"{gone} did not come back within {deadline_s:g} s: {tally}")
    if expected <= reported:
        return Decision(outcome=Outcome.CLOSE, reason=f"every live site reported: {tally}")
    enough = len(reported) >= min_sites
    if waited_s >= deadline_s:
        outcome = Outcome.CLOSE if enough else Outcome.ABANDON
        return Decision(outcome=outcome, reason=f"{deadline_s:g} s deadline passed without {missing}: {tally}")
    if enough and quorum_waited_s >= grace_s:
        return Decision(outcome=Outcome.CLOSE, reason=f"{grace_s:g} s grace passed without {missing}: {tally}")
    return Decision(outcome=Outcome.WAIT, reason=f"waiting for {missing}: {tally}")
