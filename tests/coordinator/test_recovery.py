"""A job whose coordinator is killed goes on from the ledger: machine, ledger, agents; no server and no clock."""

from collections import Counter, deque
from collections.abc import Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator import cuts, events, instructions
from coordinator.events import Event, Held
from coordinator.facts import CommitFacts, CutFacts, JobFacts, LocalizedFacts, RoundFacts, proof
from coordinator.instructions import Instruction
from coordinator.job import Job
from coordinator.rules import Phase, Rules
from geotrain.view.cut import Rows
from geotrain.wire.fingerprints import fingerprints

SITES = ("ewr", "jfk", "lga")
RULES = Rules(sites=SITES, min_sites=2, rounds=2, gather_deadline_s=60, phase_deadline_s=30)
ZEROS = {"legs": np.zeros(4096, np.uint64)}
OTHERS = {"legs": np.ones(4096, np.uint64)}
NOW_S = 1000.0
NUM_ROWS = 3


class Killed(Exception):
    pass


class Rewritten:
    """A set of the view whose rows are written over one after the other; its clock counts the writes."""

    def __init__(self) -> None:
        self.now = 0
        self._written = dict.fromkeys(range(NUM_ROWS), (1, 0))

    def write(self) -> None:
        self.now += 1
        row = self.now % NUM_ROWS
        self._written[row] = self._written[row][0] + 1, self.now

    def scan(self, until: int) -> dict[int, int]:
        """The generations of the rows that were not written since."""
        return {row: generation for row, (generation, at) in self._written.items() if at <= until}


def listed(rows: dict[int, int]) -> Rows:
    digests = np.array([digest(row) for row in rows], np.uint8).reshape(-1, 20)
    return Rows(digests, np.array(list(rows.values()), np.uint32))


def digest(row: int) -> np.ndarray:
    return np.frombuffer(row.to_bytes(20, "little"), np.uint8)


@dataclass
class Agent:
    """A site as far as its coordinator can tell. rows: of the cut that it has joined; trained: by round, on which."""

    site: str
    view: Rewritten
    held: Held | None = None
    cut_round: int = 0
    cut_number: int = 1
    rows: dict[int, int] = field(default_factory=dict)
    trained: dict[int, dict[int, int]] = field(default_factory=dict)
    held_number: int = 1
    trainings: Counter = field(default_factory=Counter)

    def restart(self) -> None:
        self.cut_round = 0

    def answer(self, asked: Instruction, until: int) -> Event | None:
        """until: the moment of the cut that is scanned."""
        match asked:
            case instructions.Prepare():
                return events.SitePrepared(self.site, self.held, self.cut_round, self.cut_number)
            case instructions.ScanCut(_, number, _, cut_number):
                self.cut_round, self.cut_number = 0, cut_number
                self.rows = self.view.scan(until)
                read = listed(self.rows)
                found = {"legs": fingerprints(read.digests, read.generations)}
                return events.CutReported(self.site, number, {"legs": len(self.rows)}, found)
            case instructions.ListCutRows(_, number):
                return events.CutRowsListed(self.site, number, {"legs": listed(self.rows)})
            case instructions.DecideCut(_, number, drop=drop):
                dropped = {bytes(one) for one in drop.get("legs", ())}
                self.rows = {row: n for row, n in self.rows.items() if bytes(digest(row)) not in dropped}
                self.cut_round = number
            case instructions.AskStatistics():
                return events.StatisticsReported(self.site, "{}")
            case instructions.Train(_, number, base_version):
                return self._update(number, Held(number, base_version))
            case instructions.Localize(_, base_version):
                return self._update(0, Held(0, base_version))
        return None

    def _update(self, number: int, update: Held) -> Event:
        if self.held != update:
            if not self.cut_round:  # it was asked before it was restarted
                return events.SiteFailed(self.site, "no cut was decided", number)
            self.trainings[number] += 1
            self.held, self.held_number, self.trained[number] = update, self.cut_number, self.rows
        return events.UpdateArrived(self.site, number, 100, {"loss": 0.5}, Path(self.site), self.held_number)


