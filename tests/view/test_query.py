import polars as pl
import pytest

from geotrain.errors import ViewError
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from geotrain.view.query import read_set
from geotrain.view.write import write
from sim.control import Control
from tests.conftest import simulated_cluster
from tests.view.views import ScriptedClient, failure


def test_every_record_is_read_with_the_bins_that_are_asked_for(view: View, set_name: str) -> None:
    write(view, pl.DataFrame({"key": range(100), "text": ["x"] * 100}), set_name, "key")
    rows = read_set(view, set_name, ["key"])
    assert sorted(row["key"] for row in rows) == list(range(100))
    assert {name for row in rows for name in row} == {"key"}


def test_a_set_that_is_not_there_has_no_records(view: View, set_name: str) -> None:
    assert read_set(view, set_name, ["key"]) == []


def test_no_record_is_missed_when_a_node_dies(tmp_path) -> None:
    with simulated_cluster(tmp_path) as hosts, connect(ViewConfig(hosts=hosts, rack=1)) as view:
        write(view, pl.DataFrame({"key": range(100)}), "left", "key")
        with Control(view.client.info_random_node("sim-control").partition("\t")[2].strip()) as control:
            control.order("kill:node=jfk")
        assert len(read_set(view, "left", ["key"])) == 100


def test_what_the_cluster_refuses_for_good_is_said_at_once(view: View, set_name: str, monkeypatch) -> None:
    monkeypatch.setattr(view, "client", ScriptedClient(view.client, "query", [failure(20)]))
    with pytest.raises(ViewError, match=f"reading the set {set_name}: the namespace does not exist"):
        read_set(view, set_name, ["key"])


def test_a_refusal_that_may_pass_is_asked_again(view: View, set_name: str, monkeypatch) -> None:
    monkeypatch.setattr(view, "client", ScriptedClient(view.client, "query", [failure(11), None]))
    assert read_set(view, set_name, ["key"]) == []
