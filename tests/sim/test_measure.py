"""A reader of the view gets from a published state what its site reported, and sees what does not belong there."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch

from geotrain.states.lookup import ModelLookup
from geotrain.states.publish import publish
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding
from geotrain.tasks.model import build_model
from geotrain.tasks.samples import encode, encode_samples, split, summarize
from geotrain.tasks.targets import DEFAULT_TARGETS
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from geotrain.view.write import write
from sim import measure
from sim.flights import KEYS, SITES, site_data, write_local
from sim.ingest import first_days, ingest_shared, ingest_site, live_sets
from site_agent.join.steps import join_rows
from site_agent.training import evaluate
from tests.conftest import simulated_cluster
from tests.sim.test_config import sim

DAYS = 2
SITE = "lga"


@pytest.fixture(scope="module")
def task() -> TaskConfig:
    return sim("task.model.width=8").task


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory, task: TaskConfig) -> Iterator[View]:
    """A view with two days a month of all sites' legs."""
    with (
        simulated_cluster(tmp_path_factory.mktemp("cluster")) as hosts,
        connect(ViewConfig(hosts=hosts, rack=3)) as view,
    ):
        ingest_shared(view)
        for site in SITES:
            ingest_site(view, first_days(site_data(site), DAYS), task)
        yield view


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(SITE)
    write_local(first_days(site_data(SITE), DAYS), folder)
    return folder


@pytest.fixture(scope="module")
def reported(view: View, task: TaskConfig, folder: Path) -> float:
    """The metric of a model that is published for the site, as its trainer would have reported it."""
    local = measure.load_local(folder, task)
    joined = join_rows(task, local["flights"], {**local, **measure.scan_view(view, task)})
    encoding = Encoding.from_statistics(summarize(joined, task), task)
    torch.manual_seed(0)
    model = build_model(task, encoding, DEFAULT_TARGETS)
    metadata = {"encoding": encoding.to_json(), "task": task.to_json()}
    publish(view, model=task.name, scope=f"site/{SITE}", tensors=model.state_dict(), lineage={}, metadata=metadata)
    _, test_rows = split(joined, task)
    return evaluate(task, model, encode_samples(test_rows, task, encoding), allowed=DEFAULT_TARGETS)


def test_everything_is_measured(view: View, task: TaskConfig, folder: Path, reported: float) -> None:
    measured = measure.measure(view, task, {SITE: folder})
    assert measured.auc_by_lookup == {SITE: pytest.approx(reported, abs=1e-6)}
    assert 0 < measured.state_lookup.p50_us <= measured.state_lookup.p99_us
    assert 0 < measured.key_lookup.p50_us <= measured.key_lookup.p99_us
    assert measured.rows[SITE].keys() == {"flights", "weather", "features"}


def test_one_flight_is_scored_with_what_the_view_knows_by_key(
    view: View, task: TaskConfig, folder: Path, reported: float
) -> None:
    local, scope = measure.load_local(folder, task), f"site/{SITE}"
    flight = measure.score_one_flight(view, scope, task, local)
    record = view.get("aircraft", flight.tailnum)
    assert record is not None
    assert (flight.leg, flight.aircraft_delay) == (record.bins["leg"], record.bins["arr_delay"])
    flown = local["flights"].drop_nulls(["arr_delay", "tailnum"]).sort("scheduled_at").tail(1)
    tomorrow = flown.with_columns(pl.col("scheduled_at") + pl.duration(days=1))
    joined = join_rows(task, tomorrow, {**local, "weather": local["weather"].clear(), **measure.scan_view(view, task)})
    assert joined["aircraft_delay"].null_count() + joined["origin_delay_3h"].null_count() < 2  # legs are known by then
    state = ModelLookup(view, task.name, scope).latest()
    encoding = Encoding.from_json(state.manifest.metadata["encoding"])
    logit = measure.to_model(state, task, encoding)(encode(joined, task, encoding))
    assert flight.late == torch.sigmoid(logit).item()


def test_features_for_the_wiretap_are_those_that_the_trainer_sees(
    view: View, task: TaskConfig, folder: Path, reported: float
) -> None:
    state = ModelLookup(view, task.name, f"site/{SITE}").latest()
    local = measure.load_local(folder, task)
    features = measure.local_features(state, task, local)
    joined = join_rows(task, local["flights"], {**local, **measure.scan_view(view, task)})
    seen = encode(joined, task, Encoding.from_json(state.manifest.metadata["encoding"]))["numeric"]
    columns = [task.numeric().index(name) for name in features.columns]
    assert len(columns) >= 8
    assert torch.equal(torch.from_numpy(features.to_numpy().copy()), seen[:, columns])


def test_records_in_a_set_that_nobody_declared_are_counted(view: View, task: TaskConfig) -> None:
    declared = {*KEYS, *live_sets(task), "gt_tensors", "gt_manifests", "gt_aliases"}
    assert measure.undeclared_records(view, declared) == {}
    write(view, pl.DataFrame({"id": [1, 2, 3], "row": ["a", "b", "c"]}), "strangers", "id")
    assert measure.undeclared_records(view, declared) == {"strangers": 3}
    assert measure.undeclared_records(view, {*declared, "strangers"}) == {}
