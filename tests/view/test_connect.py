import re
import socket
import subprocess
import sys

import pytest

from geotrain.errors import ViewError
from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect
from geotrain.view.keyed import Conflict, Record
from geotrain.view.refusals import InDoubt
from sim.control import Control
from tests.conftest import simulated_cluster
from tests.view.views import ScriptedClient, failure, view_config


def counts(view, statistic):
    """A statistic of the namespace, by rack."""
    by_rack = {}
    for _, reply in view.client.info_all(f"namespace/{view.config.namespace}").values():
        found = dict(re.findall(r"([\w-]+)=([^;]*)", reply))
        by_rack[int(found["rack-id"])] = int(found[statistic])
    return by_rack


def test_a_verified_view_says_what_it_is(cluster, view):
    assert view.consistency == ("strong" if cluster.strong_consistency else "eventual")
    assert view.num_racks == len(cluster.rack_ids)
    assert view.max_record_bytes >= 128 * 1024


def test_no_cluster_at_the_address_is_refused_with_the_address(cluster):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ViewError, match=f"no cluster answers at 127.0.0.1:{port}") as refused:
        connect(view_config(cluster, hosts=[f"127.0.0.1:{port}"]))
    assert "view.hosts" in refused.value.remedy


def test_an_address_that_never_answers_is_given_up_within_the_limit(cluster):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ViewError, match=r"within 0\.2 s"):
            connect(view_config(cluster, hosts=[host], connect_timeout_s=0.2))


def test_a_second_host_is_tried_where_the_first_does_not_answer(cluster):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = [f"127.0.0.1:{silent.getsockname()[1]}", *cluster.hosts]
        connect(view_config(cluster, hosts=hosts, connect_timeout_s=2.0)).close()


def test_a_node_that_falls_silent_does_not_keep_the_client_from_those_that_took_over(tmp_path):
    """The client learns of them when it has given that node up, and that is no matter of how patiently it connected."""
    with simulated_cluster(tmp_path) as hosts:
        config = ViewConfig(hosts=hosts[:1], rack=1, connect_timeout_s=200.0, deadline_s=0.5, ride_through_s=40.0)
        with connect(config) as view, Control(view.client.info_random_node("sim-control").split()[-1]) as control:
            view.put("s", "key", {"a": 1})
            control.order("pause:node=lga")
            for key in range(20):  # lga was the master of some of them
                view.put("s", key, {"a": key})
            assert view.get("s", 19, reads="linearizable").bins == {"a": 19}


def test_an_unknown_namespace_is_refused_by_name(cluster):
    with pytest.raises(ViewError, match="namespace nowhere is not known") as refused:
        connect(view_config(cluster, namespace="nowhere"))
    assert cluster.namespace in refused.value.remedy


def test_racks_of_sites_that_are_not_there_are_refused(cluster):
    if not cluster.rack_ids:
        pytest.skip("this edition knows no racks")
    with pytest.raises(ViewError, match="no node is on rack 99"):
        connect(view_config(cluster), expected_racks=[*cluster.rack_ids, 99])


def test_an_edition_without_racks_is_taken_only_where_eventual_is_accepted(tmp_path):
    overrides = ("edition=community", "strong_consistency=false", "replication_factor=1")
    with simulated_cluster(tmp_path, *overrides) as hosts:
        with pytest.raises(ViewError, match="not strongly consistent"):
            connect(ViewConfig(hosts=hosts))
        with connect(ViewConfig(hosts=hosts, require_strong_consistency=False), expected_racks=[1, 2, 3]) as view:
            assert (view.consistency, view.num_racks) == ("eventual", 0)
            view.put("s", "key", {"a": 1})
            assert view.get("s", "key") == view.get("s", "key", reads="linearizable") == Record({"a": 1}, 1)
            assert view.get_many("s", ["key"]) == [Record({"a": 1}, 1)]


def test_bins_of_every_type_come_back_as_they_went(view, set_name):
    bins = {"i": -(2**63), "f": 0.5, "s": "späť", "b": True, "blob": b"\0\xff", "map": {"x": 1}, "list": [1, "a"]}
    view.put(set_name, 7, bins)
    assert view.get(set_name, 7) == Record(bins, 1)
    assert type(view.get(set_name, 7).bins["b"]) is bool


def test_an_absent_record_is_none(view, set_name):
    assert view.get(set_name, "absent") is None
    assert view.get(set_name, "absent", reads="linearizable") is None


def test_of_a_record_only_the_bins_that_are_asked_for_are_read(view, set_name):
    view.put(set_name, "key", {"a": 1, "b": 2, "c": 3})
    assert view.get(set_name, "key", ["a", "c", "d"]).bins == {"a": 1, "c": 3}
    assert view.get(set_name, "other", ["a"]) is None


@pytest.mark.parametrize("num_reads", [1, 3])
def test_records_of_several_sets_are_read_at_once(view, set_name, num_reads):
    view.put(set_name, "key", {"a": 1})
    view.put(f"{set_name}2", "key", {"a": 2})
    places = [(f"{set_name}2", "key"), (set_name, "key"), (set_name, "other")][:num_reads]
    found = [record and record.bins for record in view.get_records(places)]
    assert found == [{"a": 2}, {"a": 1}, None][:num_reads]


