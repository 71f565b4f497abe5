import json
import subprocess
import sys

from tests.conftest import ROOT


def test_the_benchmark_of_lookups_ends_with_one_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks.lookup", "--calls", "20", "--rows", "50"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["benchmark"] == "lookup"
    assert report["results"]["loopback round trip, alone, p50 us"] > 0
    assert set(report["shows"]) == {
        "newer state? / bare get, p50",
        "newer state? / bare get, p99",
        "predict one row beyond a bare get, p50 us",
        "state in process, us",
    }
