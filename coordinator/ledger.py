"""What the coordinator remembers of its jobs, in the view. Knows no gRPC and takes no decision.

Every record is written by compare-and-set under the epoch of whoever took the job last. A job is taken by raising its
epoch and writing its open round anew, so that nothing its owner before has seen can be written over any more.
"""

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from coordinator.facts import JobFacts, LocalizedFacts, RoundFacts
from geotrain.errors import DataError, GeotrainError, ViewError
from geotrain.view.connect import Conflict, View
from geotrain.view.refusals import InDoubt
from geotrain.view.retry import pauses

JOBS = "gt_jobs"
ROUNDS = "gt_rounds"

UNFINISHED = ("queued", "running")
LINEARIZABLE = "linearizable"


class TakenOver(GeotrainError):
    """Another coordinator has taken the job."""


def unfinished(view: View) -> list[str]:
    """Returns the jobs that have not ended, in the order of their launches. Raises ViewError."""
    try:
        rows = view.scan(JOBS, {"job": "string", "status": "string", "launched_s": "float64"}).read_all().to_pylist()
    except DataError:  # the first job makes the set
        return []
    rows.sort(key=lambda row: (row["launched_s"], row["job"]))
    return [row["job"] for row in rows if row["status"] in UNFINISHED]


class Ledger:
    """The records of one job: the job itself under its id, each round under `<job>/<round>`, a site's own state under
    `<job>/site/<site>`. Every method may raise ViewError; every one that writes, Conflict when a record is not as it
    was seen last.
    """

    def __init__(self, view: View, job: str) -> None:
        self._view = view
        self._job = job
        self._owner = secrets.token_hex(8)
        self._epoch = 0
        self._taken = False
        self._generations: dict[tuple[str, str], int] = {}

    def launch(self, config: Mapping[str, Any]) -> None:
        """Note a new job, to be run."""
        bins = {"job": self._job, "config": json.dumps(config), "launched_s": time.time()}
        self._write(JOBS, self._job, bins | {"status": "queued", "reason": "", "ended_s": 0.0})

    def config(self) -> str | None:
        """Returns the job's configuration, as JSON; None where there is no such job."""
        record = self._view.get(JOBS, self._job, reads=LINEARIZABLE)
        if record is None:
            return None
        self._generations[JOBS, self._job] = record.generation
        self._epoch = record.bins["epoch"] + 1
        return str(record.bins["config"])

    def take(self) -> JobFacts:
        """Become the one who writes this job's records, and return what they say. Raises TakenOver where this ledger
        had taken it, and another has since."""
        record = self._view.get(JOBS, self._job, reads=LINEARIZABLE)
        if record is None:
            raise ViewError(f"job {self._job} is not in the view any more", "launch it again")
        if self._taken and record.bins["owner"] != self._owner:
            raise TakenOver(
                f"job {self._job} was taken over by another coordinator", "Run one coordinator on one view."
            )
        self._generations[JOBS, self._job] = record.generation
        self._epoch = record.bins["epoch"] + 1
        self._write(JOBS, self._job, {"status": "running"})
        self._taken = True
        facts = self.facts()
        if facts.open_round:
            self.round(facts.open_round)
        return facts

    def facts(self) -> JobFacts:
        """Returns what the records say now."""
        record = self._view.get(JOBS, self._job, reads=LINEARIZABLE)
        assert record is not None
        config = json.loads(record.bins["config"])
        rounds = self._read([f"{self._job}/{number}" for number in range(config["rounds"] + 1)])
        localized = self._read([f"{self._job}/site/{site}" for site in config["sites"]])
        by_site = {facts.site: facts for facts in map(LocalizedFacts.from_json, localized)}
        return JobFacts(
            status=record.bins["status"],
            reason=record.bins["reason"],
            launched_s=record.bins["launched_s"],
            ended_s=record.bins["ended_s"],
            rounds=tuple(RoundFacts.from_json(text) for text in rounds),
            localized=by_site,
        )

    def _read(self, keys: list[str]) -> list[str]:
        records = self._view.get_many(ROUNDS, keys, reads=LINEARIZABLE)
        self._generations |= {
            (ROUNDS, key): found.generation for key, found in zip(keys, records, strict=True) if found
        }
        return [found.bins["facts"] for found in records if found]

    def round(self, facts: RoundFacts) -> None:
        """Note a round. From when it says committed its updates are counted, and sites may drop their own copies."""
        status = "committed" if facts.commit else "open"
        self._write(ROUNDS, f"{self._job}/{facts.round}", {"status": status, "facts": facts.to_json()})

    def localized(self, facts: LocalizedFacts) -> None:
        """Note a site's own state."""
        self._write(ROUNDS, f"{self._job}/site/{facts.site}", {"status": "committed", "facts": facts.to_json()})

    def end(self, status: str, reason: str) -> None:
        """Note how the job ended: finished or failed."""
        self._write(JOBS, self._job, {"status": status, "reason": reason, "ended_s": time.time()})

    def _write(self, set_name: str, key: str, bins: Mapping[str, Any]) -> None:
        """Write the record unless someone else has; a write that was not answered is settled by reading it back."""
        bins = {**bins, "epoch": self._epoch, "owner": self._owner}
        seen = self._generations.get((set_name, key), 0)
        for pause_s in pauses(self._view.config.ride_through_s):
            try:
                self._view.put(set_name, key, bins, generation=seen)
                self._generations[set_name, key] = seen + 1
                return
            except (Conflict, InDoubt) as error:
                last = error
            record = self._view.get(set_name, key, reads=LINEARIZABLE)
            if record and all(record.bins.get(name) == value for name, value in bins.items()):
                self._generations[set_name, key] = record.generation
                return
            if (record.generation if record else 0) != seen:
                raise Conflict(
                    f"record {set_name}/{key} was written by another coordinator", "Run one coordinator on one view."
                ) from last
            time.sleep(pause_s)
        raise last