def test_many_are_read_in_the_order_of_the_keys(view, set_name, monkeypatch):
    monkeypatch.setattr("geotrain.view.keyed.MAX_KEYS_PER_BATCH", 2)
    for key in range(5):
        view.put(set_name, key, {"a": key})
    keys = [4, 99, 0, 2, 4, 1]
    assert view.get_many(set_name, keys) == [Record({"a": key}, 1) if key < 5 else None for key in keys]
    assert view.exist(set_name, keys) == [True, False, True, True, True, True]
    assert view.get_many(set_name, []) == []


def test_create_only_writes_once(view, set_name):
    view.put(set_name, "k", {"a": 1}, generation=0)
    with pytest.raises(Conflict, match=f"{set_name}/'k'"):
        view.put(set_name, "k", {"a": 2}, generation=0)
    assert view.get(set_name, "k").bins == {"a": 1}


def test_a_write_with_a_stale_generation_is_refused(view, set_name):
    view.put(set_name, "k", {"a": 1})
    stale = view.get(set_name, "k").generation
    view.put(set_name, "k", {"a": 2}, generation=stale)
    with pytest.raises(Conflict):
        view.put(set_name, "k", {"a": 3}, generation=stale)
    assert view.get(set_name, "k").bins == {"a": 2}


def test_a_plain_write_is_tried_again_while_the_cluster_may_recover(view, set_name):
    view.client = ScriptedClient(view.client, "put", [failure(11), failure(9, in_doubt=True), failure(18)])
    view.put(set_name, "k", {"a": 1})
    assert view.client.num_calls == 4
    assert view.get(set_name, "k").bins == {"a": 1}


def test_a_write_that_can_not_succeed_is_not_tried_again(view, set_name):
    view.client = ScriptedClient(view.client, "put", [failure(22)])
    with pytest.raises(ViewError, match="forbids"):
        view.put(set_name, "k", {"a": 1})
    assert view.client.num_calls == 1


def test_a_compare_and_set_without_an_answer_is_in_doubt_and_not_repeated(view, set_name):
    def applied_but_unanswered(put, *arguments):
        put(*arguments)
        raise failure(9, in_doubt=True)

    view.client = ScriptedClient(view.client, "put", [failure(18), applied_but_unanswered])
    with pytest.raises(InDoubt, match="may have been applied"):
        view.put(set_name, "k", {"a": 1}, generation=0)
    assert view.client.num_calls == 2
    assert view.get(set_name, "k").bins == {"a": 1}


def test_a_cluster_that_stays_away_ends_in_an_error_that_keeps_the_doubt(view, set_name):
    view.config.ride_through_s = 0.2
    script = [failure(9, in_doubt=True)] + [failure(11)] * 1000
    view.client = ScriptedClient(view.client, "put", script)
    with pytest.raises(InDoubt, match="partition is unavailable"):
        view.put(set_name, "k", {"a": 1})


def test_rows_that_a_batch_could_not_read_are_read_again(view, set_name):
    for key in ("k", "l"):
        view.put(set_name, key, {"a": 1})

    def half(batch_read, *arguments):
        read = batch_read(*arguments)
        for row in read.batch_records[:2]:
            row.result = 11
        return read

    def whole(batch_read, *arguments):
        read = batch_read(*arguments)
        read.batch_records.clear()
        read.result = 9
        return read

    view.client = ScriptedClient(view.client, "batch_read", [failure(9), half, whole])
    assert view.get_many(set_name, ["k", "l", "absent"]) == [Record({"a": 1}, 1), Record({"a": 1}, 1), None]
    assert view.client.num_calls == 4


def test_a_row_alone_that_could_not_be_read_is_read_again(view, set_name):
    view.put(set_name, "k", {"a": 1, "b": 2})
    for method, read in (
        ("get", lambda: view.get_many(set_name, ["k"])[0].bins),
        ("select", lambda: view.read_many(set_name, ["k"], ["a", "b"])[0][2]),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(view, "client", ScriptedClient(view.client, method, [failure(9), failure(11)]))
            assert read() == {"a": 1, "b": 2}
            assert view.client.num_calls == 3
    assert view.get_many(set_name, ["absent"]) == [None]


def test_local_reads_are_answered_by_the_sites_own_rack(cluster, set_name):
    if not cluster.rack_ids:
        pytest.skip("this edition knows no racks")
    own = cluster.rack_ids[-1]
    with connect(view_config(cluster, rack=own)) as view:
        for key in range(40):
            view.put(set_name, key, {"a": key})
        before = counts(view, "client_read_success")
        for key in range(40):
            view.get(set_name, key)
        after = counts(view, "client_read_success")
        assert {rack: after[rack] - before[rack] for rack in after} == {
            rack: 40 if rack == own else 0 for rack in cluster.rack_ids
        }
        for key in range(40):
            view.get(set_name, key, reads="linearizable")
        masters = counts(view, "client_read_success")
        assert sum(masters.values()) - sum(after.values()) == 40
        assert masters[own] - after[own] < 40
        view.get_many(set_name, list(range(40)))
        batched = counts(view, "batch_sub_read_success")
        view.get_many(set_name, list(range(40)))
        again = counts(view, "batch_sub_read_success")
        assert {rack for rack in again if again[rack] > batched[rack]} == {own}


def test_what_the_client_imports_in_its_first_batch_is_imported_before():
    """Two threads with their first batches: the second met a half imported module, and the process ended by SIGSEGV."""
    ask = "import sys, geotrain.view.keyed; print('aerospike_helpers.batch.records' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout == "True\n"
