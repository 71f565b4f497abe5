"""The life of a job: events in, instructions out. Pure: no clock, no network, no store, no logging.

Time is an argument, in seconds since the Unix epoch. What an event or an instruction carries for others (updates'
paths, statistics) is passed on, never looked into. A job that was left unfinished goes on from what the ledger says of
it; a new one is a job of which it says nothing.
"""

from collections import deque
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from coordinator import cuts, events, instructions
from coordinator.events import Event, Held
from coordinator.facts import JobFacts, RoundFacts
from coordinator.instructions import Instruction
from coordinator.quorum import Outcome, decide
from geotrain.view.cut import Cut, Digests, differing, reconcile


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


NOTHING = JobFacts()


class Job:
    """A job's state. `handle` is the only thing that changes it."""

    def __init__(self, rules: Rules, *, now_s: float, facts: JobFacts = NOTHING) -> None:
        self.rules = rules
        self.phase = Phase.GATHERING
        self.round = facts.rounds[-1].round if facts.rounds else 0
        self.base_version = facts.version
        self.reason = "waiting for sites"
        self.story: deque[str] = deque(maxlen=200)
        self._committed = max((past.round for past in facts.committed), default=0)
        self._since_s = now_s
        self._round_opened_s = now_s
        self._connected: set[str] = set()
        self._prepared: dict[str, events.SitePrepared] = {}
        self._failures: dict[str, str] = {}
        self._cut_reports: dict[str, events.CutReported] = {}
        # Sites whose own state is published, or about to be.
        self._localized: set[str] = set(facts.localized)
        # The round whose cut is still needed: the open one, or the last one while sites localize.
        self._left: RoundFacts | None = facts.open_round
        if self._committed == rules.rounds:
            self._left = facts.rounds[-1]
        self._proof: Mapping[str, str] | None = None
        self._expected: set[str] = set(facts.open_round.sites if facts.open_round else rules.sites)
        # Sites that have done before what others are asked in this phase.
        self._done: set[str] = set(facts.localized)
        self._reports: dict[str, Any] = {}

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
                self._prepared.pop(site, None)
                self._lose(site, reason)
            case events.SiteFailed(site, reason, number) if number in (None, self.round):
                # It may answer the next round's cut again, unless it never accepted the task.
                self._lose(site, reason)
            case events.SitePrepared(site) if site in self._connected:
                self._prepared[site] = event
                self._failures.pop(site, None)
                self._report(Phase.GATHERING, site, event)
                return self._readmit(site)
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
            self._done -= {site} - self._localized

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
            reported=self._reports.keys() | self._done,
            expected=self._expected | self._done,
            waited_s=now_s - self._since_s,
            min_sites=self.rules.min_sites,
            deadline_s=self._gather_deadline_s() if gathering else self.rules.phase_deadline_s,
        )
        self.reason = decision.reason
        if decision.outcome is Outcome.WAIT:
            return []
        if decision.outcome is Outcome.ABANDON:
            return self._end(False, self._with_failures(f"{self.phase} abandoned: {decision.reason}"))
        close: dict[Phase, Callable[[float, str], list[Instruction]]] = {
            Phase.GATHERING: self._gathered,
            Phase.SCANNING: self._compare,
            Phase.RECONCILING: self._reconcile,
            Phase.SUMMARIZING: self._start_model,
            Phase.TRAINING: self._close_round,
            Phase.LOCALIZING: self._finish,
        }
        return close[self.phase](now_s, decision.reason)

    def _gather_deadline_s(self) -> float:
        # What a site was asked before it lost its coordinator may still be under way; it answers after that.
        return self.rules.gather_deadline_s + (self.rules.phase_deadline_s if self._left else 0)

    def _enter(self, phase: Phase, sites: Set[str], now_s: float, *, done: Set[str] = frozenset()) -> tuple[str, ...]:
        self.phase, self._since_s, self._expected, self._done, self._reports = phase, now_s, set(sites), set(done), {}
        return tuple(sorted(sites))

    def _gathered(self, now_s: float, reason: str) -> list[Instruction]:
        if self._left:
            left, self._left = self._left, None
            return self._take_up(left, now_s)
        self.round += 1
        self._round_opened_s = now_s
        return self._scan(Cut.before(now_s, self.rules.skew_margin_s), set(self._prepared), now_s)

    def _take_up(self, left: RoundFacts, now_s: float) -> list[Instruction]:
        """Go on in a round that another coordinator left: the same cut, the same base, nothing done twice."""
        self._round_opened_s = left.opened_s
        members = self._prepared.keys() if left.commit else self._prepared.keys() & set(left.sites)
        sites = members - self._localized
        able = {site for site in sites if self._can_answer(site)}
        if self.base_version and sites == able:
            return self._ask(able, now_s)
        if self.base_version and able and left.cut:
            self._proof = {} if left.cut.dropped else left.cut.proof
            return self._scan(Cut(left.until_ns), sites - able, now_s, done=able | self._localized)
        return self._scan(Cut(left.until_ns), sites, now_s, done=self._localized)

    def _scan(self, cut: Cut, sites: Set[str], now_s: float, *, done: Set[str] = frozenset()) -> list[Instruction]:
        self._cut_reports = {}
        asked = self._enter(Phase.SCANNING, sites, now_s, done=done)
        return [instructions.ScanCut(asked, self.round, cut.until_ns, self.base_version)]

    def _can_answer(self, site: str) -> bool:
        """Whether the site needs no cut to answer what this round asks: it holds the update, or the cut itself."""
        number = 0 if self._committed == self.rules.rounds else self.round
        prepared = self._prepared[site]
        return prepared.held == Held(number, self.base_version) or prepared.cut_round == self.round

    def _readmit(self, site: str) -> list[Instruction]:
        """Take a site back that was away for a moment, if its part in the round is not lost by that."""
        missed = site not in self._expected | self._reports.keys() | self._localized
        if not missed or self.phase not in (Phase.TRAINING, Phase.LOCALIZING) or not self._can_answer(site):
            return []
        self._expected.add(site)
        if self.phase is Phase.TRAINING:
            return [instructions.Train((site,), self.round, self.base_version)]
        return [instructions.Localize((site,), self.base_version)]

    def _compare(self, now_s: float, reason: str) -> list[Instruction]:
        if self._proof is not None:
            known, self._proof = self._proof, None
            return self._compare_with_ledger(known, now_s)
        self._cut_reports = dict(self._reports)
        partitions = differing({site: report.fingerprints for site, report in self._cut_reports.items()})
        if not partitions:
            return self._cut_decided({}, now_s)
        sites = self._enter(Phase.RECONCILING, set(self._cut_reports), now_s, done=self._done)
        return [instructions.ListCutRows(sites, self.round, partitions)]

    def _compare_with_ledger(self, known: Mapping[str, str], now_s: float) -> list[Instruction]:
        """The cut was decided before; a site that finds other rows in it by now has lost its part in this round."""
        able = self._done - self._localized
        same = cuts.same_as(known, self._reports)
        for site in sorted(self._reports.keys() - same):
            self._failures[site] = f"the rows of round {self.round}'s cut can't be read again: they were written since"
        decided = [cuts.decided(same, self._reports, {}, {})] if same else []
        return [*decided, *self._ask(same | able, now_s)]

    def _reconcile(self, now_s: float, reason: str) -> list[Instruction]:
        return self._cut_decided(reconcile({site: listed.rows for site, listed in self._reports.items()}), now_s)

    def _cut_decided(self, drop: Mapping[str, Digests], now_s: float) -> list[Instruction]:
        members = set(self._reports)
        decided = cuts.decided(members, self._cut_reports, self._reports, drop)
        if self.base_version == 0:
            return [decided, instructions.AskStatistics(self._enter(Phase.SUMMARIZING, members, now_s), self.round)]
        return [decided, *self._ask(members, now_s)]

    def _ask(self, sites: Set[str], now_s: float) -> list[Instruction]:
        """Have the sites do what the round's cut is for: train, or localize once the last round is committed."""
        if self._committed < self.rules.rounds:
            return [instructions.Train(self._enter(Phase.TRAINING, sites, now_s), self.round, self.base_version)]
        asked = self._enter(Phase.LOCALIZING, sites - self._localized, now_s, done=self._localized)
        return [instructions.Localize(asked, self.base_version)]

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
        ready = set(self._prepared)
        if initial:
            return self._ask(self._expected & ready, now_s)
        self._committed = self.round
        if self.round < self.rules.rounds:
            # The sites that are here go on at once, if they are enough; one that comes back joins a later round.
            enough = len(ready) >= self.rules.min_sites
            self._enter(Phase.GATHERING, ready if enough else set(self.rules.sites), now_s)
            self._reports = {site: self._prepared[site] for site in ready}
            return []
        return self._ask(ready, now_s)

    def _finish(self, now_s: float, reason: str) -> list[Instruction]:
        return self._end(
            True,
            self._with_failures(
                f"{self.rules.rounds} rounds, localized at {', '.join(sorted(self._reports.keys() | self._done))}"
            ),
        )

    def _end(self, finished: bool, reason: str) -> list[Instruction]:
        self.phase, self.reason = Phase.ENDED, reason
        return [instructions.End(finished, reason)]

    def _with_failures(self, reason: str) -> str:
        if not self._failures:
            return reason
        return f"{reason} ({'; '.join(f'{site}: {why}' for site, why in sorted(self._failures.items()))})"
