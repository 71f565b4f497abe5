"""Records of features that live, as the cluster keeps them."""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import polars as pl
import pytest

from geotrain.errors import ConfigError, DataError
from geotrain.serving.features import EVENTS, Change, LiveFeatures, live_features
from geotrain.serving.live import LiveWriter
from geotrain.tasks.config import TaskConfig
from geotrain.view.connect import View, connect
from geotrain.view.write import RowsUnwritten
from sim.flights import SITES, site_data
from site_agent.join.steps import join_rows
from tests.conftest import ClusterUnderTest
from tests.sim.test_config import sim
from tests.site_agent.join.tasks import LATEST, WINDOW, orders
from tests.view.views import ScriptedClient, failure, view_config

DAY = datetime(2013, 7, 10)
DEPARTURES_ASKED = 120


@pytest.fixture
def view(cluster: ClusterUnderTest) -> Iterator[View]:
    with connect(view_config(cluster, ride_through_s=1.0)) as connected:
        yield connected


@pytest.fixture
def task(request: pytest.FixtureRequest) -> TaskConfig:
    """A task whose records are the test's own: no other has so many seconds in its window."""
    return orders({**WINDOW, "within_s": 3600.0 + abs(hash(request.node.nodeid)) % 10**6})


def scores(*rows: tuple[str, str, float | None, int], account: str = "a") -> pl.DataFrame:
    """Rows of accounts: the row's id, the score, and when it was seen, in seconds."""
    return pl.DataFrame(
        [
            {"id": i, "account": account, "group": g, "score": score, "seen_at": seen * 1_000_000}
            for i, g, score, seen in rows
        ],
        schema_overrides={"score": pl.Float64},
    ).with_columns(pl.col("seen_at").cast(pl.Datetime("us")))


def held(view: View, features: LiveFeatures, account: str = "a") -> dict[str, Any]:
    record = view.get(features.set_name, features.key({"account": account}) or "")
    return record.bins[EVENTS] if record else {}


def features_of(task: TaskConfig) -> LiveFeatures:
    [features] = live_features(task, ["accounts"])
    return features