class World:
    """Agents and a ledger that live on, and a coordinator that is killed before each of the steps in `kills`.

    restarts: an agent, by the step before which it is. writes: the steps before which a row of the view is rewritten.
    """

    def __init__(
        self, kills: Set[int] = frozenset(), restarts: dict[int, str] | None = None, writes: Set[int] = frozenset()
    ) -> None:
        self.view = Rewritten()
        self.agents = {site: Agent(site, self.view) for site in SITES}
        self.rounds: dict[int, RoundFacts] = {}
        self.localized: dict[str, LocalizedFacts] = {}
        self.end: instructions.End | None = None
        self.num_steps = 0
        self._kills = kills
        self._restarts = restarts or {}
        self._writes = writes
        self._scanned = RoundFacts(round=0)

    def run(self) -> "World":
        while self.end is None:
            try:
                self._coordinate()
            except Killed:
                continue
        return self

    @property
    def facts(self) -> JobFacts:
        return JobFacts(rounds=tuple(self.rounds[number] for number in sorted(self.rounds)), localized=self.localized)

    @property
    def outcome(self) -> Any:
        commits = {
            number: (past.base_version, past.commit.version, sorted(past.commit.weights))
            for number, past in self.rounds.items()
        }
        return commits, {site: facts.version for site, facts in self.localized.items()}, self.end

    def _step(self) -> None:
        self.num_steps += 1
        assert self.num_steps < 10_000, "it goes on for ever"
        if self.num_steps in self._writes:
            self.view.write()
        if self.num_steps in self._kills:
            raise Killed

    def _coordinate(self) -> None:
        """One coordinator, from its start to its end. What is under way is lost with it."""
        job = Job(RULES, now_s=NOW_S, facts=JobFacts(**_fields(self.facts)))
        happened: deque[Event] = deque(events.SiteJoined(site) for site in SITES)
        while job.phase is not Phase.ENDED:
            self._step()
            if site := self._restarts.pop(self.num_steps, None):
                self.agents[site].restart()
                happened.extend([events.SiteLeft(site, "it hung up"), events.SiteJoined(site)])
            event = happened.popleft() if happened else events.Tick()
            pending = job.handle(event, now_s=NOW_S)
            while pending:
                instruction = pending.pop(0)
                if answer := self._perform(instruction):
                    pending += job.handle(answer, now_s=NOW_S)
                asked = (instruction.site,) if isinstance(instruction, instructions.Prepare) else ()
                for site in asked or getattr(instruction, "sites", ()):
                    self._step()
                    if answer := self.agents[site].answer(instruction, self._scanned.until_ns):
                        happened.append(answer)

    def _perform(self, instruction: Instruction) -> Event | None:
        """As the runner does it: every write may be the last."""
        newest = self.facts.rounds[-1] if self.rounds else RoundFacts(round=0)
        match instruction:
            case instructions.ScanCut(sites, number, base_version) if number != newest.round:
                now = self.view.now
                self._scanned = RoundFacts(round=number, base_version=base_version, sites=sites, until_ns=now)
                self._note(self._scanned)
            case instructions.ScanCut(number=cut_number):
                another = replace(newest, cut=None, cut_number=cut_number, until_ns=self.view.now)
                self._scanned = newest if cut_number == newest.cut_number else another
            case instructions.DecideCut() if self._scanned.cut is None:
                self._scanned = replace(self._scanned, cut=cuts.facts(instruction))
                if newest.commit is None:
                    self._note(self._scanned)
            case instructions.PublishInitial():
                return self._publish(RoundFacts(round=0), {})
            case instructions.PublishRound(_, _, updates):
                assert len({update.site for update in updates}) == len(updates)
                same = [update.site for update in updates if update.cut_number == newest.cut_number]
                data = [self.agents[site].trained[newest.round] for site in same]
                assert all(rows == data[0] for rows in data), f"{same} trained on different rows"
                return self._publish(newest, {update.site: 1 for update in updates})
            case instructions.PublishLocalized(update):
                self._step()
                assert update.site not in self.localized
                self.localized[update.site] = LocalizedFacts(
                    site=update.site, committed_s=0, version=1, samples=1, metrics={}
                )
                self._step()
                return events.LocalizedPublished(update.site)
            case instructions.End():
                self._step()
                self.end = instruction
        return None

    def _publish(self, facts: RoundFacts, weights: dict[str, int]) -> Event:
        self._step()  # tensors and manifest: the same again when they are written again
        version = self.facts.version + 1
        self._note(replace(facts, commit=CommitFacts(committed_s=0, version=version, weights=weights)))
        self._step()  # alias
        return events.Published(version)

    def _note(self, facts: RoundFacts) -> None:
        self._step()
        held = self.rounds.get(facts.round)
        assert held is None or held.commit is None, "a committed round is written again"
        self.rounds[facts.round] = facts
        self._step()


