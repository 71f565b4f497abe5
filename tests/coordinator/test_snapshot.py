"""What is shown of a job is what happened: compared with the history at every step. No server and no clock."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator import events, instructions, snapshot
from coordinator.events import Event
from coordinator.facts import CommitFacts, CutFacts, JobFacts, LocalizedFacts, RoundFacts
from coordinator.instructions import Instruction
from coordinator.job import NOTHING, Job
from coordinator.leadership import Leadership, Looked, Taken
from coordinator.membership import Member, State
from coordinator.rules import Phase, Rules
from geotrain.lease import Lease
from geotrain.rpc import coordinator_pb2 as pb
from tests.conftest import ROOT

SITES = ("ewr", "jfk", "lga")
RULES = Rules(
    sites=SITES,
    min_sites=2,
    rounds=2,
    gather_deadline_s=60,
    phase_deadline_s=30,
    grace_s=10,
    max_staleness=1,
)
ASKS = {
    Phase.SCANNING: instructions.ScanCut,
    Phase.SUMMARIZING: instructions.AskStatistics,
    Phase.TRAINING: instructions.Train,
    Phase.LOCALIZING: instructions.Localize,
}
DOES = {
    Phase.SCANNING: events.CutReported,
    Phase.SUMMARIZING: events.StatisticsReported,
    Phase.TRAINING: events.UpdateArrived,
    Phase.LOCALIZING: events.LocalizedPublished,
}
# Mostly what makes a job go on, or it would not get far.
ACTIONS = {"answer": 12, "join": 3, "tick": 1, "leave": 1, "fail": 1}


def known(machine: Job | None, facts: JobFacts = NOTHING, model: str = "flights", **more: object) -> SimpleNamespace:
    """A job as a runner shows it."""
    config = SimpleNamespace(sites=list(SITES), rounds=RULES.rounds, task=SimpleNamespace(name=model))
    shown = {"id": "j", "config": config, "waiting": "", "waiting_since_s": 0.0, "progress": {}} | more
    return SimpleNamespace(machine=machine, facts=facts, **shown)


@dataclass
class History:
    """A job, what its sites were asked and have done, written down apart from the machine."""

    now_s: float = 1000.0
    job: Job = field(init=False)
    connected: set[str] = field(default_factory=set)
    unanswered: dict[str, list[Instruction]] = field(default_factory=lambda: {site: [] for site in SITES})
    asked: Counter = field(default_factory=Counter)
    done: Counter = field(default_factory=Counter)
    version: int = 0
    committed_s: float = 1000.0
    entered: tuple[Phase, float, int] = field(init=False)

    def __post_init__(self) -> None:
        self.job = Job(RULES, now_s=self.now_s)
        self.entered = self.job.phase, self.now_s, 0

    def step(self, what: str, site: str) -> None:
        """One thing happens, if it can."""
        if what == "tick":
            self.now_s += 7.0
            self.happens(events.Tick())
        elif what == "join" and site not in self.connected:
            self.connected.add(site)
            self.happens(events.SiteJoined(site))
        elif what == "leave" and site in self.connected:
            self.connected.discard(site)
            self.unanswered[site] = []
            self.happens(events.SiteLeft(site, "its stream broke"))
        elif what in ("answer", "fail") and self.unanswered[site]:
            ask = self.unanswered[site].pop(0)
            self.happens(self.answer(site, ask) if what == "answer" else events.SiteFailed(site, "no disk"))

    def answer(self, site: str, ask: Instruction) -> Event:
        match ask:
            case instructions.Prepare():
                return events.SitePrepared(site)
            case instructions.ScanCut(_, number):
                return events.CutReported(site, number, {"legs": 10}, {"legs": np.zeros(4096, np.uint64)})
            case instructions.AskStatistics():
                return events.StatisticsReported(site, "{}")
            case instructions.Train(_, number):
                return events.UpdateArrived(site, number, 100, {"loss": 0.5}, Path(site))
        return events.UpdateArrived(site, 0, 100, {"localized": 0.5}, Path(site))

    def happens(self, event: Event) -> None:
        if (site := getattr(event, "site", None)) is not None:
            self.done[type(event), site, getattr(event, "round", None)] += 1
        pending = self.job.handle(event, now_s=self.now_s)
        self.note(pending)
        while pending:
            self.check()
            match pending.pop(0):
                case instructions.PublishInitial() | instructions.PublishRound() as publish:
                    self.version += 1
                    if isinstance(publish, instructions.PublishRound):
                        assert sum(publish.phases_s.values()) == self.now_s - self.committed_s
                        self.committed_s = self.now_s
                    more = self.job.handle(events.Published(self.version), now_s=self.now_s)
                case instructions.PublishLocalized(update):
                    self.done[events.LocalizedPublished, update.site, None] += 1
                    more = self.job.handle(events.LocalizedPublished(update.site), now_s=self.now_s)
                case _:
                    continue
            self.note(more)
            pending += more
        self.check()

    def note(self, asks: list[Instruction]) -> None:
        for ask in asks:
            for site in (ask.site,) if isinstance(ask, instructions.Prepare) else getattr(ask, "sites", ()):
                self.asked[type(ask), site, getattr(ask, "round", None)] += 1
                if site in self.connected and not isinstance(ask, instructions.DecideCut):
                    self.unanswered[site].append(ask)

    def check(self) -> None:
        """What is shown now is so."""
        job = known(self.job, JobFacts(launched_s=1.0))
        shown = snapshot.detail(job, [job], boot_s=0.0)
        json.dumps(shown, allow_nan=False)
        phase = Phase(shown["phase"])
        before, since_s, number = self.entered
        assert shown["since_s"] in (since_s, self.now_s)
        if (phase, shown["round"]) != (before, number):
            assert shown["since_s"] == self.now_s or phase is Phase.ENDED
        self.entered = phase, shown["since_s"], shown["round"]
        assert shown["reason"]
        if phase is Phase.ENDED:
            return
        stands = {one["site"]: one["standing"] for one in shown["standing"]}
        reasons = {one["site"]: one["reason"] for one in shown["standing"]}
        for site in SITES:
            assert bool(reasons[site]) == (stands[site] in ("away", "back", "out")), (site, stands, reasons)
            if stands[site] == "asked":
                self.check_was_asked(site, phase)
            if stands[site] in ("asked", "away", "back"):
                assert (site in self.connected) == (stands[site] != "away")
            if stands[site] == "reported" and phase in DOES:
                round_ = shown["round"] if phase in (Phase.SCANNING, Phase.TRAINING) else None
                localized = self.done[events.LocalizedPublished, site, None]
                assert localized or self.done[DOES[phase], site, round_], (site, phase)
        asked = {site for site in SITES if stands[site] == "asked"}
        assert not (asked and phase is Phase.PUBLISHING)
        assert not asked or shown["reason"].startswith("waiting for "), shown
        if shown["reason"].startswith("waiting for "):
            named = set(shown["reason"].removeprefix("waiting for ").partition(":")[0].split(" to come")[0].split(", "))
            waited = {site for site in SITES if stands[site] in ("asked", "away", "back")}
            assert named <= waited, shown
            assert asked <= named or "come back" in shown["reason"]

    def check_was_asked(self, site: str, phase: Phase) -> None:
        number = self.job.round if phase is not Phase.LOCALIZING else None
        assert phase not in ASKS or self.asked[ASKS[phase], site, number], (site, phase)


@given(st.integers(0, 1 << 32))
@settings(max_examples=60, deadline=None)
def test_what_is_shown_of_a_job_is_what_happened_at_every_step(seed):
    draw, history = Random(seed), History()
    for site in SITES:
        history.step("join", site)
    for _ in range(100):
        [what] = draw.choices([*ACTIONS], [*ACTIONS.values()])
        history.step(what, draw.choice(SITES))


def test_the_histories_that_are_compared_reach_every_phase():
    seen, history = set(), History()
    check = history.check
    history.check = lambda: (seen.add(history.job.phase), check())
    for site in SITES:
        history.step("join", site)
    for _ in range(12):
        for site in SITES:
            history.step("answer", site)
    assert {Phase.GATHERING, Phase.PUBLISHING, Phase.ENDED, *ASKS} <= seen
    assert history.job.reason.startswith("2 rounds, localized at ewr, jfk, lga")


def test_a_commit_says_who_was_not_in_it_and_why_and_where_the_time_went():
    history = History()
    for site in SITES:
        history.step("join", site)
    for _ in range(3):  # prepared, scanned, summarized
        for site in SITES:
            history.step("answer", site)
    for what in ("leave", "join", "answer", "tick"):  # it is back, without its part in the round
        history.step(what, "lga")
    [publish] = [
        instruction
        for site in ("ewr", "jfk")
        for instruction in history.job.handle(history.answer(site, history.unanswered[site][0]), now_s=history.now_s)
    ]
    assert publish.absent == {"lga": "its stream broke"}
    assert publish.phases_s["training"] == 7.0
    assert sum(publish.phases_s.values()) == 7.0


MEMBER = Member(
    site="ewr", state=State.HERE, since_s=5.0, heard_s=9.0, reason="it called", stream=1, instance="", version="1"
)


def test_a_site_shows_what_it_does_and_one_that_is_wanted_and_never_came_is_named():
    progress = pb.Progress(job="j", phase="training", round=2, rows=30, loss=float("nan"), bytes_up=7)
    job = known(Job(RULES, now_s=1.0), progress={"ewr": progress, "jfk": progress})
    gone = Member(
        site="jfk", state=State.GONE, since_s=6.0, heard_s=3.0, reason="silent", stream=2, instance="", version="1"
    )
    shown = snapshot.snapshot({}, {"ewr": MEMBER, "jfk": gone}, [job], now_s=1010.0, boot_s=1000.0)
    ewr, jfk, lga = shown["sites"]
    assert (ewr["state"], ewr["since_s"], ewr["heard_s"]) == ("here", 1005.0, 1009.0)
    assert [(work["job"], work["phase"], work["rows"], work["loss"]) for work in ewr["work"]] == [
        ("j", "training", 30, None)
    ]
    assert (jfk["state"], jfk["reason"], jfk["work"]) == ("gone", "silent", [])
    assert (lga["state"], lga["reason"]) == ("unseen", snapshot.NEVER_SEEN)


ENDED = JobFacts(status="failed", reason="too few sites", launched_s=5.0, since_s=9.0, ended_s=9.0)
QUEUED = JobFacts(status="queued", launched_s=3.0, since_s=5.0)
RUNNING = known(Job(RULES, now_s=1.0), JobFacts(status="running"), waiting="waiting for the view", waiting_since_s=7.0)


@pytest.mark.parametrize(
    ("job", "model", "stands", "reason"),
    [
        (known(None, ENDED), None, ("failed", None, 9.0), "too few sites"),
        (known(None, QUEUED), None, ("queued", None, 5.0), "it is being taken up from the ledger"),
        (known(None, QUEUED), "flights", ("queued", None, 5.0), "waiting for job other to end, which makes states of"),
        (known(None, QUEUED), "pumps", ("queued", None, 5.0), "waiting for one of 1 running jobs to end"),
        (RUNNING, None, ("running", "waiting", 7.0), "waiting for the view"),
    ],
)
def test_a_job_that_does_not_go_on_says_why(job, model, stands, reason):
    other = known(Job(RULES, now_s=1.0), id="other", model=model or "")
    shown = snapshot.summary(job, [job, other] if model else [job], boot_s=0.0)
    assert (shown["status"], shown["phase"], shown["since_s"]) == stands
    assert shown["reason"].startswith(reason)


def test_a_standby_names_the_leader_and_a_lease_that_was_given_back_names_none():
    leadership = Leadership("me", 6.0, now_s=1.0)
    lease = Lease(owner="other", epoch=3, lease_s=6.0, address="a:1", status="a:2", since_s=500.0, generation=4)
    leadership.handle(Looked(lease), now_s=2.0)
    shown = snapshot.coordinator(leadership, now_s=1002.0, boot_s=1000.0, facts={"address": "me:1"}, ready=False)
    assert (shown["address"], shown["role"], shown["since_s"]) == ("me:1", "standby", 1001.0)
    assert shown["leader"] == {"address": "a:1", "status": "a:2", "epoch": 3, "since_s": 500.0}
    assert shown["reason"] == "epoch 3 leads at a:1"


def test_a_leader_that_stood_still_does_not_say_that_it_leads():
    leadership = Leadership("me", 6.0, now_s=1.0)
    leadership.handle(Taken(Lease(owner="me", epoch=1, lease_s=6.0, address="me:1"), 1.0), now_s=1.0)
    roles = [
        snapshot.coordinator(leadership, now_s=now_s, boot_s=0.0, facts={}, ready=True)["role"] for now_s in (2.0, 9.0)
    ]
    assert roles == ["leading", "stopping"]


def test_rounds_are_shown_as_the_ledger_has_them():
    metrics = {"ewr": {"loss": 0.5, "auc": float("nan")}}
    commit = CommitFacts(committed_s=9.0, version=2, weights={"ewr": 3}, metrics=metrics, reason="all")
    rounds = (RoundFacts(round=0, commit=CommitFacts(committed_s=8.0, version=1)), RoundFacts(round=1, commit=commit))
    job = known(None, JobFacts(status="running", rounds=(*rounds, RoundFacts(round=2, sites=("ewr",)))))
    first, second = snapshot.detail(job, [job], boot_s=0.0)["history"]
    assert (first["round"], first["status"], first["commit"]["weights"]) == (1, "committed", {"ewr": 3})
    assert first["commit"]["metrics"] == {"ewr": {"loss": 0.5, "auc": None}}
    assert (second["round"], second["status"], second["commit"]) == (2, "open", None)


def test_every_field_is_described():
    """Those of sites, phases and metrics by name are not fields."""
    by_name = ("weights", "staleness", "metrics", "absent", "phases_s", "proof")

    def fields_of(shown: Any) -> set[str]:
        if isinstance(shown, list):
            return set().union(*map(fields_of, shown))
        if not isinstance(shown, dict):
            return set()
        return set(shown).union(*(fields_of(value) for name, value in shown.items() if name not in by_name))

    cut = CutFacts(decided_s=1.0, rows=1, dropped=0, equal=True, proof={})
    done = RoundFacts(round=1, cut=cut, commit=CommitFacts(committed_s=9.0, version=2))
    own = LocalizedFacts(site="ewr", committed_s=9.0, version=1, samples=1, metrics={})
    job = known(
        Job(RULES, now_s=1.0), JobFacts(rounds=(done,), localized={"ewr": own}), progress={"ewr": pb.Progress()}
    )
    leadership = Leadership("me", 6.0, now_s=1.0)
    lease = Lease(owner="other", epoch=3, lease_s=6.0, address="a:1")
    leadership.handle(Looked(lease), now_s=2.0)
    me = snapshot.coordinator(leadership, now_s=2.0, boot_s=0.0, facts={}, ready=False)
    seen = snapshot.snapshot(me, {"ewr": MEMBER}, [job], now_s=1.0, boot_s=0.0)
    told = snapshot.event(pb.JobEvent(phase=pb.PhaseEvent(phase="training")))
    page = (ROOT / "docs/reference/snapshot.md").read_text()
    described = set(re.findall(r"[\w]+", " ".join(re.findall(r"`([^`]+)`", page))))
    assert fields_of([seen, snapshot.detail(job, [job], boot_s=0.0), told]) <= described