def test_at_a_days_scheduled_departures_the_view_gives_what_the_join_gives(view: View) -> None:
    task = sim().task
    sites = [site_data(site) for site in SITES]
    legs = pl.concat([data.legs for data in sites]).sort("arrived_at")
    rows = pl.concat([data.flights for data in sites]).filter(pl.col("scheduled_at").dt.date() == DAY.date())
    rows = rows.sort("scheduled_at").gather_every(len(rows) // DEPARTURES_ASKED)
    weather = pl.concat([data.weather for data in sites])
    planes = pl.DataFrame(schema={"tailnum": pl.String, "built": pl.Int64, "seats": pl.Int64})
    joined = join_rows(task, rows, {"legs": legs, "weather": weather, "planes": planes})
    writer, features = LiveWriter(view, task, "legs"), live_features(task, ["legs"])
    times, told = legs["arrived_at"].to_list(), 0
    for row in joined.with_columns(time_us=pl.col("scheduled_at").to_physical()).iter_rows(named=True):
        known = bisect_right(times, row["scheduled_at"], told)
        writer.write(legs[told:known], "leg")  # at first, the half of a year
        told = known
        for some in features:
            record = view.get(some.set_name, some.key(row) or "")
            found = some.values(record and record.bins, row["time_us"])
            assert found == {name: row[name] for name in found}
    assert len(joined) >= DEPARTURES_ASKED


def test_the_cluster_removes_what_no_longer_counts(view: View, task: TaskConfig) -> None:
    features = features_of(task)
    writer = LiveWriter(view, task, "accounts", late_s=100)
    within_s = task.join[0].within_s
    assert within_s is not None
    start = int(within_s) + 100
    writer.write(scores(("old", "x", 1.0, 0), ("just", "x", 2.0, 1), ("null", "x", None, 2)), "id")
    writer.write(scores(("new", "x", 4.0, start + 1)), "id")
    assert held(view, features) == {
        "just": [1_000_000, 2.0],
        "null": [2_000_000, None],
        "new": [(start + 1) * 1_000_000, 4.0],
    }


def test_the_newest_of_what_may_count_for_ever_stays_as_the_pure_rule_says(view: View, task: TaskConfig) -> None:
    account, task = f"a{task.join[0].within_s}", orders(LATEST)
    features = features_of(task)
    assert features.num_spare
    writer = LiveWriter(view, task, "accounts", late_s=10)
    expected: dict[str, Any] = {}
    for number, seen in enumerate([5, 3, 9, 1, 2, 40, 40, 40, 40, 40, 41, 30, 90]):
        rows = scores((str(number), "x", None if number % 3 == 0 else float(number % 5), seen), account=account)
        writer.write(rows, "id")
        told = rows.with_columns(pl.col("seen_at").to_physical()).row(0, named=True)
        [change] = features.changes([(str(number), told)], 10_000_000).values()
        expected = Change(change.events, change.keep_from_us, change.num_spare).apply(expected)
        assert held(view, features, account) == expected
    assert len(expected) == 5


def test_a_row_that_comes_again_counts_once_and_as_it_was_last(view: View, task: TaskConfig) -> None:
    writer, features = LiveWriter(view, task, "accounts"), features_of(task)
    for score in (1.0, 1.0, 3.0):
        writer.write(scores(("one", "x", score, 60)), "id")
    assert held(view, features) == {"one": [60_000_000, 3.0]}
    assert features.values({EVENTS: held(view, features)}, 60_000_000) == {"most": 3.0}


def test_an_empty_table_and_rows_without_a_key_write_nothing(view: View, task: TaskConfig) -> None:
    writer = LiveWriter(view, task, "accounts")
    assert writer.write(scores(("one", "x", 1.0, 60))[:0], "id").written == 0
    nobody = scores(("one", "x", 1.0, 60)).with_columns(account=pl.lit(None, pl.String))
    assert writer.write(nobody, "id").written == 0


def test_a_write_in_doubt_is_repeated_and_counts_once(view: View, task: TaskConfig) -> None:
    def applied_but_unanswered(real: Any, batch: Any) -> None:
        real(batch)
        raise failure(9, in_doubt=True)

    client = ScriptedClient(view.client, "batch_write", [applied_but_unanswered, failure(-10)])
    view.client = client
    result = LiveWriter(view, task, "accounts").write(scores(("one", "x", 1.0, 60)), "id")
    assert (result.written, result.retried, client.num_calls) == (1, 2, 3)
    assert held(view, features_of(task)) == {"one": [60_000_000, 1.0]}


def test_a_cluster_that_does_not_recover_is_said_with_what_was_not_written(view: View, task: TaskConfig) -> None:
    view.client = ScriptedClient(view.client, "batch_write", [failure(11)] * 1000)
    with pytest.raises(RowsUnwritten, match="its partition is unavailable") as refused:
        LiveWriter(view, task, "accounts").write(scores(("one", "x", 1.0, 60)), "id")
    assert refused.value.result.unwritten[0].keys == ['["a"]']


def test_a_record_that_is_refused_is_not_tried_again(view: View, task: TaskConfig) -> None:
    view.client = ScriptedClient(view.client, "batch_write", [failure(22)])
    with pytest.raises(RowsUnwritten, match="the cluster forbids it now"):
        LiveWriter(view, task, "accounts").write(scores(("one", "x", 1.0, 60)), "id")


def test_a_table_that_the_task_does_not_declare_so_is_refused_before_anything_is_written(
    view: View, task: TaskConfig
) -> None:
    writer = LiveWriter(view, task, "accounts")
    rows = scores(("one", "x", 1.0, 60))
    with pytest.raises(DataError, match="column seen_at is not in the table"):
        writer.write(rows.drop("seen_at"), "id")
    with pytest.raises(DataError, match="column score is declared float64, and holds int64"):
        writer.write(rows.with_columns(score=pl.lit(1)), "id")
    with pytest.raises(DataError, match="holds 1 duplicates"):
        writer.write(pl.concat([rows, rows]), "id")
    with pytest.raises(ConfigError, match="takes from a set nothing"):
        LiveWriter(view, task, "nothing")
    assert held(view, features_of(task)) == {}
