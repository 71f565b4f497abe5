"""What the coordinator remembers of its jobs, in the view. Knows no gRPC and takes no decision.

Every record is written by compare-and-set, and says under which leader's epoch. A leader takes a job by raising the
epoch of all that a leader before it could still write: the job, its open round, and what is not there yet but comes
next. What that leader has sent by then, or sends later, is refused.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from coordinator.facts import JobFacts, LocalizedFacts, RoundFacts
from geotrain.errors import Fenced, ViewError
from geotrain.view.connect import View
from geotrain.view.keyed import Conflict, Record
from geotrain.view.query import read_set
from geotrain.view.refusals import InDoubt
from geotrain.view.retry import pauses

JOBS = "gt_jobs"
ROUNDS = "gt_rounds"

UNFINISHED = ("queued", "running", "paused")
LINEARIZABLE = "linearizable"


class Seen(NamedTuple):
    """A record as it was when we saw it last; zeros where there is none."""

    generation: int
    epoch: int

    @classmethod
    def of(cls, record: Record | None) -> "Seen":
        return cls(record.generation, record.bins.get("epoch", 0)) if record else cls(0, 0)


def listed(view: View) -> list[dict[str, Any]]:
    """Returns every job's record but for its configuration, in the order of their launches. Raises ViewError."""
    rows = read_set(view, JOBS, ["job", "status", "reason", "since_s", "launched_s", "ended_s"])
    return sorted(rows, key=lambda row: (row["launched_s"], row["job"]))


def unfinished(view: View) -> list[str]:
    """Returns the jobs that have not ended, in the order of their launches. Raises ViewError."""
    return [row["job"] for row in listed(view) if row["status"] in UNFINISHED]


