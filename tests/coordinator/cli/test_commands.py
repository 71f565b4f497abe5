"""The program `geotrain` against coordinators that answer on real ports and know what a test says."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from coordinator import http
from coordinator.cli import commands, show
from coordinator.cli.words import clock
from coordinator.config import CoordinatorConfig
from coordinator.eventlog import EventLog
from coordinator.facts import CommitFacts, CutFacts, JobFacts, RoundFacts
from coordinator.job import Job
from coordinator.leadership import Leadership, Looked, Taken
from geotrain.lease import Lease
from geotrain.rpc import coordinator_pb2 as pb
from tests.coordinator.test_snapshot import MEMBER, RULES, known

DEADLINE_S = 60
COMMIT = CommitFacts(
    committed_s=1_700_000_020.0,
    version=7,
    weights={"ewr": 300, "jfk": 100},
    metrics={"ewr": {"loss": 0.25}, "jfk": {"loss": 0.5}},
    seconds=12.0,
    bytes_up=2_000_000,
    bytes_down=900,
    reason="10 s grace passed without lga",
    alias="candidate",
    gate="loss is -0.1 better: min_gain is 0",
    phases_s={"scanning": 2.0, "training": 10.0},
    absent={"lga": "silent for 4 heartbeats [of 2 s]"},
)
CUT = CutFacts(decided_s=1_700_000_010.0, rows=12345, dropped=0, equal=True, proof={"legs": "ab"})
DONE = RoundFacts(round=1, base_version=6, sites=("ewr", "jfk"), opened_s=1_700_000_008.0, cut=CUT, commit=COMMIT)
OPEN = RoundFacts(round=2, base_version=7, sites=("ewr", "jfk"), opened_s=1_700_000_021.0)
FACTS = JobFacts(status="running", launched_s=1_700_000_000.0, rounds=(RoundFacts(round=0), DONE, OPEN))

PAST = {
    **{"job": "flights-old", "status": "failed", "reason": "too few sites left"},
    **{"launched_s": 1_600_000_000.0, "since_s": 1_600_003_661.0, "ended_s": 1_600_003_661.0},
}
NUM_OLDER = 7

Scene = Callable[["Ask"], Awaitable[None]]


def job(name: str, machine: Job | None = None, facts: JobFacts = FACTS) -> SimpleNamespace:
    log = EventLog("j")
    phases = (("training", 1), ("training", 1), ("idle", 0), ("training", 2))
    for phase, number in phases:
        progress = pb.Progress(phase=phase, round=number, loss=0.5)
        log.add(pb.JobEvent(time_s=1_700_000_005.0, site=pb.SiteEvent(site="ewr", progress=progress)))
    log.add(pb.JobEvent(time_s=1_700_000_020.0, round=pb.RoundEvent(round=1, version=7, loss={"ewr": 0.25})))
    return known(machine, facts, id=name, log=log)


class Jobs:
    """As `coordinator.jobs.Jobs` is read."""

    def __init__(self, *jobs: SimpleNamespace) -> None:
        self.runners = {one.id: one for one in jobs}

    async def past(self) -> tuple[list[dict[str, object]], int]:
        return [PAST], NUM_OLDER

    async def find(self, name: str) -> SimpleNamespace | None:
        return self.runners.get(name)


@asynccontextmanager
async def coordinator(*jobs: SimpleNamespace, epoch: int = 0, leader: Lease | None = None) -> AsyncIterator[str]:
    """A coordinator that leads under the epoch, or stands by. Yields where its status is read."""
    leadership = Leadership("me", 6.0, now_s=time.monotonic())
    if epoch:
        own = Lease(owner="me", epoch=epoch, lease_s=6.0, address="127.0.0.1:9")
        leadership.handle(Taken(own, time.monotonic()), now_s=time.monotonic())
    elif leader:
        leadership.handle(Looked(leader), now_s=time.monotonic())
    membership = SimpleNamespace(members={"ewr": MEMBER})
    term = SimpleNamespace(jobs=Jobs(*jobs), sessions=SimpleNamespace(membership=membership)) if epoch else None
    view = SimpleNamespace(consistency="strong")
    bound = http.bind("127.0.0.1:0")
    pages = http.Pages(CoordinatorConfig(), view, SimpleNamespace(leadership=leadership, term=term), "127.0.0.1:9")
    async with http.serving(bound, pages):
        yield http.found_at(bound, "")


class Ask:
    """Types a command, as a user would; returns its exit code and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, *arguments: str, at: str) -> tuple[int, str]:
        code = await asyncio.to_thread(self._run, [*arguments, "--coordinator", at])
        captured = self._capsys.readouterr()
        return code, captured.out + captured.err

    def _run(self, arguments: list[str]) -> int:
        with pytest.raises(SystemExit) as left:
            commands.main(arguments)
        return int(left.value.code or 0)


