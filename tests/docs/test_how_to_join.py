"""What the page on joins shows is a valid task, and its program runs on it."""

import re
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import yaml

from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect
from geotrain.view.write import write
from site_agent.config import SiteConfig
from tests.conftest import ROOT, simulated_cluster
from tests.tasks.pumps import pumps

PAGE = (ROOT / "docs/how-to/join-with-the-view.md").read_text()
NOON = datetime(2024, 1, 1, 12)


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_program_runs_on_the_task_that_the_page_shows(tmp_path: Path) -> None:
    shown = yaml.safe_load(block("yaml"))
    task = pumps({**shown, "features": {"rate": {}}, "label": {"column": "amount"}})
    orders = pl.DataFrame({"order_id": [1, 2], "at": [NOON] * 2, "account": ["a", "b"], "amount": [5.0, 6.0]})
    (tmp_path / "orders/year=2024").mkdir(parents=True)
    orders.write_parquet(tmp_path / "orders/year=2024/part.parquet")
    pl.DataFrame({"published_at": [NOON - timedelta(hours=1)], "rate": [1.5]}).write_csv(tmp_path / "rates.csv")
    site = SiteConfig(name="ewr", rack=1, data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    with simulated_cluster(tmp_path / "cluster") as hosts, connect(ViewConfig(hosts=hosts, rack=1)) as view:
        accounts = pl.DataFrame({"account": ["a", "b"], "segment": ["s", "t"], "limit": [10, 20]})
        write(view, accounts, "accounts", "account")
        payments = {"id": [1], "account": ["b"], "booked_at": [NOON - timedelta(days=1)], "paid": [3.0]}
        write(view, pl.DataFrame(payments), "payments", "id")
        names = {"task": task, "site": site, "view": view}
        try:
            exec(compile(block("python"), "the page on joins", "exec"), names)
            [row] = names["frame"].to_dicts()
            assert (row["account"], row["segment"], row["rate"], row["rate_age_s"]) == ("b", "t", 1.5, 3600.0)
            assert (row["most_paid"], row["year"], names["tensors"]["limit"].tolist()) == (3.0, 2024, [20])
            assert names["dataset"].count() == 1
        finally:
            if "compute" in names:
                names["compute"].close()
