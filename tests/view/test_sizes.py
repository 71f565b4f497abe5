import polars as pl
import pytest

from geotrain.errors import DataError
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from geotrain.view.sizes import set_sizes
from geotrain.view.write import write
from sim.control import Control
from tests.conftest import simulated_cluster


def test_one_copy_of_a_set_is_counted_however_many_there_are(view: View, set_name: str) -> None:
    write(view, pl.DataFrame({"key": range(100), "text": ["x" * 50] * 100}), set_name, "key")
    size = set_sizes(view, [set_name])[set_name]
    assert size.num_records == 100
    assert 100 * 50 < size.num_bytes < 100 * 500


def test_a_set_without_records_is_named_beside_those_that_have_some(view: View, set_name: str) -> None:
    write(view, pl.DataFrame({"key": [1]}), set_name, "key")
    with pytest.raises(DataError, match=f"set {set_name}x: namespace .* has no records of it\n.*{set_name}"):
        set_sizes(view, [set_name, f"{set_name}x"])


def test_a_node_that_dies_is_not_waited_for(tmp_path) -> None:
    with simulated_cluster(tmp_path) as hosts, connect(ViewConfig(hosts=hosts, rack=1)) as view:
        write(view, pl.DataFrame({"key": range(100)}), "left", "key")
        with Control(view.client.info_random_node("sim-control").partition("\t")[2].strip()) as control:
            control.order("kill:node=jfk")
        assert 60 <= set_sizes(view, ["left"])["left"].num_records <= 100
