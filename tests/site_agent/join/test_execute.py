"""Joins on a real Ray and a real view: whatever the plan, the rows are those that the definition of the steps gives."""

import itertools
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aerospike
import polars as pl
import pytest
import ray.data

from geotrain.errors import DataError, GeotrainError
from geotrain.tasks.config import TaskConfig, ViewSetConfig
from geotrain.view.connect import View, connect
from geotrain.view.cut import Cut
from geotrain.view.write import write
from geotrain.wire.partitions import NUM_PARTITIONS, partition_of
from site_agent.compute import Compute
from site_agent.config import RayConfig, SiteConfig
from site_agent.datasets import LocalDataset, load
from site_agent.join import execute
from site_agent.join.outputs import to_dataset, to_table
from site_agent.join.sources import ReadSet
from site_agent.join.steps import join_rows
from tests.conftest import ClusterUnderTest
from tests.site_agent.join.tasks import EQUI, LATEST, WINDOW, orders
from tests.view.views import view_config

NOON = datetime(2024, 1, 1, 12)
FAR_FUTURE = Cut(until_ns=2**62)
PLANS = ["co_partitioned", "lookup", "broadcast", "shuffle"]


@dataclass
class Site:
    """A site with local data, a view that has what it joins with, and a Ray of its own."""

    view: View
    compute: Compute
    data_dir: Path
    tables: dict[str, pl.DataFrame]

    def local(self, task: TaskConfig) -> dict[str, LocalDataset]:
        return {name: load(self.data_dir, name, dataset) for name, dataset in task.local.items()}

    def join(self, task: TaskConfig, read: dict[str, ReadSet] | None = None, **changes: Any) -> pl.DataFrame:
        """The joined rows, in the order of the local ones."""
        joined = self.compute.join(self.view, task, changes.get("local", self.local(task)), read or {}, FAR_FUTURE)
        frame = pl.DataFrame(to_table(joined.blocks))
        assert joined.num_rows == len(frame)
        return frame

    def expected(self, task: TaskConfig) -> pl.DataFrame:
        return join_rows(task, self.tables["orders"], self.tables)


