"""What it costs to publish a model state, beside the official client's `put` of the same bytes.

The bytes are new each time, so that none is there already. `put` takes turns with records of several sizes, from one
thread and from as many as a publisher has; the fastest counts. A second state then differs from the first in one run
of 1 % of its bytes, as after the training of one layer.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.cluster import SET
from benchmarks.report import Figure, medians, print_report
from benchmarks.setting import new_parser, open_view
from geotrain.states.cache import StateCache
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import ALIASES, MANIFESTS, TENSORS, head_key
from geotrain.states.publish import RECORD_OVERHEAD_BYTES, publish
from geotrain.view.connect import View
from geotrain.view.keyed import NUM_THREADS

MODEL = "benchmark"
TENSOR_VALUES = 1_000_000  # of 4 bytes
RECORD_BYTES = (128 * 1024, 512 * 1024, 1024 * 1024 - RECORD_OVERHEAD_BYTES)

Tensors = dict[str, torch.Tensor]


def main() -> None:
    """Publish, put, publish what differs a little, and report."""
    parser = new_parser(__doc__, num_rows=25)
    parser.add_argument("--runs", type=int, default=11)
    arguments = parser.parse_args()
    with open_view(arguments) as view:
        results = medians([run(view, arguments.rows) for _ in range(arguments.runs)])
    best = min(seconds for name, seconds in results.items() if name.startswith("put of"))
    few = results["second state, bytes of parts and manifest written"]
    fetched = results["second state, bytes of parts and manifest fetched"]
    shows = {
        "s to publish / s of the fastest put": Figure(value=results["publish, s"] / best, limit=1.5, better="lower"),
        "bytes written, first / second state": Figure(value=results["first state, bytes"] / few, limit=20),
        "bytes fetched, first / second state": Figure(value=results["first state, bytes"] / fetched, limit=20),
    }
    print_report("publish", results, shows)


def run(view: View, num_tensors: int) -> dict[str, float]:
    """The figures of one turn of each way. What was written is removed again."""
    tensors = {f"layer{number}": torch.randn(TENSOR_VALUES) for number in range(num_tensors)}
    results: dict[str, float] = {"first state, bytes": sum(tensor.nbytes for tensor in tensors.values())}
    for record_bytes in RECORD_BYTES:
        for num_threads in (1, NUM_THREADS):
            name = f"put of {record_bytes // 1024} KiB from {num_threads} threads"
            results[f"{name}, s"] = put(view, tensors, record_bytes, num_threads)
    with removed(view), tempfile.TemporaryDirectory() as folder:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        state(view, tensors)
        results["publish, s"] = time.perf_counter() - began_s
        results["publish, client CPU s"] = time.process_time() - began_cpu_s
        lookup = ModelLookup(view, MODEL, cache=StateCache(folder))
        began_s = time.perf_counter()
        lookup.latest()
        results["look up, s"] = time.perf_counter() - began_s
        began_s = time.perf_counter()
        second = state(view, tensors | changed(tensors))
        results["second state, publish, s"] = time.perf_counter() - began_s
        results["second state, bytes of parts and manifest written"] = second
        began_s = time.perf_counter()
        results["second state, bytes of parts and manifest fetched"] = lookup.latest().bytes_read
        results["second state, look up, s"] = time.perf_counter() - began_s
    return results


def state(view: View, tensors: Tensors) -> int:
    """Publishes. Returns how many bytes were written."""
    return publish(view, model=MODEL, scope="global", tensors=tensors, lineage={}, metadata={}).bytes_written


def changed(tensors: Tensors) -> Tensors:
    """One of them anew, in so many of its values that 1 % of all are others, from somewhere in its middle."""
    name, tensor = next(iter(tensors.items()))
    num_values = len(tensors) * TENSOR_VALUES // 100
    at = (TENSOR_VALUES - num_values) // 3
    new = tensor.clone()
    new[at : at + num_values] = torch.randn(num_values)
    return {name: new}


def put(view: View, tensors: Tensors, record_bytes: int, num_threads: int) -> float:
    """Writes the same bytes in records of this size. Returns the seconds; what was written is removed again."""
    parts = [
        bytes(data[at : at + record_bytes])
        for data in (tensor.numpy().tobytes() for tensor in tensors.values())
        for at in range(0, len(data), record_bytes)
    ]
    keys = [(view.config.namespace, SET, number) for number in range(len(parts))]
    with ThreadPoolExecutor(num_threads) as pool:
        began_s = time.perf_counter()
        list(pool.map(lambda key, part: view.client.put(key, {"data": part}), keys, parts))
        seconds = time.perf_counter() - began_s
    remove(view, SET, [number for *_, number in keys])
    return seconds


@contextlib.contextmanager
def removed(view: View) -> Iterator[None]:
    """The states that are published inside are removed at the end: only those, the cluster may have others."""
    try:
        yield
    finally:
        lookup = ModelLookup(view, MODEL)
        versions = [lookup.at(version).manifest for version in (1, 2)]
        remove(view, TENSORS, sorted({part for manifest in versions for part in manifest.parts}))
        remove(view, MANIFESTS, [manifest.reference for manifest in versions])
        remove(view, ALIASES, [head_key(MODEL, "global")])


def remove(view: View, set_name: str, keys: list[int] | list[str]) -> None:
    """Removes records for good."""
    policy = {"durable_delete": view.consistency == "strong"}
    for key in keys:
        view.client.remove(view.key(set_name, key), policy=policy)


if __name__ == "__main__":
    main()
