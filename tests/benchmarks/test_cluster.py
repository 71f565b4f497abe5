import json
import subprocess
import sys

from benchmarks.report import Figure
from tests.conftest import ROOT


def test_the_benchmark_of_the_cluster_ends_with_one_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks.cluster", "--records", "3000", "--commands", "200"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["benchmark"] == "cluster"
    assert {"cores", "python"} <= report["machine"].keys()
    assert report["results"]["scan, records/s"] > 0
    assert len(report["shows"]) == 4
    assert all(figure.keys() == {"value", "limit", "better", "holds"} for figure in report["shows"].values())


def test_a_figure_holds_where_it_is_on_the_better_side_of_its_limit() -> None:
    assert Figure(value=2, limit=1).holds
    assert not Figure(value=1, limit=2).holds
    assert Figure(value=1, limit=2, better="lower").holds
    assert not Figure(value=2, limit=1, better="lower").holds
