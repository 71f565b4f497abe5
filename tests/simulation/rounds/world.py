"""One run: coordinators, agents and a desk over a network and a store, with the faults of a seed.

Everything is the programs' own but for the sockets, the store, the clock, and the site's Ray.
"""

import asyncio
import signal
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from coordinator import daemon as coordinator_daemon
from coordinator.config import CoordinatorConfig
from geotrain.errors import GeotrainError
from site_agent import daemon as agent_daemon
from site_agent.config import SiteAgentConfig, SiteConfig
from site_agent.jobs import SiteJobs
from site_agent.session import Session
from tests.simulation.rounds.desk import ROUNDS, Desk
from tests.simulation.rounds.faults import AGENTS, COORDINATORS, DESK, LAST_S, Fault
from tests.simulation.rounds.invariants import LEASES, Invariants, Violation
from tests.simulation.rounds.network import Network
from tests.simulation.rounds.places import Places
from tests.simulation.rounds.processes import WORLD, Process, VirtualLoop
from tests.simulation.rounds.records import Records
from tests.simulation.rounds.seen import Seen
from tests.simulation.rounds.site import SITES, SimulatedCompute
from tests.simulation.rounds.store import VIEW, Store, Trouble, Write
from tests.simulation.rounds.trainings import Trainings

END_S = 150.0
"""When every job must have ended, the faults being over long before."""
AFTER_S = 3.0
"""How long a run goes on when the jobs have ended and all is whole: what was under way may still arrive."""
RESTART_S = 1.0
LOOK_S = 1.0
ADDRESSES = {"coordinator-ewr": "10.0.0.1:50551", "coordinator-jfk": "10.0.0.2:50551"}
DYING_S = 0.1
MAX_STORY = 4000
SHOWN = ("status", "epoch", "owner", "newest", "aliases")  # bins, in a story


@dataclass(frozen=True)
class Outcome:
    """What has become of a job.

    weights: whose updates are in each round. absent: by round and site, why one is not. num_replaced_cuts: that could
    not be read again. trainings: by site and round.
    """

    status: str
    reason: str
    weights: Mapping[int, Sequence[str]]
    absent: Mapping[tuple[int, str], str]
    num_replaced_cuts: int
    model: Mapping[str, bytes]
    trainings: Mapping[tuple[str, int], int]


