"""How fast is what serving code asks for: whether there is a newer state, the state itself, a prediction.

Beside the official client's bare `get` of a small record, a loopback round trip of as many bytes, and a Redis server
that holds the same, where Debian's is installed. Calls of the view take turns in an order drawn anew each time: as in a
service, none finds the processor's caches as it left them. "Alone" is one after the other, all caches warm. The servers
have one core and the caller another, as if they were on another machine.
"""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch
from hydra import compose, initialize_config_module

from benchmarks.cluster import SET
from benchmarks.report import Figure, print_report
from benchmarks.setting import new_parser, open_view
from geotrain.program import to_config
from geotrain.serving.predictor import Predictor
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import ALIASES, MANIFESTS, TENSORS, head_key
from geotrain.states.publish import publish
from geotrain.states.watch import ModelWatcher
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding, Scale
from geotrain.tasks.model import build_model
from geotrain.tasks.targets import DEFAULT_TARGETS
from geotrain.view.connect import View
from sim.config import register

MODEL = "benchmark"
CALLS_ALONE = 2000
ACCESSES = 200_000
NUM_CATEGORIES = 100
REQUEST_BYTES, REPLY_BYTES = 120, 90  # of a `get` of a small record
READY_S = 10.0
# An echo in a process of its own: what loopback and the scheduler cost, and nothing else.
ECHO = f"""
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while connection.recv(4096):
        connection.sendall(bytes({REPLY_BYTES}))
"""

Calls = dict[str, Callable[[], object]]


def main() -> None:
    """Time every call, and report."""
    parser = new_parser(__doc__, num_rows=1000)
    parser.add_argument("--calls", type=int, default=20_000, help="of each kind")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        view = stack.enter_context(open_view(arguments))
        task = the_task()
        stack.enter_context(published(view, task, arguments.rows))
        watcher = stack.enter_context(ModelWatcher(view.config, MODEL, interval_s=None))
        calls = the_calls(view, watcher, row_of(task))
        others = {"loopback round trip": stack.enter_context(loopback())}
        if redis := shutil.which("redis-server"):
            others["Redis GET"] = stack.enter_context(redis_get(redis))
        part_cores()
        results = in_turns(calls, arguments.calls) | alone(calls | others)
        results["state in process, us"] = access_us(watcher)
    print_report("lookup", results, shown(results))


def shown(results: dict[str, float]) -> dict[str, Figure]:
    """The figures with their limits."""
    get, newer = "bare get, {} us", "is there a newer state?, {} us"
    beyond_us = results["predict one row, p50 us"] - results[get.format("p50")]
    return {
        f"newer state? / bare get, {part}": Figure(
            value=results[newer.format(part)] / results[get.format(part)], limit=1.3, better="lower"
        )
        for part in ("p50", "p99")
    } | {
        "predict one row beyond a bare get, p50 us": Figure(value=beyond_us, limit=150, better="lower"),
        "state in process, us": Figure(value=results["state in process, us"], limit=1, better="lower"),
    }


def the_task() -> TaskConfig:
    """The flights' task, with the planes in the benchmark's own set."""
    register()
    with initialize_config_module("configs", version_base="1.3"):
        task = to_config(compose("sim", ["output_dir=."])).task
    join = [replace(step, source=SET if step.source == "planes" else step.source) for step in task.join]
    return replace(task, name=MODEL, view={SET: task.view["planes"], "legs": task.view["legs"]}, join=join)


def row_of(task: TaskConfig) -> dict[str, Any]:
    """A flight without its plane's columns: they come by key."""
    row: dict[str, Any] = dict.fromkeys(task.numeric(), 1.5) | dict.fromkeys(task.categorical(), "7")
    del row["built"], row["seats"]
    return row | {"tailnum": "N7", "scheduled_at": datetime(2013, 12, 1)}


