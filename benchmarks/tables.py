"""What it costs to look rows of a table up by key, beside the official client's `batch_read` of the same records.

Both start from the same keys and end with the vectors as one NumPy array; ours reads where the alias points, too.
"""

import gc
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.cluster import TRUNCATE_TIMEOUT_MS
from benchmarks.report import Figure, medians, print_report
from benchmarks.setting import new_parser, open_view
from geotrain.states.manifest import MANIFESTS, Manifest
from geotrain.states.rows import CHECK_BYTES, ROW, TABLE, Layout, set_of
from geotrain.states.table_lookup import TableLookup
from geotrain.states.tables import PublishedTable, publish_table
from geotrain.view.connect import View

NAME = "benchmark"
WIDTH = 64
NUM_KEYS = 100
NUM_RUNS = 7
LOOKUPS_PER_RUN = 100

Keys = list[int]


def main() -> None:
    """Publish a table, look rows up in both ways, and report."""
    arguments = new_parser(__doc__, num_rows=1_000_000).parse_args()
    with open_view(arguments) as view:
        vectors = np.random.default_rng(0).random((arguments.rows, WIDTH), np.float32)
        values = pa.FixedSizeListArray.from_arrays(vectors.ravel(), WIDTH)
        try:
            start_s = time.perf_counter()
            rows = pa.table({"id": np.arange(arguments.rows), "vector": values})
            published = publish_table(view, NAME, rows, key="id")
            seconds = time.perf_counter() - start_s
            results = run(view, vectors, published)
        finally:
            view.client.truncate(arguments.namespace, set_of(NAME), 0, {"timeout": TRUNCATE_TIMEOUT_MS})
    results["publish, rows/s"] = arguments.rows / seconds
    ratio = results["ours, p50 us"] / results["batch_read, p50 us"]
    shows = {f"{NUM_KEYS} keys, p50, ours / batch_read": Figure(value=ratio, limit=1.2, better="lower")}
    print_report("tables", results, shows)


def run(view: View, vectors: NDArray[np.float32], published: PublishedTable) -> dict[str, float]:
    """Medians over some runs; the two ways take turns, key by key, so that a busy machine is unfair to none."""
    lookup, layout = TableLookup(view, NAME), layout_of(view, published)
    ways: dict[str, Callable[[Keys], NDArray[np.float32]]] = {
        "batch_read": partial(batch_read, view, layout),
        "ours": lambda keys: lookup.get(keys).values["vector"],
    }
    random = np.random.default_rng(1)
    runs: list[dict[str, float]] = []
    for _ in range(1 + NUM_RUNS):
        gc.collect()
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number in range(LOOKUPS_PER_RUN):
            keys = random.integers(0, len(vectors), NUM_KEYS)
            for name in sorted(ways, reverse=bool(number % 2)):
                asked = keys.tolist()
                start_cpu_s, start_s = time.process_time(), time.perf_counter()
                found = ways[name](asked)
                taken[name].append((time.perf_counter() - start_s, time.process_time() - start_cpu_s))
                if not np.array_equal(found, vectors[keys]):
                    raise RuntimeError(f"{name}: the vectors are not those that were published")
        runs.append({name: value for way, figures in taken.items() for name, value in named(way, figures).items()})
    return medians(runs[1:])  # the first one connects


def named(way: str, taken: list[tuple[float, float]]) -> dict[str, float]:
    seconds, cpu_s = np.array(taken).T * 1e6
    return {
        f"{way}, p50 us": float(np.percentile(seconds, 50)),
        f"{way}, p99 us": float(np.percentile(seconds, 99)),
        f"{way}, client CPU us": float(np.mean(cpu_s)),
    }


def batch_read(view: View, layout: Layout, keys: Keys) -> NDArray[np.float32]:
    """What one would write without this library, for records that lie so."""
    namespace, set_name, content = view.config.namespace, set_of(NAME), layout.content
    found = view.client.batch_read([(namespace, set_name, f"{content}/{key}") for key in keys], [ROW])
    data = b"".join([row.record[2][ROW] for row in found.batch_records])
    return np.frombuffer(data, np.uint8).reshape(len(keys), -1)[:, :-CHECK_BYTES].view(np.float32)


def layout_of(view: View, published: PublishedTable) -> Layout:
    """Where the rows of the published version lie."""
    record = view.get(MANIFESTS, published.reference)
    assert record is not None
    return Layout.from_json(Manifest.from_bytes(record.bins["manifest"]).metadata[TABLE])


if __name__ == "__main__":
    main()
