"""The one-shot that sets a new cluster's roster, against a simulated one."""

import subprocess
import sys

import pytest

from geotrain.errors import ViewError
from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect
from geotrain.view.roster import main, settle
from sim.control import Control
from tests.conftest import ROOT, simulated_cluster
from tests.sim.cluster.wire_client import WireClient

RACKS = (1, 2, 3)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    with simulated_cluster(tmp_path_factory.mktemp("roster")) as addresses:
        yield addresses


@pytest.fixture
def without_lga(hosts):
    """A cluster of which only two nodes are on the roster."""
    with WireClient(hosts[0]) as client:
        roster = client.info("roster:namespace=geotrain")
        observed = roster.rpartition("observed_nodes=")[2]
        client.info(f"roster-set:namespace=geotrain;nodes={','.join(observed.split(',')[:2])}")
    for host in hosts:
        with WireClient(host) as client:
            client.info("recluster:")
    with pytest.raises(ViewError, match="not on the roster"):
        connect(ViewConfig(hosts=hosts))
    return hosts


def test_nodes_that_see_each_other_come_on_the_roster_and_the_view_is_verified(without_lga):
    settle(ViewConfig(hosts=without_lga), RACKS, num_nodes=3, deadline_s=60.0)
    connect(ViewConfig(hosts=without_lga), expected_racks=RACKS).close()


def test_a_roster_that_is_right_is_left_alone(hosts):
    def generation() -> str:
        with WireClient(hosts[0]) as client:
            return client.info("partition-generation")

    settle(ViewConfig(hosts=hosts), RACKS, num_nodes=3, deadline_s=60.0)
    before = generation()
    settle(ViewConfig(hosts=hosts), RACKS, num_nodes=3, deadline_s=60.0)
    assert generation() == before, "nothing was reclustered"


def test_nothing_is_set_before_all_nodes_are_there(without_lga):
    with pytest.raises(ViewError, match="waiting for 4 nodes that see each other"):
        settle(ViewConfig(hosts=without_lga), RACKS, num_nodes=4, deadline_s=0.5)
    with pytest.raises(ViewError, match="not on the roster"):
        connect(ViewConfig(hosts=without_lga))


def test_a_deadline_that_leaves_no_time_is_refused(monkeypatch, capsys):
    command = "roster --hosts 127.0.0.1:1 --nodes 3 --racks 1 2 3 --deadline-s 0"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit):
        main()
    assert "--deadline-s must be over 0" in capsys.readouterr().err


def test_a_rack_without_a_node_is_named_in_one_line(hosts):
    command = ["--hosts", *hosts, "--nodes", "3", "--racks", "1", "2", "4", "--deadline-s", "0.5"]
    done = subprocess.run(
        [sys.executable, "-m", "geotrain.view.roster", *command], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == ViewError.exit_code
    assert done.stderr.startswith("error: ")
    assert "no node is on rack 4" in done.stderr


def test_a_node_that_is_away_is_waited_for(hosts):
    with WireClient(hosts[0]) as client, Control(client.info("sim-control")) as control:
        control.order("kill:node=lga")
        with pytest.raises(ViewError, match="waiting for 3 nodes"):
            settle(ViewConfig(hosts=hosts[:1]), RACKS, num_nodes=3, deadline_s=0.5)
        control.order("start:node=lga")
    settle(ViewConfig(hosts=hosts), RACKS, num_nodes=3, deadline_s=60.0)


def test_an_eventual_view_has_no_roster_and_is_only_verified(tmp_path):
    with simulated_cluster(tmp_path, "edition=community", "strong_consistency=false") as hosts:
        with pytest.raises(ViewError):
            settle(ViewConfig(hosts=hosts), RACKS, num_nodes=3, deadline_s=0.5)
        settle(ViewConfig(hosts=hosts, require_strong_consistency=False), RACKS, num_nodes=3, deadline_s=60.0)
