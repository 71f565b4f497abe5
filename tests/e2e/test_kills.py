"""A coordinator that is killed again and again, an agent that is killed with it: the model is the same to the bit."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from coordinator.ledger import ROUNDS
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import ALIASES
from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect
from sim.processes import Supervisor
from tests.conftest import ROOT, simulated_cluster
from tests.e2e.test_tutorial import TARGETS, TUTORIAL, files_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SITES = ("north", "south")
LIFE_DEADLINE_S = 90
POLL_S = 0.02


@dataclass
class World:
    """Two agents and a view that live on; coordinators and launches come and go."""

    folder: Path
    view: str
    port: int
    supervisor: Supervisor

    def restart_agent_of(self, spooled: Path) -> None:
        """Kill the agent that sent this update; one that starts again in its place has it."""
        site = spooled.name.partition("-")[0]
        child = next(child for child in self.supervisor.children if child.name == site)
        child.process.kill()
        child.process.wait()
        self.supervisor.children.remove(child)
        self.agent(site, f"{site}-again")

    def agent(self, site: str, log: str) -> None:
        self.supervisor.start_python(
            *(log, "site_agent", "--config-dir", "my/configs", f"site={site}", f"view.hosts=[{self.view}]"),
            f"coordinator=127.0.0.1:{self.port}",
        )

    def coordinator(self, dies_before: str | None = None) -> subprocess.Popen[bytes]:
        """A coordinator; it dies before the write that is named, or answers."""
        module = ["tests.e2e.mortal_coordinator", dies_before] if dies_before else ["coordinator"]
        log = self.folder / "logs" / "coordinators.log"
        num_ready = log.read_text().count("coordinator ready") if log.exists() else 0
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", *module, f"view.hosts=[{self.view}]", f"listen=127.0.0.1:{self.port}"),
                    *(TARGETS, "spool_dir=spool"),
                ],
                stdout=output,
                stderr=output,
            )
        self.until(lambda: log.read_text().count("coordinator ready") > num_ready, "a coordinator starts")
        return process

    def launch(self, model: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "coordinator.launch", "--config-dir", "my/configs", "task=diabetes"),
                *(f"task.name={model}", "sites=[north,south]", "strategy=nesterov", "rounds=2"),
                *("task.training.epochs=1", "task.localize.epochs=1", f"coordinator=127.0.0.1:{self.port}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, happened: Callable[[], object], what: str) -> None:
        give_up_s = time.monotonic() + LIFE_DEADLINE_S
        while not happened():
            self.supervisor.check()
            assert time.monotonic() < give_up_s, f"{what}\n{(self.folder / 'logs/coordinators.log').read_text()}"
            time.sleep(POLL_S)

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
    for name, text in files_of(TUTORIAL.read_text()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch, simulated_cluster(folder / "cluster") as (view, *_):
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(folder / "my")]))
        patch.chdir(folder)
        with Supervisor(folder / "logs") as supervisor:
            subprocess.run([sys.executable, "my/make_data.py", view], capture_output=True, check=True)
            world = World(folder, view, port, supervisor)
            for site in SITES:
                world.agent(site, site)
            yield world


# What each coordinator has done when it dies: of a set of the view, before which write. A resumed one's first write to
# the rounds takes the open round over.
LIVES = [
    (f"{ROUNDS}:2", "round 1 is open"),
    (f"{ALIASES}:1", "the first model is committed, its alias not moved"),
    (None, "one update is spooled"),
    (f"{ROUNDS}:2", "round 1's tensors and manifest are written, and not committed"),
    (f"{ALIASES}:1", "round 1 is committed, its alias not moved"),
    (f"{ROUNDS}:5", "one site is localized"),
]


def test_kills_at_every_stage_change_nothing_of_the_model_and_no_site_trains_twice(world):
    calm = world.coordinator()
    launched = world.launch("calm")
    said, _ = launched.communicate(timeout=LIFE_DEADLINE_S)
    assert launched.returncode == 0, said
    calm.terminate()
    assert calm.wait(LIFE_DEADLINE_S) == 0

    coordinator = world.coordinator(LIVES[0][0])
    launched = world.launch("storm")
    for (dies_before, done), (next_dies_before, _) in pairwise([*LIVES, (None, "")]):
        if dies_before is None:
            world.until(lambda: list(world.folder.glob("spool/storm-*/*.safetensors")), done)
            world.restart_agent_of(next(world.folder.glob("spool/storm-*/*.safetensors")))
            coordinator.kill()
        assert coordinator.wait(LIFE_DEADLINE_S) == -signal.SIGKILL, done
        coordinator = world.coordinator(next_dies_before)
    said, _ = launched.communicate(timeout=LIFE_DEADLINE_S)
    coordinator.terminate()
    assert coordinator.wait(LIFE_DEADLINE_S) == 0

    assert launched.returncode == 0, said
    assert world.states("storm") == world.states("calm")
    once = {(site, number): 1 for site in SITES for number in "012"}
    assert world.trainings("calm") == once
    assert world.trainings("storm") == once
    told = re.findall(r"(round \d: committed as version \d|storm/site/\w+@\d|job finished)", said)
    assert sorted(told) == sorted(set(told))
    assert len(told) == 5