def _fields(facts: JobFacts) -> dict[str, Any]:
    """What comes back from JSON, where something was written."""
    rounds = tuple(RoundFacts.from_json(past.to_json()) for past in facts.rounds)
    return {"rounds": rounds, "localized": dict(facts.localized)}


UNDISTURBED = World().run()


def test_an_undisturbed_job_trains_each_round_once_and_commits_it():
    commits, localized, end = UNDISTURBED.outcome
    assert [version for _, version, _ in commits.values()] == [2, 1, 3]
    assert localized.keys() == set(SITES)
    assert end.finished
    assert all(agent.trainings == {1: 1, 2: 1, 0: 1} for agent in UNDISTURBED.agents.values())


@pytest.mark.parametrize("at", range(1, UNDISTURBED.num_steps + 1))
def test_a_coordinator_killed_at_any_step_ends_as_if_it_had_not_been(at):
    world = World({at}).run()
    assert world.outcome == UNDISTURBED.outcome
    assert all(agent.trainings == {1: 1, 2: 1, 0: 1} for agent in world.agents.values())


@given(st.sets(st.integers(1, 3 * UNDISTURBED.num_steps), max_size=12))
@settings(deadline=None)
def test_a_coordinator_killed_again_and_again_ends_as_if_it_had_not_been(kills):
    world = World(kills).run()
    assert world.outcome == UNDISTURBED.outcome
    assert all(agent.trainings == {1: 1, 2: 1, 0: 1} for agent in world.agents.values())


@given(
    st.sets(st.integers(1, 3 * UNDISTURBED.num_steps), max_size=6),
    st.dictionaries(st.integers(1, 3 * UNDISTURBED.num_steps), st.sampled_from(SITES), max_size=3),
    st.sets(st.integers(1, 3 * UNDISTURBED.num_steps), max_size=60),
)
@settings(deadline=None)
def test_whatever_is_written_meanwhile_a_round_goes_on_no_one_trains_twice_and_one_cut_is_the_same_rows(
    kills, restarts, writes
):
    world = World(kills, dict(restarts), writes).run()
    assert world.end.finished, world.end.reason
    assert all(max(agent.trainings.values()) == 1 for agent in world.agents.values())


@given(
    st.sets(st.integers(1, 2 * UNDISTURBED.num_steps), max_size=6),
    st.dictionaries(st.integers(1, 2 * UNDISTURBED.num_steps), st.sampled_from(SITES), max_size=1),
)
@settings(deadline=None)
def test_one_restart_of_an_agent_among_kills_of_the_coordinator_costs_at_most_its_own_part(kills, restarts):
    world = World(kills, dict(restarts)).run()
    assert world.end.finished, world.end.reason
    commits, _, _ = world.outcome
    assert [commits[number][1] for number in sorted(commits)] == [1, 2, 3]
    for number in (1, 2):
        assert len(commits[number][2]) >= 2
        assert set(SITES) - set(commits[number][2]) <= set(restarts.values())
    for agent in world.agents.values():
        assert max(agent.trainings.values()) == 1


def resumed(facts: JobFacts, *prepared: events.SitePrepared, rules: Rules = RULES) -> tuple[Job, list[Instruction]]:
    job = Job(rules, now_s=NOW_S, facts=facts)
    asked: list[Instruction] = []
    for event in (*(events.SiteJoined(site.site) for site in prepared), *prepared):
        asked += job.handle(event, now_s=NOW_S)
    return job, [one for one in asked if not isinstance(one, instructions.Prepare)]


def report(job: Job, site: str, found: dict[str, np.ndarray], number: int = 1) -> list[Instruction]:
    return job.handle(events.CutReported(site, number, {"legs": 10}, found), now_s=NOW_S)


def update(job: Job, site: str) -> list[Instruction]:
    return job.handle(events.UpdateArrived(site, 1, 100, {}, Path(site)), now_s=NOW_S)


