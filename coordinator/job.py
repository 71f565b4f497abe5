"""The life of a job: events in, instructions out. Pure: no clock, no network, no store, no logging.

Time is an argument, in seconds of a monotonic clock: deadlines do not move when the computer's clock is set. What an
event or an instruction carries for others (updates' paths, statistics) is passed on, never looked into. A job that was
left unfinished goes on from what the ledger says of it; a new one is a job of which it says nothing.
"""

import math
from collections import deque
from collections.abc import Set

from coordinator import events, instructions
from coordinator.attendance import Attendance
from coordinator.events import Event, Held
from coordinator.facts import JobFacts
from coordinator.instructions import Instruction
from coordinator.late import Taken
from coordinator.quorum import Decision, Outcome
from coordinator.rollcall import RollCall
from coordinator.roundcut import GoOn, ListRows, RoundCut, Scan, Step
from coordinator.rules import Phase, Rules

# How often a round is gathered again since it lost a site that it needs, before the job is given up.
MAX_GATHERINGS = 3
# Of these, for sites that say that they can't: the last is for one that comes back.
MAX_RETRIES = 2

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
        self.since_s = now_s
        self._attendance = Attendance(self.phase, now_s)
        self._num_gatherings = 0
        self._taken = Taken(rules, facts)
        self._connected: set[str] = set()
        # The round whose cut is needed: the open one, or the last one while sites localize. The ledger has its moment.
        needed = facts.rounds[-1] if self._taken.is_last else facts.open_round
        self._cut = RoundCut(needed, rules.min_sites)
        self._roll = RollCall(facts.open_round.sites if facts.open_round else rules.sites, done=facts.localized)
        self._judge(now_s)

    def handle(self, event: Event, *, now_s: float) -> list[Instruction]:
        """Take one event; return what is to be done, in this order."""
        if self.phase in (Phase.ENDED, Phase.PAUSED):
            return []
        if not isinstance(event, events.Tick):
            what = f"{type(event).__name__} {getattr(event, 'site', '')}"
            self.story.append(f"{now_s:.3f} {self.phase} r{self.round} {what}")
        return [*self._take(event, now_s), *self._go_on(now_s)]

    def _take(self, event: Event, now_s: float) -> list[Instruction]:
        match event:
            case events.SiteJoined(site) if site in self.rules.sites:
                self._connected.add(site)
                if self.phase in (Phase.TRAINING, Phase.LOCALIZING):
                    self._roll.rejoin(site)
                return [instructions.Prepare(site)]
            case events.SiteLeft(site, reason):
                self._connected.discard(site)
                self._cut.prepared.pop(site, None)
                self._lose(site, reason, may_return=True)
            case events.SiteFailed(site, reason, number) if number is None or self._concerns_now(number):
                # It may answer the next round's cut again, unless it never accepted the task.
                self._lose(site, reason)
                may_pass = number is not None and not event.is_final and self._num_gatherings < MAX_RETRIES
                if may_pass and self._needs(site):
                    return self._gather_again(now_s)
            case events.SitePrepared(site) if site in self._connected:
                self._cut.prepared[site] = event
                self._roll.away.discard(site)
                self._attendance.returned(site)
                if self.phase is Phase.GATHERING and (not self._cut.is_left or site in self._members()):
                    self._roll.expected.add(site)
                self._report(Phase.GATHERING, site, event)
                return [*self._readmit(site, now_s), *self._taken.late_of(site, event.held, self._next_commit)]
            case events.SiteWaits(site, reason) if site in self._connected:
                self._attendance.waiting[site] = reason
            case events.CutReported(site=site, round=self.round):
                self._report(Phase.SCANNING, site, event)
            case events.CutRowsListed(site=site, round=self.round):
                self._report(Phase.RECONCILING, site, event)
            case events.StatisticsReported(site=site):
                self._report(Phase.SUMMARIZING, site, event)
            case events.UpdateArrived(site, 0):
                is_asked = self.phase is Phase.LOCALIZING and site in self._roll.expected
                if is_asked and site not in self._taken.localized:
                    self._taken.localized.add(site)
                    return [instructions.PublishLocalized(event, self.base_version)]
            case events.UpdateArrived(site):
                is_asked = self.phase is Phase.TRAINING and site in self._members()
                return [*self._taken.arrived(event, self._next_commit, self._roll.reports if is_asked else None)]
            case events.LocalizedPublished(site):
                self._report(Phase.LOCALIZING, site, event)
            case events.Published(version) if self.phase is Phase.PUBLISHING:
                return self._published(version, now_s)
            case events.PauseAsked(reason):
                self.phase, self.reason = Phase.PAUSED, reason
                return [instructions.Suspend(reason)]
            case events.CancelAsked(reason):
                return self._end("cancelled", reason)
        return []

    def refusal(self, site: str, trained: int) -> str:
        """Why an update of this site for round `trained` is not taken, whatever is in it; "" where it is."""
        return self._taken.refusal(site, trained, self._next_commit)

    def standing(self) -> dict[str, tuple[str, str]]:
        """Where each site stands in this phase, and why."""
        return self._attendance.standing(self.rules.sites, self._roll, self._connected, self._cut.prepared)

    @property
    def _next_commit(self) -> int:
        """The round that is open, or the one that opens next."""
        return max(self.round, self._taken.committed + 1)

    def _concerns_now(self, number: int) -> bool:
        """Whether what became of this round's work, 0 of localizing, is of the phase: while sites gather, it is not."""
        if self.phase is Phase.LOCALIZING:
            return number == 0
        return self.phase is not Phase.GATHERING and self._taken.committed < number == self.round

    def _lose(self, site: str, reason: str, *, may_return: bool = False) -> None:
        if site in self.rules.sites:
            self._attendance.lost(site, reason)
        # While gathering, a site that has left may come back before the deadline; one that refused will not.
        given_up = self.phase is not Phase.GATHERING or site in self._connected
        self._roll.lose(site, given_up=given_up, may_return=may_return)
        # What a site has delivered whole stays good without it; a cut is of no use without its site.
        if self.phase not in (Phase.TRAINING, Phase.LOCALIZING):
            self._roll.reports.pop(site, None)
            self._roll.done -= {site} - self._taken.localized

    def _readmit(self, site: str, now_s: float) -> list[Instruction]:
        """Take a site back that was away for a moment, if its part in the round is not lost by that, or is needed."""
        is_in = self._roll.settle(site)
        if is_in or self.phase in (Phase.GATHERING, Phase.PUBLISHING) or site in self._taken.localized:
            return []
        if self.phase not in (Phase.TRAINING, Phase.LOCALIZING) or not self._cut.can_answer(site, self._wanted):
            self._roll.expected.discard(site)
            return self._gather_again(now_s) if self._needs(site) else []
        self._roll.expected.add(site)
        self._attendance.readmitted(site)
        return [self._work_of(site)]

    def _needs(self, site: str) -> bool:
        """Whether the open round can't be closed without the site, which has lost its part in it."""
        return len(self._roll.hopeful) < self.rules.min_sites and site in self._members()

    def _gather_again(self, now_s: float) -> list[Instruction]:
        """Go on in the open round as if its coordinator had been lost, with the sites that are here if they are enough:
        it needs one that has lost its part in it."""
        self._num_gatherings += 1
        if self._num_gatherings > MAX_GATHERINGS:
            reason = f"{self.phase} abandoned: round {self.round} was gathered {MAX_GATHERINGS} times again"
            return self._end("failed", self._attendance.with_failures(reason))
        self._cut.leave()
        members, done = self._members() - self._taken.localized, self._taken.localized
        here = members & self._connected
        enough = len(here | done) >= self.rules.min_sites
        self._enter(Phase.GATHERING, here if enough else members, now_s, done=done)
        return [instructions.Prepare(site) for site in sorted(self._connected)]

    def _report(self, phase: Phase, site: str, event: Event) -> None:
        if self.phase is phase:
            self._roll.report(site, event)

    def _go_on(self, now_s: float) -> list[Instruction]:
        """Close the phase if it can be closed, and begin what comes next."""
        if self.phase in (Phase.PUBLISHING, Phase.PAUSED, Phase.ENDED):
            return []
        decision = self._judge(now_s)
        if decision.outcome is Outcome.WAIT:
            return []
        if decision.outcome is Outcome.ABANDON:
            return self._end("failed", self._attendance.with_failures(f"{self.phase} abandoned: {decision.reason}"))
        reports, done = self._roll.reports, self._roll.done - self._taken.localized
        match self.phase:
            case Phase.GATHERING:
                return self._gathered(now_s)
            case Phase.SCANNING:
                return self._follow(self._cut.compare(reports, done, self._wanted), now_s)
            case Phase.RECONCILING:
                return self._follow(self._cut.reconcile(reports, done), now_s)
            case Phase.SUMMARIZING:
                return self._start_model(decision.reason, now_s)
            case Phase.TRAINING:
                return self._close_round(decision.reason, now_s)
        localized = f"{self.rules.rounds} rounds, localized at {', '.join(sorted(self._roll.answered))}"
        return self._end("finished", self._attendance.with_failures(localized))

    def _judge(self, now_s: float) -> Decision:
        gathering = self.phase is Phase.GATHERING
        decision = self._roll.judge(
            min_sites=self.rules.min_sites,
            waited_s=now_s - self.since_s,
            deadline_s=self._gather_deadline_s() if gathering else self.rules.phase_deadline_s,
            grace_s=math.inf if gathering else self.rules.grace_s,
            now_s=now_s,
        )
        self.reason = decision.reason + self._attendance.why_waiting(self._roll.expected) + self._cut.why_anew
        return decision

    def _gather_deadline_s(self) -> float:
        # What a site was asked before it lost its coordinator may still be under way; it answers after that. One that
        # is not here is waited for as long only where the round needs it.
        busy = self._connected & (self._roll.expected - self._roll.answered)
        is_patient = self._cut.is_left and (busy or len(self._roll.answered) < self.rules.min_sites)
        return self.rules.gather_deadline_s + (self.rules.phase_deadline_s if is_patient else 0)

    def _enter(self, phase: Phase, sites: Set[str], now_s: float, *, done: Set[str] = frozenset()) -> tuple[str, ...]:
        self.phase, self.since_s = phase, now_s
        self._roll.begin(sites, done)
        self._attendance.entered(phase, now_s)
        self._judge(now_s)
        return tuple(sorted(sites))

    def _gathered(self, now_s: float) -> list[Instruction]:
        if self._cut.is_left:
            return self._take_up(now_s)
        self.round += 1
        self._attendance.opened()
        self._roll.away, self._num_gatherings = set(), 0
        return self._follow(self._cut.open(self.round, set(self._cut.prepared)), now_s)

    def _take_up(self, now_s: float) -> list[Instruction]:
        sites = (self._cut.prepared.keys() & self._members()) - self._taken.localized
        return self._follow(self._cut.take_up(sites, self._wanted), now_s)

    def _members(self) -> Set[str]:
        """The sites that may take part in the open round; once all are committed, all sites may localize."""
        return set(self._cut.round.sites if self._taken.committed < self.round else self.rules.sites)

    @property
    def _wanted(self) -> Held:
        """The update that is asked of a site: the open round's, or one of its own once the last round is committed."""
        return Held(0 if self._taken.is_last else self.round, self.base_version)

    def _follow(self, step: Step, now_s: float) -> list[Instruction]:
        """Do what the round's cut asks for next."""
        match step:
            case Scan(sites, number, done):
                asked = self._enter(Phase.SCANNING, sites, now_s, done=done | self._taken.localized)
                return [instructions.ScanCut(asked, self.round, self.base_version, number)]
            case ListRows(partitions):
                asked = self._enter(Phase.RECONCILING, set(self._roll.reports), now_s, done=self._roll.done)
                return [instructions.ListCutRows(asked, self.round, partitions)]
            case GoOn(sites, decided, lost):
                for site, why in lost.items():
                    self._attendance.lost(site, why)
                return [*([decided] if decided else []), *self._ask(sites, now_s)]

    def _ask(self, sites: Set[str], now_s: float) -> list[Instruction]:
        """Have the sites do what the round's cut is for: tell what a first model needs, train, or localize."""
        if self.base_version == 0:
            return [instructions.AskStatistics(self._enter(Phase.SUMMARIZING, sites, now_s), self.round)]
        phase, done = Phase.LOCALIZING if self._taken.is_last else Phase.TRAINING, self._taken.localized
        return [self._work_of(*self._enter(phase, sites - done, now_s, done=done))]

    def _work_of(self, *sites: str) -> Instruction:
        if self._taken.is_last:
            return instructions.Localize(sites, self.base_version)
        return instructions.Train(sites, self.round, self.base_version)

    def _start_model(self, reason: str, now_s: float) -> list[Instruction]:
        statistics = {site: report.statistics for site, report in sorted(self._roll.reports.items())}
        self._enter(Phase.PUBLISHING, set(statistics), now_s, done=set(statistics))
        self.reason = f"making the first model: {reason}"
        return [instructions.PublishInitial(statistics)]

    def _close_round(self, reason: str, now_s: float) -> list[Instruction]:
        updates, dropped = self._taken.close(self._roll.reports, self.round)
        others = set(self.rules.sites) - {update.site for update in updates}
        absent = self._attendance.absent(others, self._roll, self._cut.prepared)
        phases_s = self._attendance.seconds_by_phase(now_s)
        done = set(self._roll.reports)
        self._enter(Phase.PUBLISHING, done, now_s, done=done)
        self.reason = f"publishing the mean of {len(updates)} updates: {reason}"
        oldest = self._taken.oldest(self.round + 1)
        publish = instructions.PublishRound(
            self.round, self.base_version, updates, reason, phases_s=phases_s, absent=absent, oldest=oldest
        )
        return [*dropped, publish]

    def _published(self, version: int, now_s: float) -> list[Instruction]:
        initial, self.base_version = self.base_version == 0, version
        ready = set(self._cut.prepared)
        if initial:
            return self._ask(self._roll.expected & ready, now_s)
        self._taken.committed = self.round
        self._attendance.committed()
        if self.round < self.rules.rounds:
            # The sites that are here go on at once, if they are enough; one that comes back joins a later round.
            enough = len(ready) >= self.rules.min_sites
            self._enter(Phase.GATHERING, ready if enough else set(self.rules.sites), now_s)
            self._roll.reports = {site: self._cut.prepared[site] for site in ready}
            return []
        return self._take_up(now_s)

    def _end(self, status: str, reason: str) -> list[Instruction]:
        self.phase, self.reason = Phase.ENDED, reason
        return [instructions.End(status, reason)]
