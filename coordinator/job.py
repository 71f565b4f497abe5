"""The life of a job: events in, instructions out. Pure: no clock, no network, no store, no logging.

Time is an argument, in seconds since the Unix epoch. What an event or an instruction carries for others (updates'
paths, statistics) is passed on, never looked into.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from coordinator import events, instructions
from coordinator.events import Event
from coordinator.instructions import Instruction
from geotrain.view.cut import Cut, Digests, Rows, among, differing, reconcile


class Outcome(StrEnum):
    WAIT = "wait"
    CLOSE = "close"
    ABANDON = "abandon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    outcome: Outcome
    reason: str


def decide(*, reported: set[str], expected: set[str], waited_s: float, min_sites: int, deadline_s: float) -> Decision:
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


class Phase(StrEnum):
    GATHERING = "gathering"
    SCANNING = "scanning"
    RECONCILING = "reconciling"
    SUMMARIZING = "summarizing"
    TRAINING = "training"
    PUBLISHING = "publishing"
    LOCALIZING = "localizing"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The part of a job's configuration that decides."""

    sites: tuple[str, ...]
    min_sites: int
    rounds: int
    gather_deadline_s: float
    phase_deadline_s: float
    skew_margin_s: float


class Job:
    """A job's state. `handle` is the only thing that changes it."""

    def __init__(self, rules: Rules, *, now_s: float) -> None:
        self.rules = rules
        self.phase = Phase.GATHERING
        self.round = 0
        self.base_version = 0
        self.reason = "waiting for sites"
        self.story: deque[str] = deque(maxlen=200)
        self._since_s = now_s
        self._round_opened_s = now_s
        self._connected: set[str] = set()
        self._prepared: set[str] = set()
        self._failures: dict[str, str] = {}
        self._expected: set[str] = set(rules.sites)
        self._reports: dict[str, Any] = {}
        self._cut_reports: dict[str, events.CutReported] = {}
        self._localized: set[str] = set()

    def handle(self, event: Event, *, now_s: float) -> list[Instruction]:
        """Take one event; return what is to be done, in this order."""
        if self.phase is Phase.ENDED:
            return []
        if not isinstance(event, events.Tick):
            self.story.append(
                f"{now_s:.3f} {self.phase} r{self.round} {type(event).__name__} {getattr(event, 'site', '')}"
            )
        instructions = self._take(event, now_s)
        return instructions + self._go_on(now_s)

    def _take(self, event: Event, now_s: float) -> list[Instruction]:
        match event:
            case events.SiteJoined(site) if site in self.rules.sites:
                self._connected.add(site)
                return [instructions.Prepare(site)]
            case events.SiteLeft(site, reason):
                self._connected.discard(site)
                self._prepared.discard(site)
                self._lose(site, reason)
            case events.SiteFailed(site, reason, number) if number in (None, self.round):
                # It may answer the next round's cut again, unless it never accepted the task.
                self._lose(site, reason)
            case events.SitePrepared(site) if site in self._connected:
                self._prepared.add(site)
                self._failures.pop(site, None)
                self._report(Phase.GATHERING, site, event)
            case events.CutReported(site=site, round=self.round):
                self._report(Phase.SCANNING, site, event)
            case events.CutRowsListed(site=site, round=self.round):
                self._report(Phase.RECONCILING, site, event)
            case events.StatisticsReported(site=site):
                self._report(Phase.SUMMARIZING, site, event)
            case events.UpdateArrived(site=site, round=self.round):
                self._report(Phase.TRAINING, site, event)
            case events.UpdateArrived(site=site, round=0) if self._awaits(Phase.LOCALIZING, site):
                if site not in self._localized:
                    self._localized.add(site)
                    return [instructions.PublishLocalized(event, self.base_version)]
            case events.LocalizedPublished(site):
                self._report(Phase.LOCALIZING, site, event)
            case events.Published(version) if self.phase is Phase.PUBLISHING:
                return self._published(version, now_s)
        return []

    def _lose(self, site: str, reason: str) -> None:
        if site in self.rules.sites:
            self._failures[site] = reason
        # While gathering, a site that has left may come back before the deadline; one that refused will not.
        if self.phase is not Phase.GATHERING or site in self._connected:
            self._expected.discard(site)
        # What a site has delivered whole stays good without it; a cut is of no use without its site.
        if self.phase not in (Phase.TRAINING, Phase.LOCALIZING):
            self._reports.pop(site, None)

    def _awaits(self, phase: Phase, site: str) -> bool:
        return self.phase is phase and site in self._expected

    def _report(self, phase: Phase, site: str, event: Event) -> None:
        if self._awaits(phase, site):
            self._reports.setdefault(site, event)

    def _go_on(self, now_s: float) -> list[Instruction]:
        """Close the phase if it can be closed."""
        if self.phase in (Phase.PUBLISHING, Phase.ENDED):
            return []
        gathering = self.phase is Phase.GATHERING
        decision = decide(
            reported=set(self._reports),
            expected=self._expected,
            waited_s=now_s - self._since_s,
            min_sites=self.rules.min_sites,
            deadline_s=self.rules.gather_deadline_s if gathering else self.rules.phase_deadline_s,
        )
        self.reason = decision.reason
        if decision.outcome is Outcome.WAIT:
            return []
        if decision.outcome is Outcome.ABANDON:
            return self._end(False, self._with_failures(f"{self.phase} abandoned: {decision.reason}"))
        close: dict[Phase, Callable[[float, str], list[Instruction]]] = {
            Phase.GATHERING: self._open_round,
            Phase.SCANNING: self._compare,
            Phase.RECONCILING: self._reconcile,
            Phase.SUMMARIZING: self._start_model,
            Phase.TRAINING: self._close_round,
            Phase.LOCALIZING: self._finish,
        }
        return close[self.phase](now_s, decision.reason)

    def _enter(self, phase: Phase, sites: set[str], now_s: float) -> tuple[str, ...]:
        self.phase, self._since_s, self._expected, self._reports = phase, now_s, set(sites), {}
        return tuple(sorted(sites))

    def _open_round(self, now_s: float, reason: str) -> list[Instruction]:
        self.round += 1
        self._round_opened_s = now_s
        self._cut_reports = {}
        sites = self._enter(Phase.SCANNING, self._prepared & self._connected, now_s)
        cut = Cut.before(now_s, self.rules.skew_margin_s)
        return [instructions.ScanCut(sites, self.round, cut.until_ns, self.base_version)]

    def _compare(self, now_s: float, reason: str) -> list[Instruction]:
        self._cut_reports = dict(self._reports)
        partitions = differing({site: report.fingerprints for site, report in self._cut_reports.items()})
        if not partitions:
            return self._cut_decided({}, now_s)
        sites = self._enter(Phase.RECONCILING, set(self._cut_reports), now_s)
        return [instructions.ListCutRows(sites, self.round, partitions)]

    def _reconcile(self, now_s: float, reason: str) -> list[Instruction]:
        return self._cut_decided(reconcile({site: listed.rows for site, listed in self._reports.items()}), now_s)

    def _cut_decided(self, drop: Mapping[str, Digests], now_s: float) -> list[Instruction]:
        members = set(self._reports)
        # Any site will do: what each keeps is the same everywhere.
        first = min(members)
        lost = sum(
            int(among(self._reports[first].rows.get(name, Rows.none()).digests, digests).sum())
            for name, digests in drop.items()
        )
        decided = instructions.DecideCut(
            tuple(sorted(members)),
            self.round,
            rows=sum(self._cut_reports[first].rows.values()) - lost,
            drop=drop,
            equal=not drop,
            fingerprints=self._cut_reports[first].fingerprints,
        )
        if self.base_version == 0:
            return [decided, instructions.AskStatistics(self._enter(Phase.SUMMARIZING, members, now_s), self.round)]
        return [decided, instructions.Train(self._enter(Phase.TRAINING, members, now_s), self.round, self.base_version)]

    def _start_model(self, now_s: float, reason: str) -> list[Instruction]:
        statistics = {site: report.statistics for site, report in sorted(self._reports.items())}
        self._enter(Phase.PUBLISHING, set(statistics), now_s)
        return [instructions.PublishInitial(statistics)]

    def _close_round(self, now_s: float, reason: str) -> list[Instruction]:
        updates = tuple(self._reports[site] for site in sorted(self._reports))
        self._enter(Phase.PUBLISHING, set(self._reports), now_s)
        return [instructions.PublishRound(self.round, self.base_version, updates, now_s - self._round_opened_s, reason)]

    def _published(self, version: int, now_s: float) -> list[Instruction]:
        initial, self.base_version = self.base_version == 0, version
        if initial:
            sites = self._enter(Phase.TRAINING, self._expected & self._prepared, now_s)
            return [instructions.Train(sites, self.round, version)]
        if self.round < self.rules.rounds:
            # The sites that are here go on at once, if they are enough; one that comes back joins a later round.
            ready = self._prepared & self._connected
            enough = len(ready) >= self.rules.min_sites
            self._enter(Phase.GATHERING, ready if enough else set(self.rules.sites), now_s)
            self._reports = {site: events.SitePrepared(site) for site in ready}
            return []
        return [instructions.Localize(self._enter(Phase.LOCALIZING, self._prepared & self._connected, now_s), version)]

    def _finish(self, now_s: float, reason: str) -> list[Instruction]:
        return self._end(
            True, self._with_failures(f"{self.rules.rounds} rounds, localized at {', '.join(sorted(self._reports))}")
        )

    def _end(self, finished: bool, reason: str) -> list[Instruction]:
        self.phase, self.reason = Phase.ENDED, reason
        return [instructions.End(finished, reason)]

    def _with_failures(self, reason: str) -> str:
        if not self._failures:
            return reason
        return f"{reason} ({'; '.join(f'{site}: {why}' for site, why in sorted(self._failures.items()))})"
