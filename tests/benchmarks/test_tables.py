"""The benchmark of tables runs, and its last line is its answer as JSON."""

import json
import subprocess
import sys


def test_the_benchmark_of_tables_ends_with_one_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks.tables", "--rows", "500"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["benchmark"] == "tables"
    assert report["shows"].keys() == {"100 keys, p50, ours / batch_read"}
    assert report["results"]["publish, rows/s"] > 0
