"""What the server removes, and what it makes young again: decided by its clock and the record's generation."""

from collections.abc import Iterator

import pytest

from geotrain.errors import ViewError
from geotrain.view.connect import View, connect
from geotrain.view.removal import Idle, digest_of, idle_records, remove_idle, renew
from tests.conftest import ClusterUnderTest
from tests.view.views import ScriptedClient, failure, view_config

LONG_S = 3600.0
KEYS = ["a", "b", "c"]


@pytest.fixture
def view(cluster: ClusterUnderTest) -> Iterator[View]:
    with connect(view_config(cluster, ride_through_s=1.0)) as connected:
        yield connected


@pytest.fixture
def set_name(view: View, request: pytest.FixtureRequest) -> str:
    """A set of three records."""
    name = f"r{abs(hash(request.node.nodeid)):x}"
    for key in KEYS:
        view.put(name, key, {"data": key.encode()})
    return name


def test_records_are_listed_by_digest_and_generation_but_for_those_left_out_and_the_young(view, set_name):
    view.put(set_name, "b", {"data": b"again"})
    digests = {key: digest_of(view, set_name, key) for key in KEYS}
    listed = idle_records(view, set_name, 0, but={digests["a"]})
    assert sorted(listed) == sorted([Idle(digests["b"], 2), Idle(digests["c"], 1)])
    assert idle_records(view, set_name, LONG_S) == []
    assert idle_records(view, "nothing", 0) == []


def test_only_what_is_as_it_was_listed_is_removed(view, set_name):
    listed = idle_records(view, set_name, 0)
    view.put(set_name, "b", {"data": b"again"})
    assert remove_idle(view, set_name, listed, 0) == 2
    assert view.exist(set_name, KEYS) == [False, True, False]
    assert remove_idle(view, set_name, listed, 0) == 2  # they are not there: whoever asks twice is told the same


def test_what_is_young_by_the_servers_clock_is_not_removed(view, set_name):
    listed = idle_records(view, set_name, 0)
    assert remove_idle(view, set_name, listed, LONG_S) == 0
    assert view.exist(set_name, KEYS) == [True, True, True]


def test_records_are_told_to_be_there_or_not_and_only_the_old_are_written_again(view, set_name):
    assert renew(view, set_name, [*KEYS, "d"], LONG_S) == [True, True, True, False]
    assert [record.generation for record in view.get_many(set_name, KEYS)] == [1, 1, 1]
    assert renew(view, set_name, ["a"], 0) == [True]
    record = view.get(set_name, "a", reads="linearizable")
    assert (record.generation, record.bins) == (2, {"data": b"a"})
    assert not view.exist(set_name, ["d"])[0]


@pytest.mark.parametrize("act", ["remove", "renew"])
def test_an_answer_that_was_lost_is_asked_for_again(view, set_name, act):
    listed = idle_records(view, set_name, 0)

    def applied_but_lost(real, *arguments):
        real(*arguments)
        raise failure(9, in_doubt=True)

    view.client = ScriptedClient(view.client, "batch_write", [applied_but_lost, failure(11)])
    if act == "remove":
        assert remove_idle(view, set_name, listed, 0) == 3
    else:
        assert renew(view, set_name, KEYS, LONG_S) == [True, True, True]
    assert view.client.num_calls == 3


def test_a_cluster_that_does_not_settle_it_is_named(view, set_name):
    view.client = ScriptedClient(view.client, "batch_write", [failure(8)] * 100)
    with pytest.raises(ViewError, match="out of space"):
        renew(view, set_name, KEYS, 0)
    view.client = ScriptedClient(view.client, "query", [failure(20)])
    with pytest.raises(ViewError, match=f"listing the set {set_name}"):
        idle_records(view, set_name, 0)
