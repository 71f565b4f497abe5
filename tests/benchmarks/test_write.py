import json
import subprocess
import sys

from tests.conftest import ROOT


def test_the_benchmark_of_writing_ends_with_one_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks.write", "--rows", "2000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["benchmark"] == "write"
    assert report["results"]["view.write, rows/s"] > 0
    assert set(report["shows"]) == {"rows/s, ours / plain batch_write", "rows/s, ours / put"}
