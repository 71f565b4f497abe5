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
from coordinator.facts import CommitFacts, JobFacts, LocalizedFacts, RoundFacts
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
