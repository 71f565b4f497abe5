"""Real processes that are killed: coordinators, agents, a site's whole rack. What was committed is neither lost nor
counted twice, and the job goes on.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coordinator.ledger import JOBS, ROUNDS
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import ALIASES
from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect
from sim.control import Control
from sim.processes import Child, ProcessFailed, Supervisor
from tests.conftest import ROOT, free_port, simulated_cluster
from tests.e2e.test_tutorial import TARGETS, write_tutorial
from tests.sim.cluster.wire_client import WireClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SITES = ("north", "south")
LIFE_DEADLINE_S = 120
POLL_S = 0.02

ONE_SPOOLED = "one update is spooled"


@dataclass
class World:
    """Two agents and a view that live on; coordinators and launches come and go."""

    folder: Path
    view: str
    port: int
    supervisor: Supervisor
    agents: dict[str, Child] = field(default_factory=dict)

    def restart_agent(self, site: str) -> None:
        """Kill the site's agent; the one that starts in its place has its folder, and a log of its own."""
        killed = self.agents[site]
        self.supervisor.children.remove(killed)
        killed.process.kill()
        killed.process.wait()
        self.start_agent(site, f"{killed.name}-again")

    def start_agent(self, site: str, log: str) -> None:
        self.agents[site] = self.supervisor.start_python(
            *(log, "site_agent", "--config-dir", "my/configs", f"site={site}", f"view.hosts=[{self.view}]"),
            *(f"coordinator=127.0.0.1:{self.port}", "site.ray.num_cpus=1"),
        )

    def coordinator(self, *overrides: str, dies_at: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """A coordinator that is ready. dies_at: when it kills itself, as `mortal_coordinator` has it; empty: never."""
        module = ["tests.e2e.mortal_coordinator", *dies_at] if dies_at else ["coordinator"]
        log = self.folder / "logs" / "coordinators.log"
        num_ready = log.read_text().count("coordinator ready") if log.exists() else 0
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", *module, f"view.hosts=[{self.view}]", f"listen=127.0.0.1:{self.port}"),
                    *(TARGETS, "spool_dir=spool", "http_listen=", *overrides),
                ],
                stdout=output,
                stderr=output,
            )
        self.until(lambda: log.read_text().count("coordinator ready") > num_ready, "a coordinator starts")
        return process

    def launch(self, model: str, *overrides: str) -> Child:
        return self.supervisor.start_python(
            *(model, "coordinator.launch", "--config-dir", "my/configs", "task=diabetes", f"task.name={model}"),
            *("sites=[north,south]", "strategy=nesterov", "task.training.epochs=1", "task.localize.epochs=1"),
            *(f"coordinator=127.0.0.1:{self.port}", *overrides),
            ends=True,
        )

    def end(self, launched: Child, coordinator: subprocess.Popen[bytes]) -> str:
        """Stop the coordinator once the job has finished; returns what its launch has said."""
        self.until(lambda: launched.process.poll() == 0, "the job finishes")
        coordinator.terminate()
        self.until(lambda: coordinator.poll() is not None, "the coordinator stops")
        assert coordinator.returncode == 0, self.logs()
        return launched.log_text()

    def until(self, happened: Callable[[], object], what: str) -> None:
        """Return when it has happened. Fails with all logs when it does not, or a process ends that should live."""
        give_up_s = time.monotonic() + LIFE_DEADLINE_S
        while not happened():
            try:
                self.supervisor.check()
            except ProcessFailed as error:
                pytest.fail(f"waiting for: {what}: {error}\n{self.logs()}")
            if time.monotonic() > give_up_s:
                pytest.fail(f"not within {LIFE_DEADLINE_S} s: {what}\n{self.logs()}")
            time.sleep(POLL_S)

    def logs(self) -> str:
        """What every process has said so far."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')}" for log in logs)

    def states(self, model: str) -> dict[str, dict[str, bytes]]:
        with connect(ViewConfig(hosts=[self.view])) as view:
            found = {scope: ModelLookup(view, model, scope) for scope in ("global", *(f"site/{s}" for s in SITES))}
            return {
                f"{scope}@{lookup.latest().manifest.version}": {
                    name: tensor.numpy().tobytes() for name, tensor in lookup.latest().tensors.items()
                }
                for scope, lookup in found.items()
            }

    def trainings(self, model: str) -> Counter[tuple[str, str]]:
        """How often each site trained each round, by what its agents say; `0` is for localizing."""
        counts: Counter[tuple[str, str]] = Counter()
        for site in SITES:
            for log in (self.folder / "logs").glob(f"{site}*.log"):
                text = log.read_text()
                counts.update((site, number) for number in re.findall(rf"job {model}-\S+: trains round (\d)", text))
                counts.update((site, "0") for _ in re.findall(rf"job {model}-\S+: localizes", text))
        return counts


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("kills")
    write_tutorial(folder)
    with pytest.MonkeyPatch.context() as patch, simulated_cluster(folder / "cluster") as (view, *_):
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(folder / "my")]))
        patch.chdir(folder)
        with Supervisor(folder / "logs") as supervisor:
            subprocess.run([sys.executable, "my/make_data.py", view], capture_output=True, check=True)
            world = World(folder, view, free_port(), supervisor)
            for site in SITES:
                world.start_agent(site, site)
            yield world


# What each coordinator has done when it dies, and at what it does: `mortal_coordinator`'s first arguments.
LIVES = [
    ("round 1 is open", (ROUNDS, r'/1\b.*"cut": {', "1")),
    ("the first model is committed, its alias not moved", (ALIASES, "'production': 1", "1")),
    (ONE_SPOOLED, ("spool", "", "1")),
    ("round 1's tensors and manifest are written, and not committed", (ROUNDS, r"/1\b.*'committed'", "1")),
    ("round 1 is committed, its alias not moved", (ALIASES, "'production': 2", "1")),
    ("one site is localized", (ROUNDS, "/site/.*'committed'", "2")),
    ("the job has finished, its spool is not cleared", (f"{JOBS}+", "'finished'", "1")),
]


def test_kills_at_every_stage_change_nothing_of_the_model_and_no_site_trains_twice(world):
    calm = world.coordinator()
    world.end(world.launch("calm", "rounds=2"), calm)

    launched = None
    for done, dies_at in LIVES:
        coordinator = world.coordinator(dies_at=dies_at)
        launched = launched or world.launch("storm", "rounds=2")
        world.until(lambda coordinator=coordinator: coordinator.poll() is not None, f"a coordinator dies: {done}")
        assert coordinator.returncode == -signal.SIGKILL, world.logs()
        if done == ONE_SPOOLED:
            spooled = next(world.folder.glob("spool/storm-*/*.safetensors"))
            world.restart_agent(spooled.name.partition("-")[0])
    said = world.end(launched, world.coordinator())

    assert not list(world.folder.glob("spool/*"))
    assert world.states("storm") == world.states("calm")
    once = {(site, number): 1 for site in SITES for number in "012"}
    assert world.trainings("calm") == once
    assert world.trainings("storm") == once
    told = re.findall(r"(round \d: committed as version \d|storm/site/\w+@\d|job finished)", said)
    assert sorted(told) == sorted(set(told))
    assert len(told) == 5


def test_a_site_that_loses_its_whole_rack_costs_that_sites_updates_and_no_more_and_takes_part_again(world):
    world.coordinator("heartbeat_s=1")
    launched = world.launch("rack", "rounds=1000", "min_sites=1")

    def committed() -> list[set[str]]:
        """Whose updates are in each round so far."""
        told = re.findall(r"round (\d+): committed as version \d+, loss (.*)", launched.log_text())
        assert [int(number) for number, _ in told] == list(range(1, len(told) + 1))
        return [set(re.findall(r"[a-z]+", losses)) for _, losses in told]

    both = set(SITES)
    world.until(lambda: both in committed(), "a round of both sites")
    with (
        WireClient(world.view) as client,
        Control(client.info("sim-control")) as control,
        connect(ViewConfig(hosts=[world.view], rack=1)) as view,
    ):
        lookup = ModelLookup(view, "rack")
        # As when the power goes: no connection is closed, and the node's memory is gone.
        world.agents["south"].process.send_signal(signal.SIGSTOP)
        control.order("kill:node=jfk;memory=lost")
        num_before, version = len(committed()), lookup.latest().manifest.version
        world.until(lambda: {"north"} in committed()[num_before:], "a round without the site that is lost")
        world.until(lambda: lookup.latest().manifest.version > version + 1, "models are published without it")
        control.order("start:node=jfk")
    world.restart_agent("south")
    num_before = len(committed())
    world.until(lambda: both in committed()[num_before:], "a round with the site that is back")
    assert all("north" in sites for sites in committed())
