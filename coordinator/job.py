"""The life of a job: events in, instructions out. Pure: no clock, no network, no store, no logging.

Time is an argument, in seconds of a monotonic clock: deadlines do not move when the computer's clock is set. What an
event or an instruction carries for others (updates' paths, statistics) is passed on, never looked into. A job that was
left unfinished goes on from what the ledger says of it; a new one is a job of which it says nothing.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace

from coordinator import cuts, events, instructions
from coordinator.attendance import Attendance
from coordinator.events import Event, Held
from coordinator.facts import JobFacts, RoundFacts
from coordinator.instructions import Instruction
from coordinator.late import Taken
from coordinator.quorum import Decision, Outcome
from coordinator.rollcall import RollCall
from coordinator.rules import Phase, Rules
from geotrain.view.cut import Digests, differing, reconcile

# How often a round is gathered again since it lost a site that it needs, before the job is given up.
MAX_GATHERINGS = 3


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
        self.since_s = now_s
        self._attendance = Attendance(self.phase, now_s)
        self._num_gatherings = 0
        self._taken = Taken(rules.max_staleness, facts.committed)
        self._connected: set[str] = set()
        self._prepared: dict[str, events.SitePrepared] = {}
        self._cut_reports: dict[str, events.CutReported] = {}
        # Sites whose own state is published, or about to be.
        self._localized: set[str] = set(facts.localized)
        # The round whose cut is needed: the open one, or the last one while sites localize. The ledger has its moment.
        self._open: RoundFacts | None = facts.open_round
        if self._committed == rules.rounds:
            self._open = facts.rounds[-1]
        # The same, where it is to be taken up again once the sites are gathered.
        self._left = self._open
        self._proof: Mapping[str, str] | None = None
        # Which of the round's cuts sites scan, or have scanned last; and why it is not the one before.
        self._cut_number = self._open.cut_number if self._open else 1
        self._why_anew = ""
        self._roll = RollCall(facts.open_round.sites if facts.open_round else rules.sites, done=facts.localized)
        self._judge(now_s)

    def handle(self, event: Event, *, now_s: float) -> list[Instruction]:
        """Take one event; return what is to be done, in this order."""
        if self.phase in (Phase.ENDED, Phase.PAUSED):
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
                if self.phase in (Phase.TRAINING, Phase.LOCALIZING):
                    self._roll.rejoin(site)
                return [instructions.Prepare(site)]
            case events.SiteLeft(site, reason):
                self._connected.discard(site)
                self._prepared.pop(site, None)
                may_return = site in self._roll.expected
                self._lose(site, reason)
                self._roll.away |= {site} if may_return else set()
            case events.SiteFailed(site, reason, number) if number is None or self._concerns_now(number):
                # It may answer the next round's cut again, unless it never accepted the task.
                self._lose(site, reason)
            case events.SitePrepared(site) if site in self._connected:
                self._prepared[site] = event
                self._roll.away.discard(site)
                self._attendance.returned(site)
                if self.phase is Phase.GATHERING and (self._left is None or site in self._members()):
                    self._roll.expected.add(site)
                self._report(Phase.GATHERING, site, event)
                return [*self._readmit(site, now_s), *self._ask_late(event)]
            case events.SiteWaits(site, reason) if site in self._connected:
                self._attendance.waiting[site] = reason
            case events.CutReported(site=site, round=self.round):
                self._report(Phase.SCANNING, site, event)
            case events.CutRowsListed(site=site, round=self.round):
                self._report(Phase.RECONCILING, site, event)
            case events.StatisticsReported(site=site):
                self._report(Phase.SUMMARIZING, site, event)
            case events.UpdateArrived(round=0):
                return self._localized_arrived(event)
            case events.UpdateArrived():
                return self._update_arrived(event)
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
        if site not in self.rules.sites:
            return f"site {site} takes no part in this job"
        if trained == 0:
            return f"the localized state of {site} is published already" if site in self._localized else ""
        if self._committed == self.rules.rounds:
            return f"round {trained} is committed, and so is the last one"
        return self._taken.refusal(site, trained, self._next_commit)

    @property
    def _next_commit(self) -> int:
        """The round that is open, or the one that opens next."""
        return max(self.round, self._committed + 1)

    def _update_arrived(self, update: events.UpdateArrived) -> list[Instruction]:
        if reason := self.refusal(update.site, update.round):
            return [instructions.DropUpdate(update, reason)]
        if update.round == self.round and self.phase is Phase.TRAINING and update.site in self._members():
            before = self._roll.reports.setdefault(update.site, update)
        elif update.round < self._next_commit:
            before = self._taken.waiting.setdefault(update.site, update)
        else:  # it is asked for again
            return []
        return [instructions.DropUpdate(update, "it came twice")] if before.path != update.path else []

    def _localized_arrived(self, update: events.UpdateArrived) -> list[Instruction]:
        is_asked = self.phase is Phase.LOCALIZING and update.site in self._roll.expected
        if not is_asked or update.site in self._localized:
            return []
        self._localized.add(update.site)
        return [instructions.PublishLocalized(update, self.base_version)]

    def _ask_late(self, prepared: events.SitePrepared) -> list[Instruction]:
        """Have a site send the update that it holds of an earlier round, where that is still taken."""
        held = prepared.held
        if held is None or not 0 < held.round < self._next_commit or self.refusal(prepared.site, held.round):
            return []
        return [instructions.Train((prepared.site,), held.round, held.base_version)]

    def _concerns_now(self, number: int) -> bool:
        """Whether what became of this round's work, 0 of localizing, is of the phase: while sites gather, it is not."""
        if self.phase is Phase.LOCALIZING:
            return number == 0
        return self.phase is not Phase.GATHERING and self._committed < number == self.round

    def _lose(self, site: str, reason: str) -> None:
        if site in self.rules.sites:
            self._attendance.lost(site, reason)
        # While gathering, a site that has left may come back before the deadline; one that refused will not.
        self._roll.lose(site, given_up=self.phase is not Phase.GATHERING or site in self._connected)
        # What a site has delivered whole stays good without it; a cut is of no use without its site.
        if self.phase not in (Phase.TRAINING, Phase.LOCALIZING):
            self._roll.reports.pop(site, None)
            self._roll.done -= {site} - self._localized

    def _report(self, phase: Phase, site: str, event: Event) -> None:
        if self.phase is phase:
            self._roll.report(site, event)

    def _go_on(self, now_s: float) -> list[Instruction]:
        """Close the phase if it can be closed."""
        if self.phase in (Phase.PUBLISHING, Phase.PAUSED, Phase.ENDED):
            return []
        decision = self._judge(now_s)
        if decision.outcome is Outcome.WAIT:
            return []
        if decision.outcome is Outcome.ABANDON:
            return self._end("failed", self._attendance.with_failures(f"{self.phase} abandoned: {decision.reason}"))
        close: dict[Phase, Callable[[float, str], list[Instruction]]] = {
            Phase.GATHERING: self._gathered,
            Phase.SCANNING: self._compare,
            Phase.RECONCILING: self._reconcile,
            Phase.SUMMARIZING: self._start_model,
            Phase.TRAINING: self._close_round,
            Phase.LOCALIZING: self._finish,
        }
        return close[self.phase](now_s, decision.reason)

    def _judge(self, now_s: float) -> Decision:
        gathering = self.phase is Phase.GATHERING
        decision = self._roll.judge(
            min_sites=self.rules.min_sites,
            waited_s=now_s - self.since_s,
            deadline_s=self._gather_deadline_s() if gathering else self.rules.phase_deadline_s,
            grace_s=math.inf if gathering else self.rules.grace_s,
            now_s=now_s,
        )
        self.reason = decision.reason + self._attendance.why_waiting(self._roll.expected) + self._why_anew
        return decision

    def _gather_deadline_s(self) -> float:
        # What a site was asked before it lost its coordinator may still be under way; it answers after that. One that
        # is not here is waited for as long only where the round needs it.
        busy = self._connected & (self._roll.expected - self._roll.answered)
        is_patient = self._left and (busy or len(self._roll.answered) < self.rules.min_sites)
        return self.rules.gather_deadline_s + (self.rules.phase_deadline_s if is_patient else 0)

    def _enter(self, phase: Phase, sites: Set[str], now_s: float, *, done: Set[str] = frozenset()) -> tuple[str, ...]:
        self.phase, self.since_s = phase, now_s
        self._roll.begin(sites, done)
        self._attendance.entered(phase, now_s)
        self._judge(now_s)
        return tuple(sorted(sites))

    def _gathered(self, now_s: float, reason: str) -> list[Instruction]:
        if self._left:
            left, self._left = self._left, None
            return self._take_up(left, now_s)
        self.round += 1
        self._attendance.opened()
        self._roll.away, self._num_gatherings = set(), 0
        return self._scan(set(self._prepared), now_s)

    def _take_up(self, left: RoundFacts, now_s: float) -> list[Instruction]:
        """Go on in a round that another coordinator left: the same cut, the same base, nothing done twice. Also from
        the last round to what sites localize: one may have come without its cut."""
        sites = (self._prepared.keys() & self._members()) - self._localized
        able = {site for site in sites if self._can_answer(site)}
        if self.base_version and sites == able:
            return self._ask(able, now_s)
        if not (self.base_version and able and left.cut):
            return self._scan_anew(sites, now_s)
        if left.cut.dropped:
            return self._go_on_with(able, sites - able, "it dropped rows that the ledger does not name", now_s)
        self._proof = left.cut.proof
        return self._scan(sites - able, now_s, number=left.cut_number, done=able | self._localized)

    def _scan(
        self, sites: Set[str], now_s: float, *, number: int = 1, done: Set[str] = frozenset()
    ) -> list[Instruction]:
        self._cut_reports, self._cut_number = {}, number
        asked = self._enter(Phase.SCANNING, sites, now_s, done=done)
        if self._open is None or self._open.round != self.round:
            self._open = RoundFacts(round=self.round, sites=asked)
        return [instructions.ScanCut(asked, self.round, self.base_version, number)]

    def _scan_anew(self, sites: Set[str], now_s: float) -> list[Instruction]:
        """Have those of the sites that do not hold the round's update decide on a cut: another one than before."""
        assert self._open is not None
        self._proof = None
        number = self._open.cut_number + (self._open.cut is not None)
        holders = {site for site in sites if self._holds(site)}
        return self._scan(sites - holders, now_s, number=number, done=holders | self._localized)

    def _go_on_with(
        self, able: Set[str], lost: Set[str], why: str, now_s: float, *, decided: Sequence[Instruction] = ()
    ) -> list[Instruction]:
        """Go on with who has the round's update or its cut, and without those that can't have that again.

        If it takes these as well, all that have not trained yet take another cut: nobody trains twice, and a round has
        one cut wherever it can be closed with that. A site's own state has no later round to wait for.
        """
        reason = f"round {self.round}'s cut can't be read again: {why}"
        is_enough = len(able) >= self.rules.min_sites and any(map(self._holds, able))
        if lost and (self._committed == self.rules.rounds or not is_enough):
            self._why_anew = f"; {', '.join(sorted(lost))}: {reason}, so another one is taken"
            return self._scan_anew(able | lost, now_s)
        for site in lost:
            self._attendance.lost(site, reason)
        return [*decided, *self._ask(able, now_s)]

    def _can_answer(self, site: str) -> bool:
        """Whether the site needs no cut to answer what this round asks: it holds the update, or the cut itself."""
        assert self._open is not None
        prepared = self._prepared[site]
        has_cut = (prepared.cut_round, prepared.cut_number) == (self.round, self._open.cut_number)
        return has_cut or self._holds(site)

    def _has_cut(self, sites: Set[str]) -> None:
        """These join the round's cut from here on."""
        for site in sites:
            self._prepared[site] = replace(self._prepared[site], cut_round=self.round, cut_number=self._cut_number)

    def _holds(self, site: str) -> bool:
        """Whether the site said that it has the update that this round asks for."""
        number = 0 if self._committed == self.rules.rounds else self.round
        return self._prepared[site].held == Held(number, self.base_version)

    def _readmit(self, site: str, now_s: float) -> list[Instruction]:
        """Take a site back that was away for a moment, if its part in the round is not lost by that, or is needed."""
        is_in = self._roll.settle(site)
        if is_in or self.phase in (Phase.GATHERING, Phase.PUBLISHING) or site in self._localized:
            return []
        if self.phase not in (Phase.TRAINING, Phase.LOCALIZING) or not self._can_answer(site):
            self._roll.expected.discard(site)
            too_few = len(self._roll.hopeful) < self.rules.min_sites
            return self._gather_again(now_s) if too_few and site in self._members() else []
        self._roll.expected.add(site)
        self._attendance.readmitted(site)
        if self.phase is Phase.TRAINING:
            return [instructions.Train((site,), self.round, self.base_version)]
        return [instructions.Localize((site,), self.base_version)]

    def _members(self) -> Set[str]:
        """The sites that may take part in the open round; once all are committed, all sites may localize."""
        assert self._open is not None
        return set(self._open.sites if self._committed < self.round else self.rules.sites)

    def _gather_again(self, now_s: float) -> list[Instruction]:
        """Go on in the open round as if its coordinator had been lost: it needs a site that has lost its part in it."""
        self._num_gatherings += 1
        if self._num_gatherings > MAX_GATHERINGS:
            reason = f"{self.phase} abandoned: round {self.round} was gathered {MAX_GATHERINGS} times again"
            return self._end("failed", self._attendance.with_failures(reason))
        self._left, self._prepared, self._why_anew = self._open, {}, ""
        self._enter(Phase.GATHERING, self._members() - self._localized, now_s, done=self._localized)
        return [instructions.Prepare(site) for site in sorted(self._connected)]

    def _compare(self, now_s: float, reason: str) -> list[Instruction]:
        if self._proof is not None:
            known, self._proof = self._proof, None
            return self._compare_with_ledger(known, now_s)
        self._cut_reports = dict(self._roll.reports)
        partitions = differing({site: report.fingerprints for site, report in self._cut_reports.items()})
        if not partitions:
            return self._cut_decided({}, now_s)
        sites = self._enter(Phase.RECONCILING, set(self._cut_reports), now_s, done=self._roll.done)
        return [instructions.ListCutRows(sites, self.round, partitions)]

    def _compare_with_ledger(self, known: Mapping[str, str], now_s: float) -> list[Instruction]:
        """The cut was decided before; a site may find other rows in it by now."""
        reports = self._roll.reports
        same = cuts.same_as(known, reports)
        able = same | (self._roll.done - self._localized)
        decided = [cuts.decided(same, reports, {}, {})] if same else []
        self._has_cut(same)
        return self._go_on_with(able, reports.keys() - same, "rows of it were written since", now_s, decided=decided)

    def _reconcile(self, now_s: float, reason: str) -> list[Instruction]:
        return self._cut_decided(reconcile({site: listed.rows for site, listed in self._roll.reports.items()}), now_s)

    def _cut_decided(self, drop: Mapping[str, Digests], now_s: float) -> list[Instruction]:
        members, trained = set(self._roll.reports), self._roll.done - self._localized
        self._why_anew = ""
        if not members:  # who scanned has left, and there are enough that need no cut
            return self._ask(trained, now_s)
        decided = cuts.decided(members, self._cut_reports, self._roll.reports, drop)
        assert self._open is not None
        self._open = replace(self._open, cut=cuts.facts(decided), cut_number=self._cut_number)
        self._has_cut(members)
        if self.base_version == 0:
            return [decided, instructions.AskStatistics(self._enter(Phase.SUMMARIZING, members, now_s), self.round)]
        return [decided, *self._ask(members | trained, now_s)]

    def _ask(self, sites: Set[str], now_s: float) -> list[Instruction]:
        """Have the sites do what the round's cut is for: train, or localize once the last round is committed."""
        if self._committed < self.rules.rounds:
            return [instructions.Train(self._enter(Phase.TRAINING, sites, now_s), self.round, self.base_version)]
        asked = self._enter(Phase.LOCALIZING, sites - self._localized, now_s, done=self._localized)
        return [instructions.Localize(asked, self.base_version)]

    def _start_model(self, now_s: float, reason: str) -> list[Instruction]:
        statistics = {site: report.statistics for site, report in sorted(self._roll.reports.items())}
        self._enter(Phase.PUBLISHING, set(statistics), now_s)
        self.reason = f"making the first model: {reason}"
        return [instructions.PublishInitial(statistics)]

    def _close_round(self, now_s: float, reason: str) -> list[Instruction]:
        late = self._taken.waiting
        by_site = late | self._roll.reports
        updates = tuple(by_site[site] for site in sorted(by_site))
        absent = {site: self._why_absent(site) for site in self.rules.sites if site not in by_site}
        dropped = [
            instructions.DropUpdate(late[site], f"a newer update of {site} is in round {self.round}")
            for site in sorted(late.keys() & self._roll.reports.keys())
        ]
        self._taken.commit(updates, self.round)
        phases_s = self._attendance.seconds_by_phase(now_s)
        self._enter(Phase.PUBLISHING, set(self._roll.reports), now_s)
        self.reason = f"publishing the mean of {len(updates)} updates: {reason}"
        last = self.round == self.rules.rounds
        return [
            *dropped,
            instructions.PublishRound(
                self.round,
                self.base_version,
                updates,
                reason,
                phases_s=phases_s,
                absent=absent,
                oldest=self.round + 1 if last else self._taken.oldest(self.round + 1),
            ),
        ]

    def _why_absent(self, site: str) -> str:
        is_expected, is_prepared = site in self._roll.expected, site in self._prepared
        return self._attendance.why_absent(site, is_expected=is_expected, is_prepared=is_prepared)

    def standing(self) -> dict[str, tuple[str, str]]:
        """Where each site stands in this phase, and why.

        `reported`, `asked`, `away` and may come back, `back` from there and not in the phase yet, or `out` of it.
        """
        roll, found = self._roll, {}
        for site in self.rules.sites:
            if site in roll.answered or (self.phase is Phase.PUBLISHING and site in roll.expected):
                found[site] = ("reported", "")
            elif site not in roll.expected | roll.away:
                found[site] = ("out", self._why_absent(site))
            elif site not in self._connected:
                found[site] = ("away", self._attendance.failures.get(site, "it is not connected"))
            elif site in roll.returning or site not in roll.expected:
                found[site] = ("back", "it is back, and is asked what it still has of the round")
            else:
                found[site] = ("asked", self._attendance.waiting.get(site, ""))
        return found

    def _published(self, version: int, now_s: float) -> list[Instruction]:
        initial, self.base_version = self.base_version == 0, version
        ready = set(self._prepared)
        if initial:
            return self._ask(self._roll.expected & ready, now_s)
        self._committed = self.round
        self._attendance.committed()
        if self.round < self.rules.rounds:
            # The sites that are here go on at once, if they are enough; one that comes back joins a later round.
            enough = len(ready) >= self.rules.min_sites
            self._enter(Phase.GATHERING, ready if enough else set(self.rules.sites), now_s)
            self._roll.reports = {site: self._prepared[site] for site in ready}
            return []
        assert self._open is not None
        return self._take_up(self._open, now_s)

    def _finish(self, now_s: float, reason: str) -> list[Instruction]:
        return self._end(
            "finished",
            self._attendance.with_failures(
                f"{self.rules.rounds} rounds, localized at {', '.join(sorted(self._roll.answered))}"
            ),
        )

    def _end(self, status: str, reason: str) -> list[Instruction]:
        self.phase, self.reason = Phase.ENDED, reason
        return [instructions.End(status, reason)]