@pytest.fixture
def play(capsys) -> Callable[[Scene], None]:
    return lambda scene: asyncio.run(asyncio.wait_for(scene(Ask(capsys)), DEADLINE_S))


def test_status_shows_who_leads_the_sites_and_the_jobs(play):
    async def scene(ask: Ask) -> None:
        async with coordinator(job("flights-a", Job(RULES, now_s=1.0)), epoch=3) as leader:
            code, text = await ask("status", at=leader)
            assert code == 0
            assert "leads under epoch 3" in text
            assert "waiting for ewr, jfk, lga" in text
            assert "no agent of it has connected" in text
            assert "nothing now" in text

    play(scene)


def test_json_is_what_the_coordinator_serves(play):
    async def scene(ask: Ask) -> None:
        async with coordinator(job("flights-a"), epoch=3) as leader:
            shown = json.loads((await ask("status", "--json", at=leader))[1])
            assert (shown["coordinator"]["epoch"], shown["coordinator"]["consistency"]) == (3, "strong")
            past, *others = json.loads((await ask("jobs", "--json", at=leader))[1])
            assert others == shown["jobs"]
            assert past.items() >= PAST.items()
            assert past.keys() == others[0].keys()
            assert [site["site"] for site in json.loads((await ask("sites", "--json", at=leader))[1])] == ["ewr"]
            rounds = json.loads((await ask("rounds", "flights-a", "--json", at=leader))[1])
            assert [past["status"] for past in rounds["history"]] == ["committed", "open"]

    play(scene)


def test_jobs_shows_also_those_that_only_the_view_knows_with_their_status_and_times(play):
    async def scene(ask: Ask) -> None:
        async with coordinator(job("flights-a"), epoch=3) as leader:
            code, text = await ask("jobs", at=leader)
            assert code == 0
            [older, first, why, second, _] = text.splitlines()
            assert older == f"{NUM_OLDER} older jobs, all ended, are not listed"
            assert first.startswith(f"flights-old  failed, {clock(PAST['ended_s'])}, 1 h 1 min after its launch")
            assert why.strip() == "too few sites left"
            assert second.startswith("flights-a  running, round 2 of 2, for ")

    play(scene)


def test_explain_says_who_was_in_a_round_who_was_not_and_why_it_closed(play):
    async def scene(ask: Ask) -> None:
        async with coordinator(job("flights-a"), epoch=3) as leader:
            code, text = await ask("explain", "flights-a", "1", at=leader)
            assert code == 0
            for said in (
                *("committed as version 7", "10 s grace passed without lga", "12,345 rows", "the same everywhere"),
                *("scanning 2.0, training 10.0", "2.0 MB up", "75.0%", "0.2500"),
                *("silent for 4 heartbeats [of 2 s]", "ewr: training round 1", "why candidate", "min_gain is 0"),
            ):
                assert said in text, said
            assert text.count("ewr: training round 1") == 1  # a heartbeat is no story
            explained = json.loads((await ask("explain", "flights-a", "1", "--json", at=leader))[1])
            assert explained["commit"]["absent"] == COMMIT.absent
            assert [event["kind"] for event in explained["events"]] == ["site", "round"]

    play(scene)


def test_explain_of_an_open_round_says_where_each_site_stands(play):
    async def scene(ask: Ask) -> None:
        machine = Job(RULES, now_s=1.0, facts=replace(FACTS, rounds=FACTS.rounds[1:]))
        async with coordinator(job("flights-a", machine), epoch=3) as leader:
            code, text = await ask("explain", "flights-a", "2", at=leader)
            assert code == 0
            assert "round 2 of flights-a: open, gathering" in text
            assert "it is not connected" in text

    play(scene)


def test_why_a_site_is_not_further_is_shown_with_what_it_does(play):
    async def scene(ask: Ask) -> None:
        one = job("flights-a", Job(RULES, now_s=1.0))
        note = "spool does not take an update: No space left on device"
        one.progress["ewr"] = pb.Progress(phase="uploading", round=2, loss=0.5, note=note)
        async with coordinator(one, epoch=3) as leader:
            _, text = await ask("status", at=leader)
            assert f"uploading round 2 of flights-a, loss 0.5000: {note}" in " ".join(text.split())
            assert json.loads((await ask("sites", "--json", at=leader))[1])[0]["work"][0]["note"] == note

    play(scene)


