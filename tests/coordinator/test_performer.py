"""What is done for the machine, and when it is said to be: no server."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator import instructions
from coordinator.eventlog import EventLog
from coordinator.facts import CommitFacts, CutFacts, JobFacts, RoundFacts
from coordinator.performer import Performer

SITES = ("ewr", "jfk")
KNOWN = RoundFacts(round=1, until_ns=5, sites=SITES, opened_s=1.0)
SCAN = instructions.ScanCut(SITES, 1, 7)
DECIDED = instructions.DecideCut(SITES, 1, rows=10, drop={}, equal=True, fingerprints={})
CUT = CutFacts(decided_s=1_700_000_000.0, rows=10, dropped=0, equal=True, proof={})
JUST_NOW_NS = 1_699_999_998 * 10**9


class Links(dict[str, Any]):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[tuple[str, ...], Any]] = []

    def send(self, sites: tuple[str, ...], message: Any) -> None:
        self.sent.append((sites, message))


class World:
    """A performer whose ledger and sites only note what they are told."""

    def __init__(self) -> None:
        self.written: list[RoundFacts] = []
        self.cuts: list[RoundFacts] = []
        self.links = Links()
        self.log = EventLog("j")
        config: Any = SimpleNamespace(sites=list(SITES), skew_margin_s=2.0)
        ledger: Any = SimpleNamespace(round=self.written.append)
        publisher: Any = SimpleNamespace(state_bytes=0, use_cut=self.cuts.append)
        links: Any = self.links
        self._performer = Performer("j", config, ledger, publisher, links, self.log)

    def __call__(self, asked: instructions.Instruction, facts: JobFacts) -> JobFacts:
        after, answer = asyncio.run(self._performer.perform(asked, facts))
        assert answer is None
        return after


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)


@pytest.mark.usefixtures("wall_clock")
def test_a_new_rounds_cut_is_the_skew_margin_before_now_on_the_wall_clock():
    perform = World()
    facts = perform(instructions.ScanCut(SITES, 2, 7), JobFacts(rounds=(KNOWN,)))
    opened = RoundFacts(round=2, base_version=7, until_ns=JUST_NOW_NS, sites=SITES, opened_s=1_700_000_000.0)
    assert (perform.written, facts.rounds) == ([opened], (KNOWN, opened))
    [(sites, message)] = perform.links.sent
    assert (sites, message.scan_cut.round, message.scan_cut.until_ns) == (SITES, 2, opened.until_ns)


@pytest.mark.usefixtures("wall_clock")
def test_a_round_that_the_ledger_knows_has_its_cut_at_the_same_moment():
    perform = World()
    facts = perform(instructions.ScanCut(("jfk",), 1, 7), JobFacts(rounds=(KNOWN,)))
    assert (perform.written, facts.rounds) == ([], (KNOWN,))
    [(sites, message)] = perform.links.sent
    assert (sites, message.scan_cut.round, message.scan_cut.until_ns) == (("jfk",), 1, 5)


@pytest.mark.usefixtures("wall_clock")
def test_a_cut_is_noted_in_an_open_round_and_not_in_a_committed_one():
    perform = World()
    facts = perform(DECIDED, perform(SCAN, JobFacts(rounds=(KNOWN,))))
    assert perform.written == list(facts.rounds) == perform.cuts == [replace(KNOWN, cut=CUT)]
    committed = replace(KNOWN, cut=CUT, commit=CommitFacts(committed_s=2.0, version=8))
    again = perform(DECIDED, perform(replace(SCAN, number=2), JobFacts(rounds=(committed,))))
    assert (len(perform.written), again.rounds) == (1, (committed,))
    assert perform.cuts[1:] == [replace(committed, until_ns=JUST_NOW_NS, cut_number=2)]


@pytest.mark.usefixtures("wall_clock")
def test_another_cut_of_a_round_is_at_a_new_moment_and_noted_when_it_is_decided():
    perform = World()
    known = JobFacts(rounds=(replace(KNOWN, cut=replace(CUT, rows=12, decided_s=3.0)),))
    assert perform(replace(SCAN, number=2), known) == known
    assert perform.written == []
    [(_, message)] = perform.links.sent
    assert (message.scan_cut.until_ns, message.scan_cut.number) == (JUST_NOW_NS, 2)
    facts = perform(DECIDED, known)
    another = replace(KNOWN, until_ns=JUST_NOW_NS, cut_number=2, cut=CUT)
    assert perform.written == list(facts.rounds) == perform.cuts == [another]


@pytest.mark.usefixtures("wall_clock")
def test_a_cut_that_was_read_again_stays_as_the_ledger_has_it():
    perform = World()
    known = JobFacts(rounds=(replace(KNOWN, cut=replace(CUT, decided_s=3.0)),))
    assert perform(DECIDED, perform(SCAN, known)) == known
    assert (perform.written, perform.cuts) == ([], list(known.rounds))
