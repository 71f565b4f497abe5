import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.e2e
def test_the_benchmark_of_joins_ends_with_one_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks.join", "--rows", "2000", "--runs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["benchmark"] == "join"
    assert report["results"]["co-partitioned join with its scan, s"] > 0
    assert report["shows"].keys() == {"Ray Dataset.join / co-partitioned", "scan / look-up of 1,000 keys"}
