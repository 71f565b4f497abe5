"""The ledger's records: who may write them, and what becomes of a write that nobody answered."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from coordinator.facts import CommitFacts, CutFacts, LocalizedFacts, RoundFacts
from coordinator.ledger import JOBS, ROUNDS, Ledger, TakenOver, unfinished
from geotrain.view.connect import Conflict, View, connect
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
CONFIG = {"sites": ["ewr", "jfk"], "rounds": 3}


@pytest.fixture
def view(cluster) -> Iterator[View]:
    with connect(view_config(cluster, ride_through_s=1.0)) as connected:
        yield connected


@pytest.fixture
def job(request, view) -> str:
    """A launched job of the test's own."""
    name = f"ledger-{abs(hash(request.node.nodeid)):x}"
    Ledger(view, name).launch(CONFIG)
    return name


def test_what_was_noted_is_what_the_next_coordinator_reads(view, job):
    ledger = Ledger(view, job)
    assert ledger.take().rounds == ()
    localized = LocalizedFacts(site="ewr", committed_s=4.5, version=2, samples=10, metrics={"loss": 0.5})
    ledger.round(OPEN)
    ledger.round(COMMITTED)
    ledger.localized(localized)
    facts = Ledger(view, job).take()
    assert (facts.rounds, facts.localized, facts.status) == ((COMMITTED,), {"ewr": localized}, "running")


def test_jobs_that_have_not_ended_are_found_in_the_order_of_their_launches(view, job):
    later = f"{job}-later"
    Ledger(view, later).launch(CONFIG)
    assert [name for name in unfinished(view) if name in (job, later)] == [job, later]
    ledger = Ledger(view, job)
    ledger.take()
    ledger.end("finished", "3 rounds")
    assert job not in unfinished(view)
    assert later in unfinished(view)


@pytest.mark.parametrize("write", [lambda ledger: ledger.round(COMMITTED), lambda ledger: ledger.end("failed", "")])
def test_who_lost_the_job_can_write_nothing_of_it(view, job, write):
    stale = Ledger(view, job)
    stale.take()
    stale.round(OPEN)
    Ledger(view, job).take()
    with pytest.raises(Conflict, match="written by another coordinator"):
        write(stale)
    with pytest.raises(TakenOver, match="taken over by another coordinator"):
        stale.take()
    assert Ledger(view, job).facts().rounds == (OPEN,)


def test_a_round_that_a_stale_coordinator_opened_is_found_when_it_is_in_the_way(view, job):
    stale = Ledger(view, job)
    stale.take()
    ledger = Ledger(view, job)
    ledger.take()
    stale.round(OPEN)
    with pytest.raises(Conflict):
        ledger.round(replace(OPEN, until_ns=7))
    assert ledger.take().rounds == (OPEN,)
    ledger.round(COMMITTED)
    with pytest.raises(Conflict):
        stale.round(COMMITTED)


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
    ledger = Ledger(view, job)
    ledger.take()
    ledger.round(OPEN)
    ledger.round(COMMITTED)
    assert doubted
    assert Ledger(view, job).facts().rounds == (COMMITTED,)


def test_a_write_that_is_never_answered_is_given_up_and_said(view, job, monkeypatch):
    ledger = Ledger(view, job)
    ledger.take()

    def silent(*arguments, **options):
        raise InDoubt("no answer")

    monkeypatch.setattr(view, "put", silent)
    with pytest.raises(InDoubt):
        ledger.round(OPEN)
