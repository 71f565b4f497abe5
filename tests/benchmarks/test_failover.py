import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_the_benchmark_of_failover_kills_a_leader_and_nothing_is_trained_twice() -> None:
    command = [sys.executable, "-m", "benchmarks.failover", "--kills", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["results"]["kills"] == 1
    assert report["results"]["trainings repeated"] == 0
