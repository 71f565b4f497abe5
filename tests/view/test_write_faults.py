"""Writes while nodes don't answer, hang up, are overloaded or die: every row is there once the writer says so."""

from collections.abc import Iterator

import pyarrow as pa
import pytest

from geotrain.view import write as write_module
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from geotrain.view.write import RowsUnwritten
from sim.control import Control
from tests.conftest import simulated_cluster

SITES = ("ewr", "jfk", "lga")
ROWS = pa.table({"id": range(1000), "n": range(1000)})


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> Iterator[list[str]]:
    with simulated_cluster(tmp_path_factory.mktemp("sites")) as addresses:
        yield addresses


@pytest.fixture
def own_view(hosts, monkeypatch) -> Iterator[View]:
    monkeypatch.setattr(write_module, "ROWS_PER_BATCH", 100)
    with connect(ViewConfig(hosts=hosts, rack=1, deadline_s=0.5, ride_through_s=5.0)) as connected:
        yield connected


@pytest.fixture
def control(own_view) -> Iterator[Control]:
    """Orders to the cluster, which is healed afterwards."""
    control = Control(own_view.client.info_random_node("sim-control").partition("\t")[2].strip())
    yield control
    for site in SITES:
        for order in ("behave", "resume", "start"):
            control.order(f"{order}:node={site}")


@pytest.mark.parametrize(
    "order",
    [
        "misbehave:node=jfk;kind=drop;count=2",
        "misbehave:node=jfk;kind=close;count=5",
        "misbehave:node=jfk;kind=late;delay_ms=700;count=2",
        "misbehave:node=jfk;kind=code;code=18;count=5",
        "misbehave:node=jfk;kind=code;code=11;count=5",
        "kill:node=jfk",
    ],
)
def test_every_row_is_there_when_the_writer_says_so(own_view, control, set_name, order):
    control.order(order)
    result = own_view.write(ROWS, set_name, "id")
    assert result.written == len(ROWS)
    assert [record.bins for record in own_view.get_many(set_name, range(1000))] == ROWS.to_pylist()


def test_rows_of_a_cluster_that_stands_still_are_in_doubt_and_told_so(own_view, control, set_name):
    own_view.config.ride_through_s = 0.5
    for site in SITES:
        control.order(f"pause:node={site}")
    with pytest.raises(RowsUnwritten, match=r"of 1000 rows these .*sent, not answered, and not there") as unwritten:
        own_view.write(ROWS, set_name, "id")
    result = unwritten.value.result
    assert result.in_doubt.num_rows > 0
    assert result.num_rows == 1000
    assert result.written == 0