CUT = CutFacts(decided_s=0, rows=10, dropped=0, equal=True, proof=proof(ZEROS))
FIRST = RoundFacts(round=0, commit=CommitFacts(committed_s=0, version=7))
OPEN = RoundFacts(round=1, base_version=0, sites=SITES, cut=CUT)
LEFT = JobFacts(rounds=(FIRST, OPEN))


def test_who_holds_the_update_or_the_cut_is_asked_for_it_and_no_one_scans():
    _, asked = resumed(
        LEFT,
        events.SitePrepared("ewr", Held(1, 7), 0),
        events.SitePrepared("jfk", None, 1),
        events.SitePrepared("lga", Held(1, 7), 1),
    )
    assert asked == [instructions.Train(SITES, 1, 7)]


@pytest.mark.parametrize("held", [None, Held(1, 6), Held(2, 7), Held(0, 7)])
def test_who_holds_another_update_scans_the_same_cut_again(held):
    job, asked = resumed(
        LEFT,
        events.SitePrepared("ewr", Held(1, 7)),
        events.SitePrepared("jfk", Held(1, 7)),
        events.SitePrepared("lga", held),
    )
    assert asked == [instructions.ScanCut(("lga",), 1, 7)]
    decided, train = job.handle(events.CutReported("lga", 1, {"legs": 10}, ZEROS), now_s=NOW_S)
    assert (decided.sites, decided.drop) == (("lga",), {})
    assert train == instructions.Train(SITES, 1, 7)


def test_who_finds_other_rows_in_the_cut_waits_for_the_next_round_where_there_are_enough_without_it():
    job, asked = resumed(
        LEFT,
        events.SitePrepared("ewr", Held(1, 7)),
        events.SitePrepared("jfk", Held(1, 7)),
        events.SitePrepared("lga"),
    )
    assert asked == [instructions.ScanCut(("lga",), 1, 7)]
    assert report(job, "lga", OTHERS) == [instructions.Train(("ewr", "jfk"), 1, 7)]
    assert "rows of it were written since" in job.standing()["lga"][1]
    for site in ("ewr", "jfk"):
        asked = update(job, site)
    assert "cut can't be read again" in asked[0].absent["lga"]
    [scan] = job.handle(events.Published(8), now_s=NOW_S)
    assert scan == instructions.ScanCut(SITES, 2, 8)


DROPPED = JobFacts(rounds=(FIRST, replace(OPEN, cut=replace(CUT, dropped=3))))


def test_a_cut_that_dropped_rows_is_not_scanned_again_in_vain():
    job, asked = resumed(
        DROPPED,
        events.SitePrepared("ewr", Held(1, 7)),
        events.SitePrepared("jfk", Held(1, 7)),
        events.SitePrepared("lga"),
    )
    assert asked == [instructions.Train(("ewr", "jfk"), 1, 7)]
    assert "it dropped rows that the ledger does not name" in job.standing()["lga"][1]


def test_where_a_site_is_needed_that_can_not_have_the_cut_again_all_that_have_not_trained_take_another_one():
    job, asked = resumed(
        LEFT, events.SitePrepared("ewr", Held(1, 7)), events.SitePrepared("jfk"), events.SitePrepared("lga", None, 2)
    )
    assert asked == [instructions.ScanCut(("jfk", "lga"), 1, 7)]
    report(job, "jfk", OTHERS)
    assert report(job, "lga", OTHERS) == [instructions.ScanCut(("jfk", "lga"), 1, 7, number=2)]
    assert "jfk, lga: round 1's cut can't be read again: rows of it were written since, so another" in job.reason
    report(job, "jfk", OTHERS)
    decided, train = report(job, "lga", OTHERS)
    assert (decided.sites, train) == (("jfk", "lga"), instructions.Train(SITES, 1, 7))
    assert "another" not in job.reason
    for site in SITES:
        asked = update(job, site)
    assert [one.site for one in asked[0].updates] == list(SITES)


@pytest.mark.parametrize("facts", [LEFT, DROPPED])
def test_as_long_as_nobody_has_trained_all_take_another_cut_and_none_is_left_out(facts):
    job, asked = resumed(
        facts, events.SitePrepared("ewr", None, 1), events.SitePrepared("jfk", None, 1), events.SitePrepared("lga")
    )
    if facts is LEFT:
        asked = report(job, "lga", OTHERS)
    assert asked == [instructions.ScanCut(SITES, 1, 7, number=2)]


