"""The ledger's records: who may write them, and what becomes of a write that nobody answered."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from coordinator.facts import CommitFacts, CutFacts, LocalizedFacts, RoundFacts
from coordinator.ledger import JOBS, ROUNDS, Ledger, unfinished
from geotrain.errors import Fenced
from geotrain.view.connect import View, connect
from geotrain.view.keyed import Conflict
from geotrain.view.refusals import InDoubt
from tests.view.views import view_config

CUT = CutFacts(decided_s=2.5, rows=10, dropped=1, equal=False, proof={"legs": "ab"})
OPEN = RoundFacts(round=1, base_version=4, until_ns=10**18 + 1, sites=("ewr", "jfk"), opened_s=1.5, cut=CUT)
COMMIT = CommitFacts(
    committed_s=3.5,
    version=5,
    weights={"ewr": 10},
    metrics={"ewr": {"loss": 0.5}},
    seconds=2.0,
    bytes_up=1,
    bytes_down=2,
    reason="every live site reported",
)
COMMITTED = replace(OPEN, commit=COMMIT)
FIRST = RoundFacts(round=0, commit=CommitFacts(committed_s=1.0, version=1))
LOCALIZED = LocalizedFacts(site="ewr", committed_s=4.5, version=2, samples=10, metrics={"loss": 0.5})
CONFIG = {"sites": ["ewr", "jfk"], "rounds": 3}


@pytest.fixture
def view(cluster) -> Iterator[View]:
    with connect(view_config(cluster, ride_through_s=1.0)) as connected:
        yield connected


@pytest.fixture
def job(request, view) -> str:
    """A launched job of the test's own."""
    name = f"ledger-{abs(hash(request.node.nodeid)):x}"
    Ledger(view, name, epoch=1).launch(CONFIG)
    return name


@pytest.fixture
def on_the_way(view, monkeypatch):
    """Holds back what is written from now on, as if it had been sent by someone who was then stopped."""

    def hold() -> list[Callable[[], None]]:
        held: list[Callable[[], None]] = []
        put = view.put

        def late(*arguments, **options):
            held.append(lambda: put(*arguments, **options))

        monkeypatch.setattr(view, "put", late)
        return held

    return hold


def taken(view: View, job: str, epoch: int) -> Ledger:
    ledger = Ledger(view, job, epoch=epoch)
    ledger.take()
    return ledger


def test_what_was_noted_is_what_the_next_leader_reads(view, job):
    ledger = Ledger(view, job, epoch=1)
    assert ledger.take().rounds == ()
    ledger.round(OPEN)
    ledger.round(COMMITTED)
    ledger.localized(LOCALIZED)
    facts = Ledger(view, job, epoch=2).take()
    assert (facts.rounds, facts.localized, facts.status) == ((COMMITTED,), {"ewr": LOCALIZED}, "running")


def test_jobs_that_have_not_ended_are_found_in_the_order_of_their_launches(view, job):
    later = f"{job}-later"
    Ledger(view, later, epoch=1).launch(CONFIG)
    assert [name for name in unfinished(view) if name in (job, later)] == [job, later]
    ledger = taken(view, job, 1)
    ledger.note("finished", "3 rounds")
    assert job not in unfinished(view)
    assert later in unfinished(view)


# What a leader may be about to write when another takes over: what is there by then, and the write.
STALE_WRITES = {
    "the first model": ([], lambda ledger: ledger.round(FIRST)),
    "a round opened": ([FIRST], lambda ledger: ledger.round(OPEN)),
    "a cut decided": ([FIRST, replace(OPEN, cut=None)], lambda ledger: ledger.round(OPEN)),
    "a round committed": ([FIRST, OPEN], lambda ledger: ledger.round(COMMITTED)),
    "the next round opened": ([FIRST, COMMITTED], lambda ledger: ledger.round(replace(OPEN, round=2))),
    "a site's own state": (
        [FIRST, *(replace(COMMITTED, round=number) for number in (1, 2, 3))],
        lambda ledger: ledger.localized(LOCALIZED),
    ),
    "the end": ([FIRST, OPEN], lambda ledger: ledger.note("failed", "a mistake")),
}
stale_writes = pytest.mark.parametrize(("noted", "write"), STALE_WRITES.values(), ids=STALE_WRITES.keys())


