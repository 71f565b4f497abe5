"""Uses the published states as a service would, and measures it: look-ups, scores of whole test sets, of one flight."""

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import cycle
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from geotrain.serving.features import live_sources
from geotrain.serving.predictor import Predictor
from geotrain.states.lookup import ModelLookup, State
from geotrain.states.watch import ModelWatcher
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding
from geotrain.tasks.model import build_model
from geotrain.tasks.samples import encode, encode_samples, split
from geotrain.tasks.targets import DEFAULT_TARGETS
from geotrain.view.connect import View
from site_agent.datasets import load
from site_agent.join.steps import join_rows
from site_agent.training import evaluate

NUM_LOOKUPS = 2000
INFO_DEADLINE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Latency:
    """How long something took, in microseconds: the median, and what 99 of 100 stayed below."""

    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class OneFlight:
    """A single flight scored by the newest model, with what the view has by key.

    leg, aircraft_delay: what the aircraft last flew, and how late it arrived. late: probability. us: to ask for a newer
    state, to look up and to score.
    """

    tailnum: str
    leg: str
    aircraft_delay: int
    late: float
    us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a reader of the view measured.

    state_lookup: "is there a newer one?", asked by who holds the newest. key_lookup: of one aircraft after another.
    auc_by_lookup: by site, the metric of its published state.
    rows: by site and name, the tables whose rows must not have left the site.
    """

    state_lookup: Latency
    key_lookup: Latency
    auc_by_lookup: dict[str, float]
    one_flight: OneFlight
    rows: dict[str, dict[str, pl.DataFrame]]


def measure(view: View, task: TaskConfig, data_dirs: Mapping[str, Path]) -> Measured:
    """Measure everything, for the sites that have a folder here."""
    shared = scan_view(view, task)
    auc, rows = {}, {}
    for site, folder in data_dirs.items():
        lookup = ModelLookup(view, task.name, f"site/{site}")
        local = load_local(folder, task)
        auc[site] = metric_of(lookup.latest(), task, local, shared)
        rows[site] = {**local, "features": local_features(lookup.latest(), task, local)}
    return Measured(
        state_lookup=latency(lookup.latest),
        key_lookup=key_latency(view, "aircraft", shared["legs"]["tailnum"].drop_nulls().unique()),
        auc_by_lookup=auc,
        one_flight=score_one_flight(view, f"site/{site}", task, local),
        rows=rows,
    )


def latency(call: Callable[[], object]) -> Latency:
    """Time a call, again and again."""
    call()
    took_ns = []
    for _ in range(NUM_LOOKUPS):
        start_ns = time.perf_counter_ns()
        call()
        took_ns.append(time.perf_counter_ns() - start_ns)
    p50, p99 = np.percentile(took_ns, [50, 99]) / 1000
    return Latency(float(p50), float(p99))


def key_latency(view: View, set_name: str, keys: Iterable[str]) -> Latency:
    """Time reading records by key, another one each time."""
    turn = cycle(keys)
    return latency(lambda: view.get(set_name, next(turn)))


def scan_view(view: View, task: TaskConfig) -> dict[str, pl.DataFrame]:
    """The task's sets of the view, as they are now."""
    return {name: pl.DataFrame(view.scan(name, s.columns).read_all()) for name, s in task.view.items()}


def load_local(folder: Path, task: TaskConfig) -> dict[str, pl.DataFrame]:
    """The task's local datasets of a site."""
    return {name: load(folder, name, dataset).frame for name, dataset in task.local.items()}


def metric_of(
    state: State, task: TaskConfig, local: Mapping[str, pl.DataFrame], shared: Mapping[str, pl.DataFrame]
) -> float:
    """The metric of a published state on a site's test rows, by none but what a reader of the state has."""
    _, rows = split(local[task.rows.dataset], task)
    encoding = Encoding.from_json(state.manifest.metadata["encoding"])
    samples = encode_samples(join_rows(task, rows, {**local, **shared}), task, encoding)
    return evaluate(task, to_model(state, task, encoding), samples, allowed=DEFAULT_TARGETS)


def to_model(state: State, task: TaskConfig, encoding: Encoding) -> nn.Module:
    """The model of a published state."""
    model = build_model(task, encoding, DEFAULT_TARGETS)
    model.load_state_dict(dict(state.tensors))
    return model.eval()


def score_one_flight(view: View, scope: str, task: TaskConfig, local: Mapping[str, pl.DataFrame]) -> OneFlight:
    """Score the site's last flight of the data, flown again on the next day, as a service does.

    What the legs say of that moment is looked up by key. There is no weather of that day: missing values, which the
    model knows.
    """
    rows = local[task.rows.dataset]
    flown = rows.drop_nulls([task.label.column, "tailnum"]).sort(task.rows.time).tail(1).to_dicts()[0]
    with ModelWatcher(view.config, task.name, scope, interval_s=None) as watcher:
        predictor = Predictor(watcher, live=live_sources(task))
        row = dict.fromkeys(predictor.columns) | flown | {task.rows.time: flown[task.rows.time] + timedelta(days=1)}
        start_ns = time.perf_counter_ns()
        watcher.check()
        output = predictor.predict(row)
        took_us = (time.perf_counter_ns() - start_ns) / 1000
    aircraft = view.get("aircraft", flown["tailnum"])
    assert aircraft is not None  # it flew: its last leg is in the view
    late = torch.sigmoid(torch.tensor(output)).item()
    return OneFlight(flown["tailnum"], aircraft.bins["leg"], aircraft.bins["arr_delay"], late, took_us)


def local_features(state: State, task: TaskConfig, local: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """A site's own rows as its trainer sees them: standardised numbers, float32. For the wiretap."""
    alone = task.without_view()
    rows = join_rows(alone, local[alone.rows.dataset], local)
    numbers = encode(rows, alone, Encoding.from_json(state.manifest.metadata["encoding"]))["numeric"]
    return pl.from_numpy(numbers.numpy(), alone.numeric())


def undeclared_records(view: View, declared: Collection[str]) -> dict[str, int]:
    """Records in sets of the view that nobody declared: set -> how many (the most that one node holds)."""
    answers = view.client.info_all(f"sets/{view.config.namespace}", {"timeout": INFO_DEADLINE_MS})
    counts: dict[str, int] = {}
    for _, answer in answers.values():
        for name, objects in re.findall(r"set=([^:;]+):objects=(\d+)", answer):
            if name not in declared and int(objects):
                counts[name] = max(counts.get(name, 0), int(objects))
    return counts
