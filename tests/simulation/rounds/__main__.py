"""`make simulate SEEDS=2000`: many seeds, on all cores. `SEED=17 make simulate`: one again, its history shrunk."""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.simulation.rounds.search import check, prepare, report

SEEDS_PER_TASK = 10


def main() -> int:
    prepare()
    if seed := os.environ.get("SEED"):
        print(report(int(seed)))
        return int(check(int(seed)) is not None)
    num_seeds, first = int(os.environ.get("SEEDS", "200")), int(os.environ.get("FIRST", "0"))
    seeds = range(first, first + num_seeds)
    began_s = time.monotonic()
    failed = []
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("fork")) as pool:
        for number, violation in zip(seeds, pool.map(check, seeds, chunksize=SEEDS_PER_TASK), strict=True):
            if violation is not None:
                failed.append(number)
                print(f"seed {number}: {violation}\n  again, and shrunk: SEED={number} make simulate", flush=True)
    print(f"{num_seeds} seeds, {len(failed)} broke a promise, {time.monotonic() - began_s:.1f} s")
    if failed:
        print(report(failed[0]))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
