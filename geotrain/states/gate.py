"""Decides whether a new state goes to production or stays a candidate. Pure: knows no store and no clock."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Gate:
    """What a new state must measure to become production; otherwise it is a candidate.

    metric: which of the metrics that sites report, greater being better but for `loss`; empty: there is no gate, and
        every state is production
    min_gain: the least by which the mean over the sites must be better than production's; below 0, how much worse it
        may be
    max_drop: the most by which any single site may be worse off than with production; none: any
    """

    metric: str = ""
    min_gain: float = 0.0
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if not self.metric and (self.min_gain or self.max_drop is not None):
            raise ValueError("gate.metric must name the metric of gate.min_gain and gate.max_drop, such as loss")
        if not math.isfinite(self.min_gain):
            raise ValueError(f"gate.min_gain must be finite, got {self.min_gain}")
        if self.max_drop is not None and not self.max_drop >= 0:
            raise ValueError(f"gate.max_drop must be at least 0, got {self.max_drop}")


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a new state goes, and why."""

    alias: str
    reason: str


Measured = Mapping[str, Mapping[str, float]]  # site -> metric -> value


def decide(gate: Gate, new: Measured, current: Measured | None, weights: Mapping[str, float]) -> Decision:
    """Returns where a state goes that measures `new` while production measures `current`; None: there is none yet.

    weights: of the sites in the mean. A site that has not measured both counts in neither. Where no site has measured
    production, such as a job's first model, any state goes there that is measured.
    """
    if current is None:
        return Decision("production", "it is the first")
    after, before = _finite(new, gate.metric), _finite(current, gate.metric)
    if after and not before:  # else nothing that comes after a job's first model, or an import, would ever be let in
        return Decision("production", f"no site has measured {gate.metric} of production: there is nothing to compare")
    sites = sorted(after.keys() & before.keys() & weights.keys())
    total = sum(weights[site] for site in sites)
    if not total > 0:
        return Decision("candidate", f"no site has measured {gate.metric} of both it and production")
    sign = -1.0 if gate.metric == "loss" else 1.0
    gains = {site: sign * (after[site] - before[site]) for site in sites}
    gain = sum(weights[site] * gains[site] for site in sites) / total
    worst = min(sites, key=gains.__getitem__)
    measured = f"{gate.metric} is {gain:+.4g} better in the mean of {len(sites)} sites, {gains[worst]:+.4g} at {worst}"
    if gain < gate.min_gain:
        return Decision("candidate", f"{measured}: min_gain is {gate.min_gain:g}")
    if gate.max_drop is not None and -gains[worst] > gate.max_drop:
        return Decision("candidate", f"{measured}: max_drop is {gate.max_drop:g}")
    return Decision("production", measured)


def _finite(measured: Measured, metric: str) -> dict[str, float]:
    return {site: of[metric] for site, of in measured.items() if metric in of and math.isfinite(of[metric])}
