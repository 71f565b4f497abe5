"""What the page on joins shows is a valid task, and its program runs on it."""

import json
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import yaml

from geotrain.tasks.config import TaskConfig
from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect
from geotrain.view.write import write
from tests.conftest import ROOT, simulated_cluster
from tests.tasks.pumps import pumps

PAGE = (ROOT / "docs/how-to/join-with-the-view.md").read_text()
NOON = datetime(2024, 1, 1, 12)


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


# A process of its own, as a reader's: Ray forks, which is safe only where no other test's gRPC threads are at work.
PROGRAM = """
import json, sys
from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect
from site_agent.config import SiteConfig
from tests.docs.test_how_to_join import block, page_task

hosts, folder = json.loads(sys.argv[1]), sys.argv[2]
task = page_task()
site = SiteConfig(name="ewr", rack=1, data_dir=folder, cache_dir=folder + "/cache")
with connect(ViewConfig(hosts=hosts, rack=1)) as view:
    try:
        exec(compile(block("python"), "the page on joins", "exec"))
        [row] = frame.to_dicts()
        print(json.dumps([
            *(row[name] for name in ("account", "segment", "rate", "rate_age_s", "most_paid", "year")),
            tensors["limit"].tolist(),
            dataset.count(),
        ]))
    finally:
        if "compute" in globals():
            compute.close()
"""


def page_task() -> TaskConfig:
    shown = yaml.safe_load(block("yaml"))
    return pumps({**shown, "features": {"rate": {}}, "label": {"column": "amount"}})


def test_the_program_runs_on_the_task_that_the_page_shows(tmp_path: Path) -> None:
    orders = pl.DataFrame({"order_id": [1, 2], "at": [NOON] * 2, "account": ["a", "b"], "amount": [5.0, 6.0]})
    (tmp_path / "orders/year=2024").mkdir(parents=True)
    orders.write_parquet(tmp_path / "orders/year=2024/part.parquet")
    pl.DataFrame({"published_at": [NOON - timedelta(hours=1)], "rate": [1.5]}).write_csv(tmp_path / "rates.csv")
    with simulated_cluster(tmp_path / "cluster") as hosts:
        with connect(ViewConfig(hosts=hosts, rack=1)) as view:
            accounts = pl.DataFrame({"account": ["a", "b"], "segment": ["s", "t"], "limit": [10, 20]})
            write(view, accounts, "accounts", "account")
            payments = {"id": [1], "account": ["b"], "booked_at": [NOON - timedelta(days=1)], "paid": [3.0]}
            write(view, pl.DataFrame(payments), "payments", "id")
        command = [sys.executable, "-c", PROGRAM, json.dumps(hosts), str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["b", "t", 1.5, 3600.0, 3.0, 2024, [20], 1]
