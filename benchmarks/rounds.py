"""What a round costs when nobody trains: from one commit to the next, beside a bare gRPC exchange of the same tensors.

Agents return the base plus a constant. All is as in production: cut, ledger, lease, held files, spool, reduction in the
order of the sites, states in the view. The view is a simulated cluster on the same cores; the memory for the states is
taken before, as a server takes it when it starts.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil
import torch

from benchmarks import floor
from benchmarks.agents import site_name
from benchmarks.cluster import simulated_cluster
from benchmarks.report import Figure, print_report
from coordinator.config import LaunchConfig, register
from coordinator.launch import launch
from geotrain.program import config_from_json
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.tasks.config import TaskConfig
from sim.cluster.config import MAX_RESERVED_MB
from sim.processes import Supervisor

MB = 1_000_000
# Width and depth of a perceptron of about that size, in MB.
SHAPES = {1: (256, 5), 10: (512, 11), 100: (1024, 25)}
MAX_TIMES_THE_FLOOR = 2.5
MAX_MEMORY_MB = 250
SAMPLE_S = 0.1
READY_DEADLINE_S = 180
CHECK_S = 1.0


def main() -> None:
    """Measure every size with every number of sites, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=_numbers, default=[1, 10, 100], help=f"of {', '.join(map(str, SHAPES))}")
    parser.add_argument("--sites", type=_numbers, default=[3, 24])
    parser.add_argument("--rounds", type=int, default=12)  # the first ones meet fresh memory
    arguments = parser.parse_args()
    register()
    results: dict[str, float] = {}
    for mb, num_sites in itertools.product(arguments.mb, arguments.sites):
        results |= {
            f"{mb} MB, {num_sites} sites: {name}": value for name, value in run(mb, num_sites, arguments.rounds)
        }
    print_report("rounds", results, shown(results, arguments.mb, arguments.sites))


def shown(results: dict[str, float], sizes_mb: list[int], nums_sites: list[int]) -> dict[str, Figure]:
    """The figures with their limits."""
    shows = {}
    for mb, num_sites in itertools.product(sizes_mb, nums_sites):
        of = f"{mb} MB, {num_sites} sites: "
        if num_sites == min(nums_sites):
            times = results[of + "round, s"] / results[of + "floor, s"]
            shows[of + "times the floor"] = Figure(value=times, limit=MAX_TIMES_THE_FLOOR, better="lower")
        limit = 2 * mb + MAX_MEMORY_MB
        shows[of + "peak memory, MB"] = Figure(value=results[of + "peak memory, MB"], limit=limit, better="lower")
    return shows


def run(mb: int, num_sites: int, num_rounds: int) -> Iterator[tuple[str, float]]:
    """The figures of one size and number of sites."""
    before_s = floor_s(mb, num_sites, num_rounds)
    reserved_mb = min(mb * (num_rounds + 2), MAX_RESERVED_MB)  # for the states
    with tempfile.TemporaryDirectory() as folder, simulated_cluster(reserved_mb) as (address, _):
        rounds_s, phases_s, peak_mb, resident_mb = rounds(mb, num_sites, num_rounds, address, Path(folder))
    yield "round, s", statistics.median(rounds_s)
    yield "floor, s", statistics.median(before_s + floor_s(mb, num_sites, num_rounds))
    yield "peak memory, MB", peak_mb
    yield "peak with the libraries' code, MB", resident_mb
    for phase, seconds in phases_s.items():
        yield f"{phase}, s", seconds


def rounds(
    mb: int, num_sites: int, num_rounds: int, view: str, folder: Path
) -> tuple[list[float], dict[str, float], float, float]:
    """Seconds of each round but the first, of each phase in them (the median), and the coordinator's peak memory."""
    pl.DataFrame({"at": [0], "x": [0.0], "y": [0.0]}).with_columns(pl.col("at").cast(pl.Datetime("us"))).write_parquet(
        folder / "rows.parquet"
    )
    listen, sites = f"127.0.0.1:{free_port()}", [site_name(number) for number in range(num_sites)]
    with Supervisor(folder / "logs", grace_s=3) as supervisor:
        coordinator = supervisor.start_python(
            *("coordinator", "coordinator", f"listen={listen}", f"view.hosts=[{view}]", "http_listen="),
            *(f"spool_dir={folder}/spool", f"hydra.run.dir={folder}/run"),
        )
        supervisor.wait_says(coordinator, "ready", deadline_s=READY_DEADLINE_S)
        supervisor.start_python("agents", "benchmarks.agents", listen, view, str(folder), str(num_sites))
        with watched(psutil.Process(coordinator.process.pid)) as memory:
            events = asyncio.run(_follow(job(mb, sites, num_rounds, listen), supervisor))
    ended = events[-1].ended
    assert ended.status == "finished", ended.reason
    committed = [event.time_s for event in events if event.HasField("round")]
    return [b - a for a, b in itertools.pairwise(committed)], _phases(events), memory["anonymous"], memory["resident"]


