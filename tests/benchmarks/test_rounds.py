import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_the_benchmark_of_rounds_ends_with_one_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks.rounds", "--mb", "1", "--sites", "3", "--rounds", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["benchmark"] == "rounds"
    assert report["results"]["1 MB, 3 sites: round, s"] > 0
    assert report["results"]["1 MB, 3 sites: floor, s"] > 0
    assert set(report["shows"]) == {"1 MB, 3 sites: times the floor", "1 MB, 3 sites: peak memory, MB"}
