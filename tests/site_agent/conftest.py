"""What the tests of a site share."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from geotrain.view.connect import connect
from geotrain.view.write import write
from tests.conftest import ClusterUnderTest
from tests.site_agent.asked import NOON, Site
from tests.view.views import view_config


@pytest.fixture
def site(cluster: ClusterUnderTest, tmp_path: Path) -> Iterator[Site]:
    readings = {"at": NOON, "pump": "p1", "kind": "k", "pressure": 1.0, "is_new": True, "failures": 0}
    pl.DataFrame([readings] * 3).write_parquet(tmp_path / "readings.parquet")
    pl.DataFrame({"pump": ["p1"], "visited_at": [NOON]}).write_parquet(tmp_path / "visits.parquet")
    with connect(view_config(cluster)) as view:
        write(view, pl.DataFrame({"kind": ["k"], "maker": ["m"]}), "kinds", "kind")
        alarms = {"id": [1, 2], "maker": ["m", "m"], "raised_at": [NOON, NOON], "level": [1.0, 2.0]}
        write(view, pl.DataFrame(alarms), "alarms", "id")
        yield Site(view, tmp_path)
