"""The demo, from an empty folder to the report, top to bottom. Leaves no process behind, whatever happens."""

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from rich.console import Console

from coordinator.launch import launch
from coordinator.ledger import JOBS, ROUNDS
from geotrain.errors import JobFailed
from geotrain.lease import LEASES
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.states.manifest import ALIASES, MANIFESTS, TENSORS
from sim.config import SimConfig
from sim.flights import KEYS
from sim.history import History
from sim.ingest import live_sets
from sim.live import Screen
from sim.measure import Measured, measure, undeclared_records
from sim.page import write_page
from sim.processes import Supervisor
from sim.regions import Regions
from sim.relay import read_counts
from sim.report import Facts, show, write_json
from sim.wiretap import rows_moved

CHECK_EVERY_S = 0.25
WEIGH_EVERY_S = 5.0
DECLARED_SETS = {*KEYS, JOBS, LEASES, ROUNDS, ALIASES, MANIFESTS, TENSORS}


def run(config: SimConfig) -> float:
    """Run the demo and write report.json and report.html. Returns the localized models' mean metric.

    Raises GeotrainError when a part of it fails.
    """
    folder = _fresh(Path(config.output_dir))
    clock = Clock()
    console = Console()
    with Screen(console, clock.start_s) as screen, Supervisor(folder / "logs") as processes:
        regions = Regions(config, processes, folder)
        with clock.step("reach the cluster", screen):
            screen.say(f"{'simulated ' * config.cluster.simulated}cluster at {regions.start_cluster()}")
        with regions.connect() as view:
            declared = DECLARED_SETS | live_sets(config.task)
            before = undeclared_records(view, declared)
            with clock.step("start the programs", screen):
                coordinator = regions.start_coordinator()
                regions.start_agents(coordinator)
            with clock.step("write the data", screen):
                regions.ingest(view)
                time.sleep(config.skew_margin_s)  # what was just written is in a cut only then
            with clock.step("run the job", screen):
                history, peak_bytes = asyncio.run(_job(config, coordinator, processes, screen))
            with clock.step("look states up", screen):
                measured = measure(view, config.task, {site: regions.data_dir(site) for site in history.localized})
                after = undeclared_records(view, declared)
        with clock.step("stop the programs", screen):
            processes.stop()
        with clock.step("look for rows in what left the sites", screen):
            rows_found = _rows_found(measured, folder / "wire")
    facts = Facts(
        wall_s=clock.elapsed_s(),
        simulated=config.cluster.simulated,
        min_auc=config.min_auc,
        min_gain=config.min_gain,
        history=history,
        measured=measured,
        wire=read_counts(folder / "wire"),
        rows_found=rows_found,
        undeclared=dict(Counter(after) - Counter(before)),
        peak_memory_bytes=peak_bytes,
        setup_s=clock.steps_s,
    )
    write_json(facts, folder / "report.json")
    write_page(facts, folder / "report.html")
    show(facts, console, folder)
    return sum(each.metrics["localized"] for each in history.localized.values()) / len(history.localized)


class Clock:
    """How long the demo and each of its steps took, in seconds."""

    def __init__(self) -> None:
        self.start_s = time.monotonic()
        self.steps_s: dict[str, float] = {}

    def elapsed_s(self) -> float:
        return time.monotonic() - self.start_s

    @contextmanager
    def step(self, name: str, screen: Screen) -> Iterator[None]:
        screen.say(name)
        before_s = time.monotonic()
        yield
        self.steps_s[name] = time.monotonic() - before_s


def _fresh(folder: Path) -> Path:
    """The folder, without what an earlier demo left there."""
    for name in ("logs", "wire", "sites", "spool"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("report.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
    return folder


async def _job(config: SimConfig, coordinator: str, processes: Supervisor, screen: Screen) -> tuple[History, int]:
    """Launch the job and show it to its end, watching the programs meanwhile. Returns also the most memory seen."""
    history = History()
    screen.follow(history)
    events = launch(config.launch(coordinator))
    peak_bytes, weigh_at_s = 0, 0.0
    async for event in with_pauses(events, CHECK_EVERY_S):
        processes.check()
        if event is not None and (line := history.apply(event)):
            screen.say(line, in_table=event.HasField("site"))
        if time.monotonic() >= weigh_at_s:
            peak_bytes = max(peak_bytes, _memory_bytes())
            weigh_at_s = time.monotonic() + WEIGH_EVERY_S
    if not history.finished:
        raise JobFailed(history.reason, f"See the logs in {processes.logs}.")
    return history, peak_bytes


async def with_pauses(events: AsyncIterator[pb.JobEvent], every_s: float) -> AsyncIterator[pb.JobEvent | None]:
    """The events, and None whenever none came for a while."""
    upcoming = asyncio.ensure_future(anext(events))
    try:
        while True:
            done, _ = await asyncio.wait([upcoming], timeout=every_s)
            if not done:
                yield None
                continue
            try:
                yield upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = asyncio.ensure_future(anext(events))
    finally:
        upcoming.cancel()


def _memory_bytes() -> int:
    """What all processes of the demo use, shared pages shared out among their users (PSS)."""
    total = 0
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            total += process.memory_full_info().pss
    return total


def _rows_found(measured: Measured, wire: Path) -> dict[str, dict[str, int]]:
    """By site and table, how many of its rows are in the bytes that left the site; sites side by side."""

    def look(site: str) -> dict[str, int]:
        captured = [path.read_bytes() for path in sorted(wire.glob(f"{site}.*.up"))]
        return rows_moved(captured, measured.rows[site])

    with ThreadPoolExecutor() as pool:
        return dict(zip(measured.rows, pool.map(look, measured.rows), strict=True))
