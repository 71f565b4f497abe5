"""How fast a table becomes records: beside the official client's `put`, and its `batch_write` in a plain loop.

All start from one Arrow table and end with the same records. The others don't look at what came of a row.
"""

import contextlib
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from aerospike_helpers.batch.records import BatchRecords, Write
from aerospike_helpers.operations import operations

from benchmarks.cluster import SET
from benchmarks.report import Figure, print_report
from benchmarks.setting import new_parser, open_view
from geotrain.view.connect import View
from geotrain.view.write import ROWS_PER_BATCH

KEY = "id"
ROWS_PER_TURN = 20_000
PUT_SHARE = 5  # of so many rows, one is put: the loop is slow


def main() -> None:
    """Write one table in every way, and report."""
    arguments = new_parser(__doc__, num_rows=200_000).parse_args()
    with open_view(arguments) as view:
        results = run(view, table(arguments.rows))
    ours = results["view.write, rows/s"]
    shows = {
        "rows/s, ours / plain batch_write": Figure(value=ours / results["plain batch_write, rows/s"], limit=1),
        "rows/s, ours / put": Figure(value=ours / results["put, rows/s"], limit=1),
    }
    print_report("write", results, shows)


def table(num_rows: int) -> pa.Table:
    """Six columns, 186 bytes a record on the wire."""
    numbers = np.arange(num_rows)
    return pa.table(
        {
            KEY: numbers,
            "count": numbers % 97,
            "price": numbers * 0.25,
            "ratio": np.full(num_rows, 0.5),
            "name": [f"name-{n % 1000}" for n in range(num_rows)],
            "kind": ["a"] * num_rows,
        }
    )


def run(view: View, rows: pa.Table) -> dict[str, float]:
    """Rates of all ways, which take turns on each part of the rows, so that a busy machine is unfair to none."""
    view.write(rows, SET, KEY)  # from here on all replace what is there
    num_rows, seconds, cpu_s = (defaultdict[str, float](float) for _ in range(3))
    for part in (rows.slice(start, ROWS_PER_TURN) for start in range(0, rows.num_rows, ROWS_PER_TURN)):
        few = part.slice(0, part.num_rows // PUT_SHARE)
        ways: dict[str, tuple[Callable[[], object], pa.Table]] = {
            "put": (partial(put, view, few), few),
            "plain batch_write": (partial(batch_write, view, part), part),
            "view.write": (partial(view.write, part, SET, KEY), part),
        }
        for name, (way, of) in ways.items():
            num_rows[name] += of.num_rows
            with timed(name, seconds, cpu_s):
                way()
    return {f"{name}, rows/s": num_rows[name] / seconds[name] for name in num_rows} | {
        f"{name}, client CPU us a row": cpu_s[name] / num_rows[name] * 1e6 for name in num_rows
    }


@contextlib.contextmanager
def timed(name: str, seconds: dict[str, float], cpu_s: dict[str, float]) -> Iterator[None]:
    """Add to `seconds` on the clock, and to this process's CPU time, what passes inside."""
    gc.collect()
    start_cpu_s, start_s = time.process_time(), time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - start_s
    cpu_s[name] += time.process_time() - start_cpu_s


def put(view: View, rows: pa.Table) -> None:
    """One call a record."""
    for row in rows.to_pylist():
        view.client.put((view.config.namespace, SET, row[KEY]), row)


def batch_write(view: View, rows: pa.Table) -> None:
    """One batch after the other."""
    for start in range(0, rows.num_rows, ROWS_PER_BATCH):
        writes = [
            Write(
                (view.config.namespace, SET, row[KEY]), [operations.write(name, value) for name, value in row.items()]
            )
            for row in rows.slice(start, ROWS_PER_BATCH).to_pylist()
        ]
        view.client.batch_write(BatchRecords(writes))


if __name__ == "__main__":
    main()
