"""A site keeps its own rows and tells only what is for all."""

import subprocess
import sys
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from geotrain.serving.features import live_features
from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect
from sim.flights import site_data
from sim.ingest import first_days, ingest_site, live_sets
from tests.conftest import simulated_cluster
from tests.sim.test_config import sim


def test_the_first_days_of_every_month_are_whole_and_no_others_are_there() -> None:
    whole = site_data("jfk")
    part = first_days(whole, 3)
    assert set(part.flights["scheduled_at"].dt.month()) == set(range(1, 13))
    expected = whole.flights.filter(pl.col("scheduled_at").dt.day() <= 3)
    assert_frame_equal(part.flights, expected)
    assert part.legs["arrived_at"].dt.day().max() == 3
    assert part.weather["observed_at"].dt.day().max() == 3


def test_all_days_are_all_rows() -> None:
    whole = site_data("jfk")
    assert_frame_equal(first_days(whole, 31).legs, whole.legs)


def test_without_a_cluster_it_says_so_without_a_stack_trace(tmp_path: Path) -> None:
    view = '{"hosts": ["127.0.0.1:1"], "connect_timeout_s": 1}'
    task = sim().task.to_json()
    arguments = [f"--task={task}", "--site=jfk", f"--folder={tmp_path}", "--days-a-month=1", f"--view={view}"]
    command = [sys.executable, "-m", "sim.ingest", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "flights.parquet").exists()


def test_what_is_looked_up_live_is_written_with_the_legs(tmp_path: Path) -> None:
    task, data = sim().task, first_days(site_data("lga"), 1)
    with simulated_cluster(tmp_path) as hosts, connect(ViewConfig(hosts=hosts, rack=3)) as view:
        ingest_site(view, data, task)
        last = data.aircraft.row(0, named=True)
        [aircraft] = [some for some in live_features(task, ["legs"]) if some.by == (("tailnum", "tailnum"),)]
        record = view.get(aircraft.set_name, aircraft.key(last) or "")
    assert record is not None
    legs = data.legs.filter(tailnum=last["tailnum"])
    assert set(record.bins["events"]) <= set(legs["leg"])
    assert len(live_sets(task)) == 5


def test_a_task_that_takes_nothing_from_the_legs_has_nothing_looked_up_live() -> None:
    assert live_sets(sim().task.without_view()) == set()