def test_who_has_joined_a_cut_of_the_round_that_was_replaced_is_not_taken_for_one_that_has_its_cut():
    facts = JobFacts(rounds=(FIRST, replace(OPEN, cut_number=2)))
    job, asked = resumed(
        facts,
        events.SitePrepared("ewr", Held(1, 7), 1, 1),
        events.SitePrepared("jfk", None, 1, 2),
        events.SitePrepared("lga", None, 1, 1),
    )
    assert asked == [instructions.ScanCut(("lga",), 1, 7, number=2)]
    _, train = report(job, "lga", ZEROS)
    assert train == instructions.Train(SITES, 1, 7)


def test_no_site_is_left_without_a_state_of_its_own_since_the_last_rounds_cut_is_gone():
    done = replace(OPEN, round=2, commit=CommitFacts(committed_s=0, version=9))
    job, _ = resumed(
        JobFacts(rounds=(FIRST, done)),
        events.SitePrepared("ewr", Held(0, 9)),
        events.SitePrepared("jfk", Held(0, 9)),
        events.SitePrepared("lga"),
    )
    assert report(job, "lga", OTHERS, number=2) == [instructions.ScanCut(("lga",), 2, 9, number=2)]
    _, localize = report(job, "lga", OTHERS, number=2)
    assert localize == instructions.Localize(SITES, 9)


def test_where_all_that_scan_leave_the_others_go_on_with_what_they_hold():
    job, _ = resumed(
        LEFT,
        events.SitePrepared("ewr", Held(1, 7)),
        events.SitePrepared("jfk", Held(1, 7)),
        events.SitePrepared("lga"),
    )
    job.handle(events.SiteLeft("lga", "it hung up"), now_s=NOW_S)
    assert job.phase is Phase.TRAINING
    done = replace(OPEN, round=2, cut=replace(CUT, dropped=1), commit=CommitFacts(committed_s=0, version=9))
    own = {site: LocalizedFacts(site=site, committed_s=0, version=1, samples=1, metrics={}) for site in ("ewr", "jfk")}
    job, _ = resumed(JobFacts(rounds=(FIRST, done), localized=own), events.SitePrepared("lga"))
    job.handle(events.Tick(), now_s=NOW_S + 91)
    job.handle(events.SiteLeft("lga", "it hung up"), now_s=NOW_S + 92)
    job.handle(events.Tick(), now_s=NOW_S + 200)
    assert job.phase is Phase.ENDED
    assert job.reason.startswith("2 rounds, localized at ewr, jfk")


def test_who_was_restarted_in_the_last_round_takes_its_cut_before_it_localizes():
    job, _ = resumed(
        JobFacts(rounds=(FIRST, replace(OPEN, round=1, commit=CommitFacts(committed_s=0, version=8)))),
        *(events.SitePrepared(site) for site in SITES),
    )
    for site in SITES:
        report(job, site, ZEROS, number=2)
    job.handle(events.SiteLeft("lga", "it hung up"), now_s=NOW_S)
    job.handle(events.SiteJoined("lga"), now_s=NOW_S)
    job.handle(events.SitePrepared("lga"), now_s=NOW_S)
    for site in ("ewr", "jfk"):
        job.handle(events.UpdateArrived(site, 2, 100, {}, Path(site)), now_s=NOW_S)
    assert job.handle(events.Published(9), now_s=NOW_S) == [instructions.ScanCut(("lga",), 2, 9)]
    decided, localize = report(job, "lga", ZEROS, number=2)
    assert (decided.sites, localize) == (("lga",), instructions.Localize(SITES, 9))


def test_another_cut_is_not_compared_with_the_one_before_though_that_was_about_to_be_read_again():
    job, _ = resumed(
        LEFT,
        events.SitePrepared("ewr", Held(1, 7)),
        events.SitePrepared("jfk"),
        events.SitePrepared("lga"),
        rules=replace(RULES, min_sites=3),
    )
    assert job.phase is Phase.SCANNING
    job.handle(events.SiteLeft("lga", "it hung up"), now_s=NOW_S)
    job.handle(events.SiteJoined("lga"), now_s=NOW_S)
    job.handle(events.SitePrepared("lga"), now_s=NOW_S)
    assert job.phase is Phase.GATHERING
    for site in SITES:
        asked = job.handle(events.SitePrepared(site), now_s=NOW_S)
    assert asked == [instructions.ScanCut(SITES, 1, 7, number=2)]
    for site in SITES:
        asked = report(job, site, OTHERS)
    assert asked[1:] == [instructions.Train(SITES, 1, 7)]