def job(mb: int, sites: list[str], num_rounds: int, coordinator: str) -> LaunchConfig:
    """A job whose model is about that large."""
    width, depth = SHAPES[mb]
    task = {
        "name": f"rounds-{mb}-{len(sites)}",
        "local": {"rows": {"path": "rows.parquet", "columns": {"at": "timestamp", "x": "float64", "y": "float64"}}},
        "rows": {"dataset": "rows", "time": "at"},
        "features": {"x": {}},
        "label": {"column": "y"},
        "split": {"test_from": "2024-01-01"},
        "model": {"_target_": "geotrain.tasks.model.TabularNet", "width": width, "depth": depth},
        "loss": {"_target_": "torch.nn.MSELoss"},
        "metric": {"_target_": "geotrain.tasks.metrics.roc_auc"},
        "training": {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}},
        "localize": {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}},
    }
    return LaunchConfig(
        sites=sites,
        min_sites=len(sites),
        rounds=num_rounds,
        skew_margin_s=0.0,
        task=config_from_json(TaskConfig, json.dumps(task)),
        coordinator=coordinator,
    )


async def _follow(config: LaunchConfig, supervisor: Supervisor) -> list[pb.JobEvent]:
    """Raises ProcessFailed where a process ends meanwhile: the job would wait for its site."""

    async def events() -> list[pb.JobEvent]:
        return [event async for event in launch(config)]

    job = asyncio.create_task(events())
    while not (await asyncio.wait({job}, timeout=CHECK_S))[0]:
        supervisor.check()
    return job.result()


def _phases(events: list[pb.JobEvent]) -> dict[str, float]:
    """Median seconds of each phase over the rounds but the first and what follows the last."""
    entered = [event for event in events if event.HasField("phase")]
    spent: dict[tuple[str, int], float] = {}
    for event, after in itertools.pairwise(entered):
        key = event.phase.phase, event.phase.round
        spent[key] = spent.get(key, 0.0) + after.time_s - event.time_s
    last = max(event.phase.round for event in entered)
    names = dict.fromkeys(phase for phase, number in spent if 1 < number <= last and phase != "localizing")
    return {name: statistics.median(s for (of, n), s in spent.items() if of == name and n > 1) for name in names}


@contextlib.contextmanager
def watched(process: psutil.Process) -> Iterator[dict[str, float]]:
    """The process's peak memory in MB while inside: what it took itself, and with the code of its libraries."""
    peak = {"anonymous": 0.0, "resident": 0.0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            status = Path(f"/proc/{process.pid}/status").read_text()
            for name, field in (("anonymous", "RssAnon"), ("resident", "VmHWM")):
                (kib,) = re.findall(rf"{field}:\s+(\d+) kB", status)
                peak[name] = max(peak[name], int(kib) * 1024 / MB)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def floor_s(mb: int, num_clients: int, num_rounds: int) -> list[float]:
    """Seconds of each bare exchange but the first."""
    width, depth = SHAPES[mb]
    bare = floor.Floor(torch.zeros(width * width * (depth - 1)), num_clients)
    server, port = floor.new_server(bare, num_clients)
    command = [sys.executable, "-m", "benchmarks.floor", f"127.0.0.1:{port}"]
    clients = [subprocess.Popen(command) for _ in range(num_clients)]
    seconds = []
    for _ in range(num_rounds):
        start_s = time.perf_counter()
        bare.round()
        seconds.append(time.perf_counter() - start_s)
    for client in clients:
        client.terminate()
        client.wait()
    bare.close()
    server.stop(None)
    return seconds[1:]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