@stale_writes
def test_a_leader_before_the_one_that_took_the_job_can_write_nothing_of_it(view, job, noted, write):
    stale = taken(view, job, 1)
    for facts in noted:
        stale.round(facts)
    after = Ledger(view, job, epoch=2).take()
    with pytest.raises(Fenced):
        write(stale)
    assert Ledger(view, job, epoch=2).facts() == after


@stale_writes
def test_what_it_had_sent_before_and_arrives_after_is_refused(view, job, on_the_way, monkeypatch, noted, write):
    stale = taken(view, job, 1)
    for facts in noted:
        stale.round(facts)
    held = on_the_way()
    write(stale)
    monkeypatch.undo()
    after = Ledger(view, job, epoch=2).take()
    [arrive] = held
    with pytest.raises(Conflict):
        arrive()
    assert Ledger(view, job, epoch=2).facts() == after


def test_a_leader_that_reads_again_does_not_learn_to_write(view, job):
    stale = taken(view, job, 1)
    taken(view, job, 2)
    with pytest.raises(Fenced):
        stale.take()
    stale.facts()
    with pytest.raises(Fenced):
        stale.note("failed", "")


def test_a_leader_that_sleeps_while_it_takes_a_job_fences_nothing_of_what_a_later_one_has_made_of_it(
    view, job, monkeypatch
):
    stale = Ledger(view, job, epoch=1)
    facts = Ledger.facts

    def meanwhile(self):
        if self is stale:
            later = taken(view, job, 2)
            for past in (FIRST, *(replace(COMMITTED, round=number) for number in (1, 2, 3))):
                later.round(past)
        return facts(self)

    monkeypatch.setattr(Ledger, "facts", meanwhile)
    with pytest.raises(Fenced):
        stale.take()
    assert view.get(ROUNDS, f"{job}/site/ewr") is None


def test_a_job_that_waits_is_fenced_and_goes_on_waiting(view, job):
    assert Ledger(view, job, epoch=2).fence().status == "queued"
    with pytest.raises(Fenced):
        Ledger(view, job, epoch=1).take()
    assert Ledger(view, job, epoch=2).facts().status == "queued"


def test_a_round_that_was_opened_just_before_is_gone_on_with(view, job, on_the_way, monkeypatch):
    stale = taken(view, job, 1)
    held = on_the_way()
    stale.round(OPEN)
    monkeypatch.undo()
    ledger = Ledger(view, job, epoch=2)
    facts = Ledger.facts

    def then_it_arrives(self):
        read = facts(self)
        held.pop()()
        return read

    monkeypatch.setattr(Ledger, "facts", then_it_arrives)
    with pytest.raises(Conflict):
        ledger.take()
    monkeypatch.undo()
    assert ledger.take().rounds == (OPEN,)
    ledger.round(COMMITTED)


@pytest.mark.parametrize("set_name", [JOBS, ROUNDS])
@pytest.mark.parametrize("applied", [True, False])
def test_a_write_in_doubt_is_settled_by_reading_it_back(view, job, monkeypatch, set_name, applied):
    put = view.put
    doubted = []

    def doubtful(name, key, bins, **options):
        if name == set_name and not doubted:
            doubted.append(True)
            if applied:
                put(name, key, bins, **options)
            raise InDoubt("no answer")
        put(name, key, bins, **options)

    monkeypatch.setattr(view, "put", doubtful)
    ledger = taken(view, job, 1)
    ledger.round(OPEN)
    ledger.round(COMMITTED)
    assert doubted
    assert Ledger(view, job, epoch=1).facts().rounds == (COMMITTED,)


def test_a_write_that_is_never_answered_is_given_up_and_said(view, job, monkeypatch):
    ledger = taken(view, job, 1)

    def silent(*arguments, **options):
        raise InDoubt("no answer")

    monkeypatch.setattr(view, "put", silent)
    with pytest.raises(InDoubt):
        ledger.round(OPEN)
