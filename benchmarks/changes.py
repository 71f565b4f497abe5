"""What reading only what changed since an earlier cut saves, beside a full scan."""

import argparse
import contextlib
import gc
import time

from benchmarks.cluster import COLUMNS, SET, TRUNCATE_TIMEOUT_MS, simulated_cluster
from benchmarks.report import Figure, medians, print_report
from benchmarks.write import KEY, table
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from geotrain.view.cut import Cut
from geotrain.view.scan import Scan

NUM_RUNS = 5
CHANGED_SHARE = 100  # one row of so many is written again


def main() -> None:
    """Load a set, change a part of it, read all of it and what changed, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster", metavar="HOST:PORT", help="a running cluster; else a simulated one is started")
    parser.add_argument("--namespace", default="geotrain")
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        address = arguments.cluster or stack.enter_context(simulated_cluster())[0]
        config = ViewConfig(hosts=[address], namespace=arguments.namespace, require_strong_consistency=False)
        view = stack.enter_context(connect(config))
        stack.callback(view.client.truncate, arguments.namespace, SET, 0, {"timeout": TRUNCATE_TIMEOUT_MS})
        rows = table(arguments.rows)
        view.write(rows, SET, KEY)
        time.sleep(0.01)  # the cluster dates writes in milliseconds
        earlier = Cut.before(time.time(), 0)
        time.sleep(0.01)
        view.write(rows.slice(0, arguments.rows // CHANGED_SHARE), SET, KEY)
        results = run(view, earlier, arguments.rows)
    shows = {
        f"{what}, full scan / changes": Figure(
            value=results[f"full scan, {what}"] / results[f"changes, {what}"], limit=10
        )
        for what in ("client CPU ms", "MB")
    }
    print_report("changes", results, shows)


def run(view: View, earlier: Cut, num_rows: int) -> dict[str, float]:
    """Medians over some runs, one way after the other in each, so that a busy machine is unfair to none."""
    ways: dict[str, tuple[Cut | None, int]] = {
        "full scan": (None, num_rows),
        "changes": (earlier, num_rows // CHANGED_SHARE),
    }
    runs: list[dict[str, float]] = []
    for _ in range(1 + NUM_RUNS):
        figures: dict[str, float] = {}
        for name, (since, expected) in ways.items():
            gc.collect()
            cpu_s, start_s = time.process_time(), time.perf_counter()
            scan = Scan(view.config, SET, COLUMNS, changed_since=since)
            for _ in scan.reader():
                pass
            figures |= {
                f"{name}, s": time.perf_counter() - start_s,
                f"{name}, client CPU ms": (time.process_time() - cpu_s) * 1e3,
                f"{name}, MB": scan.num_bytes / 1e6,
            }
            if scan.num_rows != expected:
                raise RuntimeError(f"{name}: {scan.num_rows} rows were read, {expected} were expected")
        runs.append(figures)
    return medians(runs[1:])  # the first one compiles


if __name__ == "__main__":
    main()