def test_when_nobody_holds_anything_another_cut_is_decided():
    job, asked = resumed(LEFT, *(events.SitePrepared(site) for site in SITES))
    assert asked == [instructions.ScanCut(SITES, 1, 7, number=2)]
    for site in SITES:
        asked = job.handle(events.CutReported(site, 1, {"legs": 10}, OTHERS), now_s=NOW_S)
    assert asked[1:] == [instructions.Train(SITES, 1, 7)]


def test_only_the_members_of_an_open_round_are_waited_for():
    facts = JobFacts(rounds=(FIRST, replace(OPEN, sites=("ewr", "jfk"))))
    _, asked = resumed(facts, events.SitePrepared("ewr", Held(1, 7)), events.SitePrepared("jfk", Held(1, 7)))
    assert asked == [instructions.Train(("ewr", "jfk"), 1, 7)]


def test_who_was_no_member_of_an_open_round_joins_the_next_one():
    facts = JobFacts(rounds=(FIRST, replace(OPEN, sites=("ewr", "jfk"))))
    stranger = events.SitePrepared("lga")
    _, asked = resumed(facts, stranger, events.SitePrepared("ewr", Held(1, 7)), events.SitePrepared("jfk", Held(1, 7)))
    assert asked == [instructions.Train(("ewr", "jfk"), 1, 7)]


BOTH = (events.SitePrepared("ewr", Held(1, 7)), events.SitePrepared("jfk", Held(1, 7)))


def test_what_a_site_was_asked_before_may_take_as_long_as_it_could_have():
    job, _ = resumed(LEFT, *BOTH)
    job.handle(events.SiteJoined("lga"), now_s=NOW_S + 59)
    assert job.handle(events.Tick(), now_s=NOW_S + 89) == []
    assert job.handle(events.Tick(), now_s=NOW_S + 90) == [instructions.Train(("ewr", "jfk"), 1, 7)]


def test_a_site_that_does_not_come_is_not_waited_for_as_if_it_worked():
    job, _ = resumed(LEFT, *BOTH)
    assert job.handle(events.Tick(), now_s=NOW_S + 59) == []
    assert job.handle(events.Tick(), now_s=NOW_S + 60) == [instructions.Train(("ewr", "jfk"), 1, 7)]


def test_a_site_that_does_not_come_is_waited_for_longer_where_the_round_needs_it():
    job, _ = resumed(LEFT, BOTH[0])
    assert job.handle(events.Tick(), now_s=NOW_S + 89) == []
    for event in (events.SiteJoined("jfk"), BOTH[1]):
        asked = job.handle(event, now_s=NOW_S + 89)
    assert asked == [instructions.Train(("ewr", "jfk"), 1, 7)]


def test_a_job_whose_sites_are_all_localized_only_ends():
    done = replace(OPEN, round=2, commit=CommitFacts(committed_s=0, version=9))
    localized = {
        site: LocalizedFacts(site=site, committed_s=0, version=1, samples=1, metrics={}) for site in ("ewr", "jfk")
    }
    job, asked = resumed(JobFacts(rounds=(FIRST, done), localized=localized))
    job.handle(events.Tick(), now_s=NOW_S + 91)
    [end] = job.handle(events.Tick(), now_s=NOW_S + 92)
    assert asked == []
    assert end.finished


def test_a_site_that_was_away_for_a_moment_brings_its_update_into_the_round():
    job, _ = resumed(LEFT, *(events.SitePrepared(site, Held(1, 7)) for site in SITES))
    job.handle(events.SiteLeft("lga", "its stream broke"), now_s=NOW_S)
    job.handle(events.SiteJoined("lga"), now_s=NOW_S)
    assert job.handle(events.SitePrepared("lga", Held(1, 7)), now_s=NOW_S) == [instructions.Train(("lga",), 1, 7)]
    for site in SITES:
        asked = job.handle(events.UpdateArrived(site, 1, 100, {}, Path(site)), now_s=NOW_S)
    assert [update.site for update in asked[0].updates] == list(SITES)