@pytest.fixture(scope="module")
def site(cluster: ClusterUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data_dir = tmp_path_factory.mktemp("data")
    rng = random.Random(7)
    names = [f"account {n}" for n in range(300)]
    times = [NOON + timedelta(minutes=rng.randrange(600)) for _ in range(500)]
    tables = {
        "orders": pl.DataFrame(
            {
                "at": times,
                "account": [rng.choice([*names, "nobody", None]) for _ in times],
                "amount": [float(n) for n in range(500)],
                "other": [rng.choice(names) for _ in times],
                "count": list(range(500)),
            }
        ),
        "rates": pl.DataFrame({"at": [NOON], "rate": [1.5]}),
        "accounts": pl.DataFrame(
            {
                "account": names,
                "group": [f"group {n % 7}" for n in range(300)],
                "limit": [n if n % 5 else None for n in range(300)],
                "score": [n / 4 for n in range(300)],
                "seen_at": [NOON + timedelta(minutes=rng.randrange(600)) for _ in names],
            }
        ),
        "groups": pl.DataFrame({"group": [f"group {n}" for n in range(7)], "size": list(range(7))}),
    }
    for name in ("orders", "rates"):
        tables[name].write_parquet(data_dir / f"{name}.parquet")
    site = SiteConfig(
        name="ewr",
        rack=1,
        data_dir=str(data_dir),
        cache_dir=str(tmp_path_factory.mktemp("cache")),
        ray=RayConfig(num_cpus=2, object_store_bytes=100 << 20),
    )
    compute = Compute(site)
    try:
        with connect(view_config(cluster)) as view:
            write(view, tables["accounts"], "accounts", "account")
            write(view, tables["groups"], "groups", "group")
            yield Site(view, compute, data_dir, tables)
    finally:
        compute.close()


@pytest.mark.parametrize("step", [EQUI, LATEST, WINDOW], ids=lambda step: step["kind"])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("rows", [pl.col("account").is_null(), pl.lit(False)], ids=["without keys", "none"])
def test_rows_without_a_key_and_no_rows_at_all_can_be_joined(
    site: Site, rows: pl.Expr, plan: str, step: dict[str, Any]
) -> None:
    task = orders({**step, "plan": plan})
    local = site.local(task)
    few = local["orders"].frame.filter(rows)
    local["orders"] = LocalDataset("orders", few, (), f"{len(few)} rows")
    joined, expected = site.join(task, local=local), join_rows(task, few, site.tables)
    assert joined.equals(expected)
    assert joined.schema == expected.schema


@pytest.mark.parametrize("how", ["left", "inner"])
@pytest.mark.parametrize("step", [EQUI, LATEST, WINDOW], ids=lambda step: step["kind"])
@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_gives_the_rows_that_the_step_defines(site: Site, plan: str, step: dict[str, Any], how: str) -> None:
    task = orders({**step, "plan": plan, "how": how})
    assert site.join(task).equals(site.expected(task))


@pytest.mark.parametrize("step", [EQUI, LATEST, WINDOW], ids=lambda step: step["kind"])
def test_many_rows_meet_the_records_of_their_keys_in_tasks(
    site: Site, step: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "TASK_BYTES", 0)
    task = orders({**step, "plan": "lookup"})
    assert site.join(task).equals(site.expected(task))
    assert len(site.compute.join(site.view, task, site.local(task), {}, FAR_FUTURE).blocks) > 1


def test_steps_of_all_plans_follow_each_other(site: Site) -> None:
    task = orders(
        {**EQUI, "plan": "co_partitioned", "how": "inner"},
        {"source": "groups", "kind": "equi", "by": {"group": "group"}, "columns": {"size": "size"}, "plan": "shuffle"},
        {**LATEST, "plan": "broadcast"},
        {"source": "rates", "kind": "latest", "known_at": "at", "columns": {"rate": "rate"}},
    )
    assert site.join(task).equals(site.expected(task))
    assert set(site.join(task)["rate"]) == {1.5}


@pytest.mark.parametrize("plan", ["lookup", "broadcast", "shuffle"])
def test_a_set_can_be_joined_by_several_columns_of_the_rows(site: Site, plan: str) -> None:
    by_other = {"kind": "equi", "by": {"other": "account"}, "columns": {"other_limit": "limit"}, "plan": plan}
    task = orders({**EQUI, "plan": plan}, by_other)
    assert site.join(task).equals(site.expected(task))


def test_joined_rows_become_a_ray_dataset_of_arrow_blocks(site: Site) -> None:
    task = orders({**EQUI, "plan": "co_partitioned"})
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = to_dataset(site.compute.join(site.view, task, site.local(task), {}, FAR_FUTURE).blocks)
    assert isinstance(dataset, ray.data.Dataset)
    rows = pl.concat([pl.DataFrame(ray.get(block)) for block in dataset.to_arrow_refs()])
    assert rows.sort("count").equals(site.expected(task).sort("count"))


def test_few_keys_are_looked_up_and_the_reason_is_said(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    task = orders(EQUI)
    local = site.local(task)
    few = local["orders"].frame.head(3)
    local["orders"] = LocalDataset("orders", few, (), "few")
    with caplog.at_level(logging.INFO):
        joined = site.join(task, local=local)
    assert joined.equals(join_rows(task, few, site.tables))
    assert "join accounts: look-up (" in caplog.text


def test_sets_that_were_read_are_not_read_again_and_rows_left_out_of_the_cut_match_nothing(site: Site) -> None:
    task = orders({**EQUI, "plan": "co_partitioned"}, LATEST)
    read = site.compute.read(site.view, task, FAR_FUTURE)
    assert (read["accounts"].num_rows, read["groups"].num_rows) == (300, 7)
    rows = read["accounts"].rows_in(range(4096))
    assert len(rows.digests) == 300
    half = {"accounts": read["accounts"].without(rows.digests[:150])}
    kept = {digest.tobytes() for digest in half["accounts"].rows_in(range(4096)).digests}
    assert kept == {digest.tobytes() for digest in rows.digests[150:]}
    accounts = site.tables["accounts"]
    digests = [bytes(aerospike.calc_digest("any", "accounts", name)) for name in accounts["account"]]
    tables = {**site.tables, "accounts": accounts.filter([digest in kept for digest in digests])}
    assert site.join(task, {**read, **half}).equals(join_rows(task, site.tables["orders"], tables))


def test_rows_of_listed_partitions_are_told_apart(site: Site) -> None:
    read = site.compute.read(site.view, orders(), FAR_FUTURE)["accounts"]
    first, second = read.rows_in(range(2048)), read.rows_in(range(2048, 4096))
    assert len(first.digests) + len(second.digests) == 300
    assert read.rows_in([]).digests.shape == (0, 20)


@pytest.mark.parametrize("plan", ["co_partitioned", "lookup"])
def test_a_declared_key_that_is_not_the_records_key_is_refused(site: Site, plan: str) -> None:
    step = {"kind": "equi", "by": {"account": "group"}, "columns": {"limit": "limit"}, "plan": plan}
    task = orders(step, key="group")
    with pytest.raises(DataError, match="set accounts: the records are not stored by the column group"):
        site.join(task)


def test_a_single_record_that_is_stored_by_another_key_is_refused(site: Site) -> None:
    ids = [f"account {n}" for n in range(1000)]
    here = partition_of(bytes(aerospike.calc_digest("any", "renamed", ids[-1])))
    names = [*ids[:-1], next(name for name in itertools.count() if is_elsewhere("renamed", str(name), here))]
    write(site.view, pl.DataFrame({"id": ids, "account": [str(name) for name in names]}), "renamed", "id")
    task = orders({**EQUI, "columns": {"name": "account"}, "plan": "co_partitioned"})
    task.view["renamed"] = ViewSetConfig(key="account", columns={"account": "string"})
    task.join[0].source = "renamed"
    with pytest.raises(DataError, match="set renamed: the records are not stored by the column account"):
        site.join(task)


def is_elsewhere(set_name: str, key: str, partition: int) -> bool:
    """Whether a record of the key lies in the other half of the partitions."""
    there = partition_of(bytes(aerospike.calc_digest("any", set_name, key)))
    return (there < NUM_PARTITIONS // 2) != (partition < NUM_PARTITIONS // 2)


def test_rows_can_lie_beside_one_set_only(site: Site) -> None:
    by_other = {"kind": "equi", "by": {"other": "account"}, "columns": {"x": "limit"}, "plan": "co_partitioned"}
    with pytest.raises(GeotrainError, match=r"task.join\[1\].plan: co_partitioned can't be: an earlier step"):
        site.join(orders({**EQUI, "plan": "co_partitioned"}, by_other))


def test_a_set_without_records_is_named(site: Site) -> None:
    task = orders(EQUI)
    task.view["nowhere"] = task.view["accounts"]
    task.join[0].source = "nowhere"
    with pytest.raises(DataError, match=r"set nowhere: namespace .* has no records of it"):
        site.join(task)
    with pytest.raises(DataError, match=r"set nowhere: namespace .* has no records of it"):
        site.compute.read(site.view, task, FAR_FUTURE)


def test_a_cut_before_the_first_write_is_empty_and_every_row_stays(site: Site) -> None:
    task = orders({**EQUI, "plan": "co_partitioned"})
    read = site.compute.read(site.view, task, Cut(until_ns=1))
    assert read["accounts"].num_rows == 0
    assert site.join(task, read)["limit"].to_list() == [None] * 500


@pytest.mark.parametrize("plan", ["co_partitioned", "broadcast", "shuffle"])
def test_a_column_that_no_record_has_is_named(site: Site, plan: str) -> None:
    task = orders({**EQUI, "plan": plan})
    task.view["accounts"].columns["lmit"] = "int64"
    with pytest.raises(DataError, match="set accounts: no record has the column lmit"):
        site.join(task)


def test_a_local_file_that_changed_since_it_was_read_stops_the_join(site: Site) -> None:
    task = orders(EQUI)
    local = site.local(task)
    path = site.data_dir / "orders.parquet"
    before = path.read_bytes()
    try:
        site.tables["orders"].head(3).write_parquet(path)
        with pytest.raises(DataError, match=r"local dataset orders: .*orders.parquet changed after it was read"):
            site.join(task, local=local)
    finally:
        path.write_bytes(before)
