"""That what a coordinator shows is so within one heartbeat: compared with the store, the processes and the trainings.

Looks again and again at what every coordinator would serve over HTTP; what is not so for longer is a broken promise.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from math import inf
from typing import Any

from coordinator import snapshot
from coordinator.config import CoordinatorConfig
from coordinator.facts import RoundFacts
from coordinator.http import Pages
from coordinator.ledger import JOBS, ROUNDS
from coordinator.membership import GONE_AFTER, SILENT_AFTER
from tests.simulation.rounds.places import WAITS, Places
from tests.simulation.rounds.processes import PROCESS, Process
from tests.simulation.rounds.store import Store, Trouble, Write
from tests.simulation.rounds.trainings import Trainings

HEARTBEAT_S = CoordinatorConfig().heartbeat_s
SETTLED_S = 15.0
"""After this long without trouble with the store, a coordinator knows what became of what it wrote."""
ENDED = ("finished", "failed", "cancelled")

Json = dict[str, Any]


class Seen:
    """The looks of one run. places: of each agent's jobs. fail: takes what was broken."""

    def __init__(
        self, store: Store, trainings: Trainings, now_s: Callable[[], float], fail: Callable[[str], None]
    ) -> None:
        self.num_looks = 0
        self.num_waits = 0
        """How often one was seen to wait for a place, and to say so."""
        self.places: dict[Process, Places] = {}
        self._store = store
        self._trainings = trainings
        self._now_s = now_s
        self._fail = fail
        self._pages: dict[Process, Pages] = {}
        self._written_s: dict[str, float] = {}  # by job
        self._troubled_s: dict[str, float] = {}  # by process
        self._wrong_since_s: dict[tuple[Process, str], float] = {}

    @asynccontextmanager
    async def serving(self, bound: object, pages: Pages) -> AsyncIterator[None]:
        """In the place of `coordinator.http.serving`."""
        process = PROCESS.get()
        assert process is not None
        self._pages[process] = pages
        yield
        del self._pages[process]

    def written(self, write: Write) -> None:
        if write.set_name in (JOBS, ROUNDS):
            self._written_s[str(write.key).partition("/")[0]] = self._now_s()

    def check(self, agents: Mapping[str, Process]) -> None:
        """One look at all of them. agents: the process of each site's agent."""
        for name, trouble in self._store.troubles.items():
            if trouble != Trouble():
                self._troubled_s[name] = self._now_s()
        awake = {process: pages for process, pages in self._pages.items() if process.is_alive and not process.is_paused}
        wrong: set[tuple[Process, str]] = set()
        leaders = 0
        for process, pages in awake.items():
            shown = pages.seen()
            json.dumps(shown, allow_nan=False)
            leaders += shown["coordinator"]["role"] == "leading"
            wrong |= {(process, what) for what in self._lies(process, pages, shown, agents)}
        for process, places in self.places.items():
            if process.is_alive and not process.is_paused and (what := places.wrong()):
                wrong.add((process, what))
        if leaders > 1:
            wrong |= {(process, "two coordinators say that they lead") for process in awake}
        self._wrong_since_s = {one: self._wrong_since_s.get(one, self._now_s()) for one in wrong}
        for (process, what), since_s in self._wrong_since_s.items():
            if self._now_s() - since_s > HEARTBEAT_S:
                self._fail(f"for more than a heartbeat {process.name} shows what is not so, or may not be: {what}")
        self.num_looks += 1

    def _lies(self, process: Process, pages: Pages, shown: Json, agents: Mapping[str, Process]) -> list[str]:
        """What it shows that is not so now."""
        lies = []
        heard = set()
        for site in shown["sites"]:
            lies += self._lies_about_site(site, shown["time_s"], agents[site["site"]])
            heard |= {site["site"]} if site["heard_s"] and shown["time_s"] - site["heard_s"] < HEARTBEAT_S else set()
        is_settled = self._now_s() - self._troubled_s.get(process.name, -inf) > SETTLED_S
        term = pages._service.term
        known = list(term.jobs.runners.values()) if term else []
        for job in (snapshot.detail(runner, known, boot_s=0.0) for runner in known):
            record = self._store.records[JOBS, job["job"]].bins
            lies += self._lies_about_rounds(job) + self._lies_about_places(job, heard, agents)
            if job["status"] in ENDED and record["status"] != job["status"]:
                lies.append(f"job {job['job']} is {job['status']}")
            if not job["reason"]:
                lies.append(f"job {job['job']} has no reason")
            leads = record["epoch"] == shown["coordinator"]["epoch"]
            if is_settled and leads and self._now_s() - self._written_s[job["job"]] > HEARTBEAT_S:
                committed = [past["round"] for past in job["history"] if past["commit"]]
                if (job["status"], committed) != (record["status"], self._committed(job["job"], job["rounds"])):
                    lies.append(f"job {job['job']} is {job['status']} with rounds {committed}")
        return lies

    def _lies_about_site(self, site: Json, now_s: float, agent: Process) -> list[str]:
        age_s = now_s - site["heard_s"] if site["heard_s"] else 0.0
        limit_s = {"here": SILENT_AFTER, "silent": GONE_AFTER}.get(site["state"], inf) * HEARTBEAT_S
        lies = [f"{site['site']} is {site['state']}"] if age_s > limit_s else []
        if site["state"] in ("here", "silent") and self._now_s() - agent.ended_s > GONE_AFTER * HEARTBEAT_S:
            lies.append(f"{site['site']}, which is dead, is {site['state']}")
        for work in site["work"]:
            number = work["round"] or 0
            # Of an agent that is heard: what it said last may be a heartbeat old, and on its way for as long. Training
            # begins with reading the base, which takes no time but where the store is slow.
            is_settled = self._now_s() - self._troubled_s.get(agent.name, -inf) > SETTLED_S
            if age_s < HEARTBEAT_S and is_settled and work["phase"] in ("training", "localizing"):
                doing = self._trainings.is_training(work["job"], site["site"], number)
                lies += [] if doing else [f"{site['site']} is {work['phase']} in round {number}"]
        return lies

    def _lies_about_places(self, job: Json, heard: set[str], agents: Mapping[str, Process]) -> list[str]:
        """Of a site that is asked, and where the job waits, it must say so."""
        lies = []
        for row in job["standing"]:
            places = self.places.get(agents[row["site"]])
            if places and row["standing"] == "asked" and row["site"] in heard and job["job"] in places.waiting():
                says_so = WAITS in row["reason"]
                self.num_waits += says_so
                lies += [] if says_so else [f"job {job['job']} does not say that it waits at {row['site']}"]
        return lies

    def _lies_about_rounds(self, job: Json) -> list[str]:
        """What it says is committed that the ledger does not."""
        lies = []
        for past in job["history"]:
            facts = self._facts(job["job"], past["round"])
            version = past["commit"] and past["commit"]["version"]
            if version and (facts is None or facts.commit is None or facts.commit.version != version):
                lies.append(f"round {past['round']} of {job['job']} is committed as version {version}")
        return lies

    def _committed(self, job: str, rounds: int) -> list[int]:
        found = (self._facts(job, number) for number in range(1, rounds + 1))
        return [facts.round for facts in found if facts and facts.commit]

    def _facts(self, job: str, number: int) -> RoundFacts | None:
        record = self._store.records.get((ROUNDS, f"{job}/{number}"))
        return RoundFacts.from_json(record.bins["facts"]) if record and record.bins["facts"] else None