class World:
    """A run in a VirtualLoop. places: of the sites that have few. story: what happened, in lines for people.
    violation: of a promise, the first one."""

    def __init__(
        self,
        seed: int,
        faults: Sequence[Fault],
        models: Sequence[str],
        places: Mapping[str, int],
        loop: VirtualLoop,
        folder: Path,
    ) -> None:
        self.story: deque[str] = deque(maxlen=MAX_STORY)
        self.violation: str | None = None
        self.network = Network(Random(f"network of {seed}"), self.fail, lambda name: self._count("messages", name))
        self.store = Store(Random(f"store of {seed}"), self._on_write)
        self.trainings = Trainings(loop.time, self.tell, self.fail)
        self.invariants = Invariants(self.store, self.trainings.rows)
        self.seen = Seen(self.store, self.trainings, loop.time, self.fail)
        self._loop = loop
        self._folder = folder
        self._random = Random(f"sites of {seed}")
        self._records = Records(Random(f"records of {seed}"), loop.time)
        self._faults = faults
        self._places = places
        self._desk = Desk(models, list(ADDRESSES.values()), self.tell, self.fail)
        self._processes: dict[str, Process] = {}
        self._skews: dict[str, float] = {}
        self._counts: Counter[tuple[str, str]] = Counter()  # of writes and messages, by process
        self._triggers = {(fault.after, fault.who, fault.count): fault for fault in faults if fault.after}
        self._mended_s = max((fault.at_s for fault in faults), default=0.0)
        self._over = loop.create_future()

    def tell(self, line: str) -> None:
        self.story.append(f"{self._loop.time():8.3f} {line}")

    def fail(self, what: str) -> None:
        """A promise is broken: the run ends here."""
        if self.violation is None:
            self.violation = what
            self.tell(f"VIOLATION {what}")
            self._end()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def run(self) -> dict[str, Outcome]:
        """Returns what has become of the jobs, by model; nothing where a promise was broken."""
        for name in (*COORDINATORS[:1], *AGENTS):
            self._start(name)
        self._loop.call_later(0.2, self._start, COORDINATORS[1])
        self._processes[DESK] = Process(DESK)
        self._have_desk(self._desk.run(), then=self._end)
        for fault in self._faults:
            if not fault.after:
                self._loop.call_at(fault.at_s, self._begin, fault)
        self._loop.call_soon(self._look, context=WORLD)
        await asyncio.wait([self._over], timeout=END_S)
        if not self._over.done():
            self.fail(f"the jobs have not ended {END_S - LAST_S:g} s after the last fault")
        elif self.violation is None:
            await asyncio.sleep(max(AFTER_S, self._mended_s + AFTER_S - self._loop.time()))
        if self.violation is not None:
            return {}
        return {model: self._outcome(job) for model, job in self._desk.jobs.items()}

    def _outcome(self, job: str) -> Outcome:
        model = self.invariants.model(job)
        record = self.store.records["gt_jobs", job].bins
        rounds = [self.invariants.facts(job, number) for number in range(ROUNDS + 1)]
        commits = {facts.round: facts.commit for facts in rounds if facts and facts.commit}
        last = max((commit.version for commit in commits.values()), default=0)
        tensors = self.invariants.state(f"{model}/global", last) if last else {}
        return Outcome(
            status=record["status"],
            reason=record["reason"],
            weights={number: tuple(commit.weights) for number, commit in commits.items() if number},
            absent={(number, site): why for number, commit in commits.items() for site, why in commit.absent.items()},
            num_replaced_cuts=sum(facts.cut_number - 1 for facts in rounds if facts),
            model={name: tensor.numpy().tobytes() for name, tensor in tensors.items()},
            trainings={(site, number): n for (of, site, number), n in self.trainings.counts.items() if of == job},
        )

    # Programs.

    def _start(self, name: str) -> None:
        program = self._coordinator if name in COORDINATORS else self._agent
        process = self._processes[name] = Process(name, skew_s=self._skews.get(name, 0.0))
        self.tell(f"{name} starts")
        process.start(self._supervised(process, program))

    async def _supervised(self, process: Process, program: Callable[[Process], Awaitable[None]]) -> None:
        """Whoever stops by itself is started again, as by systemd."""
        try:
            await program(process)
            reason = "it returned"
        except GeotrainError as error:
            reason = error.what
        except Exception as error:  # noqa: BLE001 - it is what we look for
            self.fail(f"{process.name} was ended by {error!r}")
            return
        self.tell(f"{process.name} exits: {reason}")
        self._loop.call_soon(self._exited, process, context=WORLD)

    def _exited(self, process: Process) -> None:
        self._die(process)
        self._loop.call_later(RESTART_S, self._start_again, process.name)

    async def _coordinator(self, process: Process) -> None:
        config = CoordinatorConfig(
            listen=ADDRESSES[process.name],
            http_listen="",
            view=VIEW,
            spool_dir=str(self._folder / process.name),
            sites=list(SITES),
        )
        await coordinator_daemon._serve(config, self.store.view(VIEW), identity=None)

    async def _agent(self, process: Process) -> None:
        name = process.name.removeprefix("agent-")
        spool_dir = str(self._folder / process.name)
        site = SiteConfig(name=name, rack=1 + SITES.index(name), data_dir=str(self._folder), spool_dir=spool_dir)
        site.max_jobs = self._places.get(name, site.max_jobs)
        config = SiteAgentConfig(site=site, view=VIEW)  # the leader is found by its lease
        view = self.store.view(VIEW)
        compute: Any = SimulatedCompute(name, Random(f"{name} {self._random.random()}"), self._records, self.trainings)
        jobs = SiteJobs(config, view, compute)
        self.seen.places[process] = Places(jobs, site.max_jobs)
        await agent_daemon._serve(Session(config, jobs, view), compute)

    def _have_desk(self, do: Coroutine[Any, Any, None], then: Callable[[], None] = lambda: None) -> None:
        async def done() -> None:
            try:
                await do
                then()
            except Exception as error:  # noqa: BLE001 - it is what we look for
                self.fail(f"the desk was ended by {error!r}")

        self._processes[DESK].start(done())

    def _look(self) -> None:
        agents = {name.removeprefix("agent-"): self._processes[name] for name in AGENTS}
        self.seen.check(agents)
        self._loop.call_later(LOOK_S, self._look)

    # Faults.

    def _set_clock(self, name: str, skew_s: float) -> None:
        """Of the computer: whatever runs on it from now on sees another time."""
        self._skews[name] = self._processes[name].skew_s = skew_s

    def _begin(self, fault: Fault) -> None:
        self.tell(f"FAULT {fault}")
        process = self._processes[fault.who]
        trouble = self.store.troubles.setdefault(fault.who, Trouble())
        end: Callable[[], None] = lambda: None  # noqa: E731
        match fault.kind:
            case "crash":
                self._die(process)
                end = lambda: self._start_again(fault.who)  # noqa: E731
            case "last words":  # what it writes next takes effect when it is long dead
                trouble.unanswered = ["late"]
                self._loop.call_later(DYING_S, self._die, process)
                end = lambda: self._start_again(fault.who)  # noqa: E731
            case "stop" if process.is_alive:
                process.signal(signal.SIGTERM)
            case "pause" if process.is_alive and not process.is_paused:
                process.pause()
                self.network.silence(process)
                end = process.resume
            case "unanswered":
                trouble.unanswered = fault.detail.split(",")
            case "skew":
                self._set_clock(fault.who, float(fault.detail))
                end = lambda: self._set_clock(fault.who, 0.0)  # noqa: E731
            case "slow store":
                trouble.slow_s = float(fault.detail)
                end = lambda: setattr(trouble, "slow_s", 0.0)  # noqa: E731
            case "no store":
                trouble.is_away = True
                end = lambda: setattr(trouble, "is_away", False)  # noqa: E731
            case "break":
                self.network.break_streams(fault.who)
            case "cut":
                self.network.cut(fault.who, fault.other)
                end = lambda: self.network.heal(fault.who, fault.other)  # noqa: E731
            case "slow link":
                self.network.slow_down(fault.who, fault.other, float(fault.detail))
                end = lambda: self.network.slow_down(fault.who, fault.other, 0.0)  # noqa: E731
            case "pause the jobs":
                for job in self._desk.jobs.values():
                    self._have_desk(self._desk.pause(job, fault.length_s))
            case "cancel the jobs":
                for job in self._desk.jobs.values():
                    self._have_desk(self._desk.cancel(job))
        length_s = max(fault.length_s, 2 * DYING_S)
        self._mended_s = max(self._mended_s, self._loop.time() + length_s)
        self._loop.call_later(length_s, end)

    def _die(self, process: Process) -> None:
        process.kill()
        self.network.lose(process)

    def _start_again(self, name: str) -> None:
        if not self._processes[name].is_alive:
            self._start(name)

    def _on_write(self, write: Write) -> None:
        name = write.process.name
        if _shown(write.after) != _shown(write.before or {}) or write.set_name != LEASES:  # not every renewal
            self.tell(f"{name} writes {write.set_name}/{str(write.key)[:40]} {_shown(write.after)}")
        self.seen.written(write)
        try:
            self.invariants.written(write)
        except Violation as violation:
            self.fail(str(violation))
        self._count("writes", name)

    def _count(self, what: str, name: str) -> None:
        self._counts[what, name] += 1
        if fault := self._triggers.get((what, name, self._counts[what, name])):
            WORLD.copy().run(self._begin, fault)


def _shown(bins: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={bins[name]}" for name in SHOWN if name in bins)
