import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("module", "figure", "num_shown"), [("scan", "scan, rows/s", 3), ("changes", "changes, client CPU ms", 2)]
)
def test_the_benchmarks_of_scanning_end_with_one_json_object(module: str, figure: str, num_shown: int) -> None:
    command = [sys.executable, "-m", f"benchmarks.{module}", "--rows", "2000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["benchmark"] == module
    assert report["results"][figure] > 0
    assert len(report["shows"]) == num_shown
