"""How long a round stands still when its leader is killed: SIGKILL in mid-round, a standby in another site goes on.

Real coordinators and agents' sessions; training only takes time. The view is a simulated cluster on the same cores.
What is measured: from the kill to when the next leader has its sites training in the same round again.
"""

import argparse
import asyncio
import collections
import re
import statistics
import tempfile
import time
from pathlib import Path

import polars as pl

from benchmarks.agents import site_name
from benchmarks.cluster import simulated_cluster
from benchmarks.report import Figure, print_report
from benchmarks.rounds import READY_DEADLINE_S, free_port, job
from coordinator.config import CoordinatorConfig, LaunchConfig, register
from coordinator.launch import launch
from sim.processes import Child, Supervisor

NUM_SITES = 3
NUM_RACKS = 3
MODEL_MB = 1
# So long that a round is in its training when its leader is killed.
TRAIN_S = 2.0
ALLOWANCE_S = 1.0
MAX_ROUNDS = 100


class Coordinators:
    """Two of them, in two sites: one leads, the other stands by; whoever is killed comes back as the standby."""

    def __init__(self, supervisor: Supervisor, view: str, folder: Path) -> None:
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        self._supervisor = supervisor
        self._view = view
        self._folder = folder
        self._num_started = 0
        self._running: dict[str, Child] = {}
        self.start_missing()

    def start_missing(self) -> None:
        """Start whoever does not run: while a round stands still, nothing else shall use the cores."""
        for address in self.addresses:
            if address not in self._running:
                self._running[address] = self._start(address)

    def kill_leader(self) -> float:
        """Returns when, in seconds since the Unix epoch; 0 where there is no standby yet to take its place."""
        address = next(address for address, child in self._running.items() if self._leads(child))
        if not all("standby: epoch" in child.log_text() for of, child in self._running.items() if of != address):
            return 0.0
        child = self._running.pop(address)
        self._supervisor.children.remove(child)  # else its end would be an accident
        child.process.kill()
        killed_s = time.time()
        child.process.wait()
        return killed_s

    def _leads(self, child: Child) -> bool:
        return re.findall(r"(leading|standby|stopping): ", child.log_text())[-1:] == ["leading"]

    def _start(self, address: str) -> Child:
        number, self._num_started = self._num_started, self._num_started + 1
        return self._supervisor.start_python(
            *(f"coordinator-{number}", "coordinator", f"listen={address}", f"view.hosts=[{self._view}]"),
            *(f"view.rack={1 + number % NUM_RACKS}", "http_listen=", f"spool_dir={self._folder}/spool-{number}"),
            *("hydra.output_subdir=null", "hydra/job_logging=stdout", f"hydra.run.dir={self._folder}/run"),
        )


async def still_s(config: LaunchConfig, coordinators: Coordinators, num_kills: int) -> list[float]:
    """Runs the job, and kills the leader in rounds that train, as soon as another stands by. Returns how long each of
    these rounds stood still."""
    found: list[float] = []
    killed_s, number = 0.0, 0
    async for event in launch(config):
        assert not event.HasField("ended"), event.ended.reason
        if not event.HasField("phase") or event.phase.phase != "training":
            continue
        if killed_s and event.time_s > killed_s:
            assert event.phase.round == number, "it goes on in the same round"
            found.append(event.time_s - killed_s)
            killed_s = 0.0
            coordinators.start_missing()
            if len(found) == num_kills:
                break
        elif not killed_s and event.phase.round > max(1, number):
            number = event.phase.round
            await asyncio.sleep(TRAIN_S / 2)
            killed_s = await asyncio.to_thread(coordinators.kill_leader)
    return found


def run(num_kills: int) -> tuple[list[float], int]:
    """How long each round stood still, and how often a site trained a round that it had trained."""
    with tempfile.TemporaryDirectory() as name, simulated_cluster() as (view, _):
        folder = Path(name)
        rows = pl.DataFrame({"at": [0], "x": [0.0], "y": [0.0]}).with_columns(pl.col("at").cast(pl.Datetime("us")))
        rows.write_parquet(folder / "rows.parquet")
        with Supervisor(folder / "logs", grace_s=3) as supervisor:
            coordinators = Coordinators(supervisor, view, folder)
            for child in supervisor.children:
                supervisor.wait_says(child, "ready", deadline_s=READY_DEADLINE_S)
            agents = supervisor.start_python(
                *("agents", "benchmarks.agents", "", view, str(folder), str(NUM_SITES), str(TRAIN_S))
            )
            sites = [site_name(number) for number in range(NUM_SITES)]
            config = job(MODEL_MB, sites, MAX_ROUNDS, ",".join(coordinators.addresses))
            found = asyncio.run(still_s(config, coordinators, num_kills))
            trainings = collections.Counter(re.findall(r"(\S+ trains round \d+)", agents.log_text()))
    return found, sum(count - 1 for count in trainings.values())


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    arguments = parser.parse_args()
    register()
    found, num_repeated = run(arguments.kills)
    lease_s = CoordinatorConfig().lease_s
    results = {
        "lease, s": lease_s,
        "kills": len(found),
        "still, s (median)": statistics.median(found),
        "still, s (longest)": max(found),
        "trainings repeated": num_repeated,
    }
    shows = {
        "still, s (longest)": Figure(value=max(found), limit=lease_s + ALLOWANCE_S, better="lower"),
        "trainings repeated": Figure(value=num_repeated, limit=0, better="lower"),
    }
    print_report("failover", results, shows)


if __name__ == "__main__":
    main()
