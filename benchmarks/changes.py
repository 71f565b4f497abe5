"""What reading only what changed since an earlier cut saves, beside a full scan."""

import gc
import time

from benchmarks.cluster import COLUMNS, SET
from benchmarks.report import Figure, medians, print_report
from benchmarks.setting import new_parser, open_view
from benchmarks.write import KEY, table
from geotrain.view.connect import View
from geotrain.view.cut import Cut
from geotrain.view.scan import Scan

NUM_RUNS = 5
CHANGED_SHARE = 100  # one row of so many is written again


def main() -> None:
    """Load a set, change a part of it, read all of it and what changed, and report."""
    arguments = new_parser(__doc__, num_rows=1_000_000).parse_args()
    with open_view(arguments) as view:
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
