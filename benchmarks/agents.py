"""Agents that return the base plus a constant: real sessions, files and uploads, and no Ray behind them.

`python -m benchmarks.agents COORDINATOR VIEW FOLDER NUM_SITES [TRAIN_S]`: one process a site, until it is told to end.
COORDINATOR: empty, and the leader is found by its lease. TRAIN_S: how long a training takes.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from geotrain.rpc.memory import reuse_freed_memory
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Moments, Statistics
from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect
from site_agent.config import SiteAgentConfig, SiteConfig
from site_agent.jobs import SiteJobs
from site_agent.join.execute import Joined
from site_agent.session import Session
from site_agent.trainer import Trained

NUM_ROWS = 10
NUM_RACKS = 3
STEP = 1e-3


class NoCompute:
    """Stands in for a site's Ray cluster: nothing is read or joined, and training adds a constant."""

    def __init__(self, site: str, train_s: float) -> None:
        self._site = site
        self._train_s = train_s

    def read(self, *_: Any) -> dict[str, Any]:
        return {}

    def join(self, *_: Any) -> Joined:
        return Joined(blocks=[], num_rows=NUM_ROWS)

    def statistics(self, task: TaskConfig, _: Joined) -> Statistics:
        return Statistics({name: Moments(NUM_ROWS, 0.0, 1.0) for name in task.numeric()}, {})

    def is_training(self, _: str) -> bool:
        return True

    def start_training(self, *_: Any) -> None:
        pass

    def train(self, _: str, base: Mapping[str, torch.Tensor], number: int) -> Trained:
        print(f"{self._site} trains round {number}", flush=True)
        time.sleep(self._train_s)
        return Trained({name: tensor + STEP for name, tensor in base.items()}, NUM_ROWS, {"loss": 1.0})

    def localize(self, _: str, base: Mapping[str, torch.Tensor], __: int) -> Trained:
        metrics = dict.fromkeys(("loss", "global", "localized", "local_only"), 0.5)
        return Trained(dict(base), NUM_ROWS, metrics)

    def release(self, _: str) -> None:
        pass


def site_name(number: int) -> str:
    return f"site-{number:02d}"


def serve(number: int, coordinator: str, hosts: str, folder: Path, train_s: float) -> None:
    site = site_name(number)
    config = SiteAgentConfig(
        site=SiteConfig(
            name=site, rack=1 + number % NUM_RACKS, data_dir=str(folder), spool_dir=str(folder / "agents" / site)
        ),
        coordinator=coordinator,
        view=ViewConfig(hosts=hosts.split(","), rack=1 + number % NUM_RACKS),
    )
    reuse_freed_memory(32 << 20, 256 << 20)
    torch.set_num_threads(1)
    with connect(config.view) as view:
        jobs = SiteJobs(config, view, NoCompute(site, train_s))  # type: ignore[arg-type]
        asyncio.run(Session(config, jobs, view).run())


def main() -> None:
    coordinator, hosts, folder, num_sites, train_s = (*sys.argv[1:], "0")[:5]
    children = {}
    for number in range(int(num_sites)):  # forked: what they import is in memory once
        child = os.fork()
        if child == 0:
            serve(number, coordinator, hosts, Path(folder), float(train_s))
            os._exit(1)  # only a failure ends it
        children[child] = site_name(number)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        child, status = os.wait()
        raise SystemExit(f"the agent of {children.pop(child)} ended with {os.waitstatus_to_exitcode(status)}")
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