class Ledger:
    """The records of one job: the job itself under its id, each round under `<job>/<round>`, a site's own state under
    `<job>/site/<site>`. Every method may raise ViewError; every one that writes, Conflict when a record is not as it
    was seen last, and Fenced when a later leader has taken the job.

    epoch: under which this coordinator leads.
    """

    def __init__(self, view: View, job: str, *, epoch: int) -> None:
        self.epoch = epoch
        self._view = view
        self._job = job
        self._seen: dict[tuple[str, str], Seen] = {}

    def launch(self, config: Mapping[str, Any]) -> None:
        """Note a new job, to be run."""
        now_s = time.time()
        bins = {"job": self._job, "config": json.dumps(config), "launched_s": now_s, "since_s": now_s}
        self._write(JOBS, self._job, bins | {"status": "queued", "reason": "", "ended_s": 0.0})

    def config(self) -> str | None:
        """Returns the job's configuration, as JSON; None where there is no such job."""
        record = self._get(JOBS, self._job)
        return None if record is None else str(record.bins["config"])

    def fence(self) -> JobFacts:
        """Keep every leader before this one from writing of this job, and return what its records say."""
        return self._take({})

    def take(self) -> JobFacts:
        """The same, and note that the job runs."""
        return self._take({"status": "running", "reason": "", "since_s": time.time()})

    def _take(self, bins: Mapping[str, Any]) -> JobFacts:
        record = self._get(JOBS, self._job)
        if record is None:
            raise ViewError(f"job {self._job} is not in the view any more", "launch it again")
        self._write(JOBS, self._job, bins)
        facts = self.facts()
        # Read after the rounds: what a later leader has made of them must not be taken for ours to fence.
        self._get(JOBS, self._job)
        self._refuse_later(JOBS, self._job)
        for key, text in self._next(facts, json.loads(record.bins["config"])).items():
            if self._seen[ROUNDS, key].epoch != self.epoch:
                self._write(ROUNDS, key, {"status": "open" if text else "awaited", "facts": text})
        return facts

    def _next(self, facts: JobFacts, config: Mapping[str, Any]) -> dict[str, str]:
        """What is written next, by key: an open round as it is, nothing where there is no record yet.

        A leader goes on only from what it has committed, so no other record can be on its way.
        """
        committed = {past.round for past in facts.committed}
        numbers = [number for number in range(config["rounds"] + 1) if number not in committed]
        if not numbers:
            return {f"{self._job}/site/{site}": "" for site in config["sites"] if site not in facts.localized}
        texts = {past.round: past.to_json() for past in facts.rounds}
        # The first model is committed when round 1 is open already.
        upcoming = numbers[:2] if numbers[0] == 0 else numbers[:1]
        return {f"{self._job}/{number}": texts.get(number, "") for number in upcoming}

    def facts(self) -> JobFacts:
        """Returns what the records say now."""
        record = self._get(JOBS, self._job)
        assert record is not None
        config = json.loads(record.bins["config"])
        rounds = self._read([f"{self._job}/{number}" for number in range(config["rounds"] + 1)])
        localized = self._read([f"{self._job}/site/{site}" for site in config["sites"]])
        by_site = {facts.site: facts for facts in map(LocalizedFacts.from_json, localized)}
        return JobFacts(
            config_sha256=hashlib.sha256(record.bins["config"].encode()).hexdigest(),
            status=record.bins["status"],
            reason=record.bins["reason"],
            since_s=record.bins["since_s"],
            launched_s=record.bins["launched_s"],
            ended_s=record.bins["ended_s"],
            rounds=tuple(RoundFacts.from_json(text) for text in rounds),
            localized=by_site,
        )

    def round(self, facts: RoundFacts) -> None:
        """Note a round. From when it says committed its updates are counted, and sites may drop their own copies."""
        status = "committed" if facts.commit else "open"
        self._write(ROUNDS, f"{self._job}/{facts.round}", {"status": status, "facts": facts.to_json()})

    def localized(self, facts: LocalizedFacts) -> None:
        """Note a site's own state."""
        self._write(ROUNDS, f"{self._job}/site/{facts.site}", {"status": "committed", "facts": facts.to_json()})

    def note(self, status: str, reason: str) -> None:
        """Note that the job is queued or paused, or how it ended: finished, failed or cancelled."""
        now_s = time.time()
        ended_s = 0.0 if status in UNFINISHED else now_s
        self._write(JOBS, self._job, {"status": status, "reason": reason, "since_s": now_s, "ended_s": ended_s})

    def _get(self, set_name: str, key: str) -> Record | None:
        record = self._view.get(set_name, key, reads=LINEARIZABLE)
        self._seen[set_name, key] = Seen.of(record)
        return record

    def _read(self, keys: list[str]) -> list[str]:
        records = self._view.get_many(ROUNDS, keys, reads=LINEARIZABLE)
        self._seen |= {(ROUNDS, key): Seen.of(found) for key, found in zip(keys, records, strict=True)}
        return [found.bins["facts"] for found in records if found and found.bins["facts"]]

    def _refuse_later(self, set_name: str, key: str) -> None:
        epoch = self._seen.get((set_name, key), Seen.of(None)).epoch
        if epoch > self.epoch:
            raise Fenced(f"job {self._job} was taken over: {set_name}/{key} is of epoch {epoch}, not {self.epoch}")

    def _write(self, set_name: str, key: str, bins: Mapping[str, Any]) -> None:
        """Write the record unless someone else has; a write that was not answered is settled by reading it back."""
        bins = {**bins, "epoch": self.epoch}
        seen = self._seen.get((set_name, key), Seen.of(None))
        for pause_s in pauses(self._view.config.ride_through_s):
            self._refuse_later(set_name, key)
            try:
                self._view.put(set_name, key, bins, generation=seen.generation)
                self._seen[set_name, key] = Seen(seen.generation + 1, self.epoch)
                return
            except (Conflict, InDoubt) as error:
                last = error
            before, record = seen, self._get(set_name, key)
            if record and all(record.bins.get(name) == value for name, value in bins.items()):
                return
            seen = Seen.of(record)
            if seen.generation != before.generation and seen.epoch <= self.epoch:
                raise Conflict(f"record {set_name}/{key} was written since it was read", "read it again") from last
            time.sleep(pause_s)
        raise last
