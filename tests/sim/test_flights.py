from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from sim.flights import KEYS, SITES, SiteData, shared_tables, site_data, write_local
from site_agent.datasets import load
from site_agent.join.steps import join_rows
from tests.tasks.test_config import flights as flights_task


@pytest.fixture(scope="module")
def sites() -> dict[str, SiteData]:
    return {site: site_data(site) for site in SITES}


def test_the_sites_own_all_flights_and_weather_of_their_airport_and_no_other(sites: dict[str, SiteData]) -> None:
    assert sum(len(data.flights) for data in sites.values()) == 336_776
    assert sum(len(data.weather) for data in sites.values()) == 26_115
    for site, data in sites.items():
        for frame in (data.flights, data.weather, data.legs, data.aircraft):
            assert frame["origin"].unique().to_list() == [site.upper()]


def test_every_table_of_the_view_has_one_row_a_key(sites: dict[str, SiteData]) -> None:
    tables = {
        **shared_tables(),
        "legs": pl.concat(data.legs for data in sites.values()),
        "aircraft": pl.concat(data.aircraft for data in sites.values()),
    }
    assert set(tables) == set(KEYS)
    for name, key in KEYS.items():
        assert tables[name][key].null_count() == 0
        assert tables[name][key].is_unique().all()
        assert max(len(column) for column in tables[name].columns) <= 15  # the most that Aerospike allows


def test_only_flights_that_arrived_have_a_leg_and_its_time_follows_from_what_happened(
    sites: dict[str, SiteData],
) -> None:
    data = sites["ewr"]
    assert len(data.legs) == data.flights["arr_delay"].is_not_null().sum()
    both = data.legs.join(data.flights, on="leg", validate="1:1")
    minutes = (both["arrived_at"] - both["scheduled_at"]).dt.total_minutes() - both["dep_delay"] - both["air_time"]
    assert minutes.unique().to_list() == [30]


def test_an_aircraft_s_row_is_its_last_leg_from_whichever_site(sites: dict[str, SiteData]) -> None:
    last = pl.concat(data.legs for data in sites.values()).group_by("tailnum").agg(pl.col("arrived_at").max())
    aircraft = pl.concat(data.aircraft for data in sites.values())
    assert (
        aircraft.select("tailnum", "arrived_at").drop_nulls().sort("tailnum").equals(last.drop_nulls().sort("tailnum"))
    )


def test_what_a_site_writes_is_what_the_task_reads_and_joins(sites: dict[str, SiteData], tmp_path: Path) -> None:
    task, data = flights_task(), sites["jfk"]
    write_local(data, tmp_path)
    local = {name: load(tmp_path, name, dataset).frame for name, dataset in task.local.items()}
    rows = local["flights"].filter(pl.col("scheduled_at").dt.date() == pl.date(2013, 3, 8))
    legs = pl.concat(site.legs for site in sites.values())
    joined = join_rows(task, rows, {**local, **shared_tables(), "legs": legs})
    assert joined.select(rows.columns).equals(rows)
    assert joined["temp"].null_count() == 0
    assert joined["aircraft_delay"].null_count() < len(rows) / 2
    one = joined.drop_nulls("aircraft_delay").row(0, named=True)
    previous = legs.filter(
        pl.col("tailnum") == one["tailnum"],
        pl.col("arrived_at") == one["scheduled_at"] - timedelta(seconds=one["aircraft_idle_s"]),
    )
    assert previous["arr_delay"].to_list() == [one["aircraft_delay"]]
