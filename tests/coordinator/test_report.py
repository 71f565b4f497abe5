"""What a job leaves behind, folded from what the ledger says of it."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from coordinator.facts import CommitFacts, CutFacts, JobFacts, LocalizedFacts, RoundFacts
from coordinator.history import told
from coordinator.report import report

CONFIG: Any = SimpleNamespace(sites=["jfk", "ewr"], rounds=1, task=SimpleNamespace(name="flights"))
COMMIT = CommitFacts(
    committed_s=9.0,
    version=2,
    weights={"ewr": 3.0, "jfk": 1.0},
    metrics={"jfk": {"loss": 0.5}, "ewr": {"loss": float("nan")}},
    seconds=4.321,
    bytes_up=10,
    bytes_down=20,
    reason="every live site reported",
)
FIRST = RoundFacts(round=0, commit=CommitFacts(committed_s=1.0, version=1))
ROUND = RoundFacts(
    round=1,
    cut=CutFacts(decided_s=5.0, rows=100, dropped=2, equal=False, proof={}),
    commit=COMMIT,
    sites=("ewr", "jfk"),
)
LOCALIZED = LocalizedFacts(
    site="ewr", committed_s=10.0, version=1, samples=7, metrics={"localized": 0.75, "global": 0.5}
)
FACTS = JobFacts(
    status="finished", reason="1 rounds", ended_s=11.0, rounds=(FIRST, ROUND), localized={LOCALIZED.site: LOCALIZED}
)


def of(facts: JobFacts) -> dict:
    events = list(told(facts, CONFIG, consistency="strong", num_racks=3))
    for event in events:
        event.job = "flights-a"
    found = report(events)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_a_report_has_a_jobs_rounds_sites_and_end():
    assert of(FACTS) == {
        "job": {"id": "flights-a", "finished": True, "reason": "1 rounds"},
        "view": {"consistency": "strong", "racks": 3},
        "rounds": [
            {
                "round": 1,
                "seconds": 4.32,
                "cut": {"rows": 100, "dropped": 2, "equal": False},
                "bytes_up": 10,
                "bytes_down": 20,
                "loss": {"ewr": None, "jfk": 0.5},
                "version": 2,
                "reason": "every live site reported",
            }
        ],
        "sites": {"ewr": {"rows": 7, "metrics": {"global": 0.5, "localized": 0.75}, "state": "flights/site/ewr@1"}},
    }


def test_a_job_that_failed_before_its_first_cut_is_reported_with_the_reason():
    found = of(replace(FACTS, status="failed", reason="nobody came", rounds=(), localized={}))
    assert found["job"] == {"id": "flights-a", "finished": False, "reason": "nobody came"}
    assert (found["rounds"], found["sites"]) == ([], {})