def test_logs_tell_the_story_without_heartbeats(play):
    async def scene(ask: Ask) -> None:
        async with coordinator(job("flights-a"), epoch=3) as leader:
            _, text = await ask("logs", "flights-a", at=leader)
            said = [line.split("  ", 1)[1] for line in text.splitlines()]
            assert [line.partition(",")[0] for line in said] == [
                *("ewr: training round 1", "ewr: idle", "ewr: training round 2", "round 1: committed as version 7")
            ]
            _, text = await ask("logs", "flights-a", "--json", at=leader)
            assert [json.loads(line)["kind"] for line in text.splitlines()] == ["site", "site", "site", "round"]

    play(scene)


def test_of_several_coordinators_the_one_that_leads_answers_and_a_dead_one_is_named(play):
    async def scene(ask: Ask) -> None:
        async with coordinator(job("of-the-old"), epoch=2) as old, coordinator(job("of-the-new"), epoch=3) as new:
            code, text = await ask("status", at=f"127.0.0.1:1, {old},{new}")
            assert code == 0
            assert "of-the-new" in text
            assert "of-the-old" not in text
            assert "127.0.0.1:1" in text
            assert "Connection refused" in text

    play(scene)


def test_a_standby_leads_the_way_to_the_leader(play):
    async def scene(ask: Ask) -> None:
        async with coordinator(job("flights-a"), epoch=3) as leader:
            lease = Lease(owner="other", epoch=3, lease_s=6.0, address="127.0.0.1:9", status=leader)
            async with coordinator(leader=lease) as standby:
                assert "flights-a" in (await ask("jobs", at=standby))[1]

    play(scene)


def test_where_no_coordinator_leads_the_reason_is_shown_and_the_code_says_so(play):
    async def scene(ask: Ask) -> None:
        gone = Lease(owner="other", epoch=3, lease_s=6.0, address="127.0.0.1:9", status="127.0.0.1:1")
        async with coordinator(leader=gone) as standby:
            code, text = await ask("status", at=standby)
            assert code == 3
            assert "epoch 3 leads at 127.0.0.1:9" in text
            code, text = await ask("jobs", at=standby)
            assert code == 3
            assert "no coordinator leads yet" in text

    play(scene)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("rounds", "flights-b"), 4, "there is no job 'flights-b'"),
        (("explain", "flights-a", "3"), 4, "has no round 3 yet: it is in round 2 of 2"),
        (("logs", "../snapshot"), 4, "there is no job '../snapshot'"),
        (("explain", "flights-a", "two"), 2, "valid integer"),
        (("explain", "flights-a"), 2, "ROUND"),
        (("stop", "flights-a"), 2, "stop"),
    ],
)
def test_a_mistake_is_named_and_has_its_code(play, arguments, code, said):
    async def scene(ask: Ask) -> None:
        async with coordinator(job("flights-a"), epoch=3) as leader:
            left, text = await ask(*arguments, at=leader)
            assert (left, said in text) == (code, True), text

    play(scene)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "no such host:5"])
def test_a_coordinator_that_does_not_answer_is_no_stack_trace(play, address):
    async def scene(ask: Ask) -> None:
        code, text = await ask("sites", at=address)
        assert code == 3, text
        assert "--coordinator HOST:PORT" in text

    play(scene)


def test_no_address_is_a_mistake_of_usage(play):
    async def scene(ask: Ask) -> None:
        code, text = await ask("sites", at=" , ")
        assert (code, "--coordinator" in text) == (2, True), text

    play(scene)


def test_a_job_is_told_while_it_is_paused(play):
    async def scene(ask: Ask) -> None:
        paused = replace(FACTS, status="paused", reason="asked by ann [at home]")
        async with coordinator(job("flights-a", facts=paused), epoch=3) as leader:
            assert "asked by ann [at home]" in (await ask("jobs", at=leader))[1]
            assert "no site is asked for anything" in (await ask("explain", "flights-a", "2", at=leader))[1]

    play(scene)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (75, "1 min 15 s"), (7260, "2 h 1 min"), (180000, "2 d 2 h")],
)
def test_how_long_is_told_in_two_units(seconds, words):
    assert show.lasting(seconds) == words
