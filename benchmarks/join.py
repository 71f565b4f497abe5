"""How fast rows of one's own meet the view: beside Ray's own join, and beside joins of tables that lie in memory.

Ours reads the view anew each time; what it is compared with has both sides in memory when the clock starts.
"""

import contextlib
import gc
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import ray.data

from benchmarks.cluster import COLUMNS, SET
from benchmarks.report import Figure, print_report
from benchmarks.setting import new_parser, open_view
from geotrain.tasks.config import (
    DatasetConfig,
    FeatureConfig,
    JoinStep,
    LabelConfig,
    RowsConfig,
    SplitConfig,
    TaskConfig,
    TrainingConfig,
    ViewSetConfig,
)
from geotrain.view.connect import View
from site_agent.compute import Compute
from site_agent.config import RayConfig, SiteConfig
from site_agent.datasets import load as load_dataset

NUM_KEYS = 1000
WARM_UP_ROWS = 1000


def main() -> None:
    """Load the view, join it in every way, and report."""
    parser = new_parser(__doc__, num_rows=1_000_000)
    parser.add_argument("--runs", type=int, default=3, help="of each join; the median counts")
    arguments = parser.parse_args()
    # Ray lets its workers wait for everything else on the machine: the joins in memory would not.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with contextlib.ExitStack() as stack:
        view = stack.enter_context(open_view(arguments))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ray_config = RayConfig(object_store_bytes=2 << 30)
        compute = Compute(SiteConfig(name="bench", rack=1, data_dir=str(folder), cache_dir=str(folder), ray=ray_config))
        stack.callback(compute.close)
        view.write(records(arguments.rows), SET, "id")
        results = Bench(view, compute, folder, arguments.runs).run(arguments.rows)
    shows = {
        "Ray Dataset.join / co-partitioned": Figure(
            value=results["Ray Dataset.join of tables in memory, s"] / results["co-partitioned join with its scan, s"],
            limit=8,
        ),
        "scan / look-up of 1,000 keys": Figure(
            value=results["1,000 rows, whole set scanned, s"] / results["1,000 rows, looked up, s"], limit=20
        ),
    }
    print_report("join", results, shows)


def records(num_records: int) -> pl.DataFrame:
    """What the view holds: six bins, 186 bytes a record on the wire."""
    numbers = pl.DataFrame({"id": pl.arange(0, num_records, eager=True)})
    return numbers.with_columns(
        count=pl.col("id") % 97,
        price=pl.col("id") * 0.25,
        ratio=pl.lit(0.5),
        name=pl.format("name-{}", pl.col("id") % 1000),
        kind=pl.lit("a"),
    )


def orders(rows: str, plan: str) -> TaskConfig:
    """A task that adds the view's columns to the local rows of a file."""
    budget = TrainingConfig(optimizer={})
    return TaskConfig(
        name="orders",
        local={"rows": DatasetConfig(path=rows, columns={"id": "int64", "at": "timestamp", "amount": "float64"})},
        view={SET: ViewSetConfig(key="id", columns=COLUMNS)},
        rows=RowsConfig(dataset="rows", time="at"),
        join=[
            JoinStep(kind="equi", source=SET, by={"id": "id"}, columns={n: n for n in COLUMNS if n != "id"}, plan=plan)
        ],
        features={"price": FeatureConfig()},
        label=LabelConfig(column="amount"),
        split=SplitConfig(test_from="2024-01-01"),
        model={},
        loss={},
        metric={},
        training=budget,
        localize=budget,
    )


class Bench:
    """The measurements, on one view and one Ray. num_runs: of each."""

    def __init__(self, view: View, compute: Compute, folder: Path, num_runs: int) -> None:
        self.view = view
        self.compute = compute
        self.folder = folder
        self.num_runs = num_runs
        self.results: dict[str, float] = {}

    def run(self, num_rows: int) -> dict[str, float]:
        """Measure everything. Returns the figures, with their units in their names."""
        self.write_rows("many.parquet", num_rows, num_rows)
        self.write_rows("few.parquet", NUM_KEYS, num_rows)
        for plan in ("broadcast", "lookup", "co_partitioned"):
            self.join("few.parquet", plan)  # starts Ray's workers, and compiles
        self.measure(
            "co-partitioned join with its scan and bucketing, s", lambda: self.join("many.parquet", "co_partitioned"), 1
        )
        self.measure("co-partitioned join with its scan, s", lambda: self.join("many.parquet", "co_partitioned"))
        self.measure("broadcast join with its scan, s", lambda: self.join("many.parquet", "broadcast"))
        self.measure("shuffle join with its scan, s", lambda: self.join("many.parquet", "shuffle"))
        # So short that a few runs would measure what the join before left Ray to tidy up.
        self.measure("1,000 rows, looked up, s", lambda: self.join("few.parquet", "lookup"), 15 * self.num_runs)
        self.measure("1,000 rows, whole set scanned, s", lambda: self.join("few.parquet", "co_partitioned"))
        self.in_memory()
        return self.results

    def in_memory(self) -> None:
        """The joins of others, of tables that lie in memory."""
        rows = pl.read_parquet(self.folder / "many.parquet")
        records = pl.DataFrame(self.view.scan(SET, COLUMNS).read_all())
        self.measure("polars join of tables in memory, s", lambda: len(rows.join(records, on="id")))
        left, right = rows.to_pandas(), records.to_pandas()
        self.measure("pandas merge of tables in memory, s", lambda: len(left.merge(right, on="id")))
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        ray.data.DataContext.get_current().enable_progress_bars = False
        ours, theirs = rows.to_arrow(), records.to_arrow()
        ray_join(ours.slice(0, WARM_UP_ROWS), theirs)
        self.measure("Ray Dataset.join of tables in memory, s", lambda: ray_join(ours, theirs))

    def write_rows(self, name: str, num_rows: int, num_records: int) -> None:
        rng = np.random.default_rng(7)
        keys = rng.permutation(num_records)[:num_rows]
        times = pl.Series([datetime(2024, 1, 1)], dtype=pl.Datetime("us")).new_from_index(0, num_rows)
        pl.DataFrame({"id": keys, "at": times, "amount": rng.random(num_rows)}).write_parquet(self.folder / name)

    def join(self, rows: str, plan: str) -> int:
        """One join, from the local file to joined rows. Returns how many."""
        task = orders(rows, plan)
        local = {"rows": load_dataset(self.folder, "rows", task.local["rows"])}
        return self.compute.join(self.view, task, local, {}, cut=None).num_rows

    def measure(self, name: str, join: Callable[[], int], num_runs: int | None = None) -> None:
        """Note the median of the runs."""
        seconds = []
        for _ in range(num_runs or self.num_runs):
            gc.collect()
            start_s = time.perf_counter()
            num_rows = join()
            seconds.append(time.perf_counter() - start_s)
            if not num_rows:
                raise RuntimeError(f"{name}: no row was joined")
        self.results[name] = statistics.median(seconds)


def ray_join(left: pa.Table, right: pa.Table) -> int:
    """Ray's own join of two tables, cut into as many blocks as it has CPUs. Returns how many rows."""
    num_cpus = int(ray.cluster_resources()["CPU"])

    def dataset(table: pa.Table) -> Any:
        size = -(-table.num_rows // num_cpus)
        return ray.data.from_arrow([table.slice(i * size, size) for i in range(num_cpus)])

    joined = dataset(left).join(dataset(right), join_type="inner", num_partitions=num_cpus, on=("id",))
    return int(joined.materialize().count())


if __name__ == "__main__":
    main()
