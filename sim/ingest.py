"""A site's own systems: put its local datasets into its folder, and tell all sites through the view what became of its
flights, also by key for the task that looks it up. `python -m sim.ingest --site ewr ...`, one process a site."""

import argparse
from pathlib import Path

import polars as pl

from geotrain.errors import GeotrainError
from geotrain.program import config_from_json, exit_with
from geotrain.serving.features import live_features, live_sources
from geotrain.serving.live import LiveWriter
from geotrain.tasks.config import TaskConfig
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from geotrain.view.write import write
from sim.flights import KEYS, SiteData, shared_tables, site_data, write_local


def first_days(data: SiteData, days_a_month: int) -> SiteData:
    """The part of a site's data that belongs to the first days of every month."""

    def part(table: pl.DataFrame, time: str) -> pl.DataFrame:
        return table.filter(pl.col(time).dt.day() <= days_a_month)

    return SiteData(
        flights=part(data.flights, "scheduled_at"),
        weather=part(data.weather, "observed_at"),
        legs=part(data.legs, "arrived_at"),
        aircraft=data.aircraft,
    )


def ingest_site(view: View, data: SiteData, task: TaskConfig | None) -> None:
    """Write what the site tells of its flights, for joins and for looking up, and where it last saw its aircraft."""
    write(view, data.legs, "legs", KEYS["legs"])
    if task and live_sets(task):
        LiveWriter(view, task, "legs").write(data.legs, KEYS["legs"])
    write(view, data.aircraft, "aircraft", KEYS["aircraft"])


def live_sets(task: TaskConfig) -> set[str]:
    """The sets of the view in which the sites keep, by key, what the task takes from the legs."""
    return {features.set_name for features in live_features(task, live_sources(task) & {"legs"})}


def ingest_shared(view: View) -> None:
    """Write what is known everywhere."""
    for name, table in shared_tables().items():
        write(view, table, name, KEYS[name])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sim.ingest", description=__doc__)
    parser.add_argument("--site", required=True)
    parser.add_argument("--folder", required=True, type=Path, help="the site's data folder")
    parser.add_argument("--shared", action="store_true", help="write what is known everywhere, too")
    parser.add_argument("--days-a-month", required=True, type=int, help="how many days of every month are used")
    parser.add_argument("--task", help="as JSON: what it takes from the legs is kept by key as well")
    parser.add_argument("--view", required=True, help="the view's configuration, as JSON")
    arguments = parser.parse_args()
    data = first_days(site_data(arguments.site), arguments.days_a_month)
    try:
        task = config_from_json(TaskConfig, arguments.task) if arguments.task else None
        write_local(data, arguments.folder)
        with connect(config_from_json(ViewConfig, arguments.view)) as view:
            ingest_site(view, data, task)
            if arguments.shared:
                ingest_shared(view)
    except GeotrainError as error:
        exit_with(error)
    print(f"{len(data.flights)} flights stay here, {len(data.legs)} legs told to all", flush=True)


if __name__ == "__main__":
    main()
