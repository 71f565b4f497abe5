import json
import subprocess
import sys

from tests.conftest import ROOT


def test_the_benchmark_of_cuts_ends_with_one_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks.cut", "--rows", "3000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["benchmark"] == "cut"
    assert report["results"]["rows dropped"] == 100
    assert set(report["shows"]) == {"client CPU, with / without fingerprints"}