@contextlib.contextmanager
def published(view: View, task: TaskConfig, num_planes: int) -> Iterator[None]:
    """Planes, a small record and a state of the task's model in the view; they are removed at the end."""
    tailnums = [f"N{number}" for number in range(num_planes)]
    planes = {"tailnum": tailnums, "built": [2000] * num_planes, "seats": list(range(num_planes))}
    view.write(pa.table(planes), SET, "tailnum")
    view.put(SET, "small", {"value": 7})
    encoding = Encoding(
        {name: Scale(0.0, 1.0) for name in task.numeric()},
        {name: [str(number) for number in range(NUM_CATEGORIES)] for name in task.categorical()},
    )
    model = build_model(task, encoding, DEFAULT_TARGETS)
    metadata = {"task": task.to_json(), "encoding": encoding.to_json()}
    state = publish(view, model=MODEL, scope="global", tensors=model.state_dict(), lineage={}, metadata=metadata)
    try:
        yield
    finally:
        manifest = ModelLookup(view, MODEL).at(state.version).manifest
        parts = {part for entry in manifest.tensors.values() for part in entry.parts}
        policy = {"durable_delete": view.consistency == "strong"}
        for part in parts:
            view.client.remove(view.key(TENSORS, part), policy=policy)
        view.client.remove(view.key(MANIFESTS, state.reference), policy=policy)
        view.client.remove(view.key(ALIASES, head_key(MODEL, "global")), policy=policy)


def the_calls(view: View, watcher: ModelWatcher, row: dict[str, Any]) -> Calls:
    """What is timed over the view. All use one connection each, as a thread of a service does."""
    lookup, predictor = ModelLookup(view, MODEL), Predictor(watcher)
    client, small, plane = view.client, view.key(SET, "small"), view.key(SET, row["tailnum"])
    return {
        "bare get": lambda: client.get(small),
        "bare get of a plane": lambda: client.get(plane),
        "is there a newer state?": lookup.latest,
        "predict one row": lambda: predictor.predict(row),
    }


def part_cores() -> None:
    """Give the servers that were started here one core, and this process another."""
    cores = sorted(os.sched_getaffinity(0))
    for child in psutil.Process().children():
        child.cpu_affinity(cores[:1])
    os.sched_setaffinity(0, cores[1:] or cores)
    torch.set_num_threads(1)


def in_turns(calls: Calls, num_calls: int) -> dict[str, float]:
    """Percentiles of each call, each after another one or itself."""
    order, draw = list(calls), random.Random(0)
    took_ns: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(num_calls):
        draw.shuffle(order)
        for name in order:
            took_ns[name].append(_took_ns(calls[name]))
    return _percentiles(took_ns)


def alone(calls: Calls) -> dict[str, float]:
    """Percentiles of each call, over and over."""
    return _percentiles(
        {f"{name}, alone": [_took_ns(call) for _ in range(CALLS_ALONE)] for name, call in calls.items()}
    )


def _percentiles(took_ns: Mapping[str, Sequence[int]]) -> dict[str, float]:
    return {
        f"{name}, p{percent} us": float(np.percentile(took, percent)) / 1000
        for name, took in took_ns.items()
        for percent in (50, 99)
    }


def _took_ns(call: Callable[[], object]) -> int:
    start_ns = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start_ns


def access_us(watcher: ModelWatcher) -> float:
    """What it takes to have the newest state where a watcher has it."""
    start_ns = time.perf_counter_ns()
    for _ in range(ACCESSES):
        _ = watcher.state
    return (time.perf_counter_ns() - start_ns) / ACCESSES / 1000


@contextlib.contextmanager
def loopback() -> Iterator[Callable[[], object]]:
    """A round trip to another process and back."""
    with subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with _connected(int(process.stdout.readline())) as connection:
            request = bytes(REQUEST_BYTES)
            yield partial(_exchange, connection, request)


@contextlib.contextmanager
def redis_get(program: str) -> Iterator[Callable[[], object]]:
    """A GET of a value as small, over a bare socket."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                with _connected(port) as connection:
                    connection.sendall(b"*3\r\n$3\r\nSET\r\n$5\r\nsmall\r\n$1\r\n7\r\n")
                    assert connection.recv(4096) == b"+OK\r\n"
                    request = b"*2\r\n$3\r\nGET\r\n$5\r\nsmall\r\n"
                    yield partial(_exchange, connection, request)
            finally:
                process.terminate()


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    return connection.recv(4096)


def _connected(port: int) -> socket.socket:
    """A connection without delays, to a server that may still be starting."""
    end_s = time.monotonic() + READY_S
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except ConnectionRefusedError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    main()
