"""The lease in a real view: who may take it is the server's to judge."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from coordinator.lease import LeaseHolder
from geotrain.errors import Fenced
from geotrain.lease import LEASES, read_lease
from geotrain.view.connect import View, connect
from geotrain.view.keyed import Conflict
from geotrain.view.refusals import InDoubt
from tests.view.views import view_config

LEASE_S = 30.0


@pytest.fixture
def view(cluster) -> Iterator[View]:
    with connect(view_config(cluster)) as connected:
        connected.client.truncate(cluster.namespace, LEASES, 0)
        yield connected


def new_holder(view: View, address: str) -> LeaseHolder:
    return LeaseHolder(view, lease_s=LEASE_S, address=address, addresses={"jfk": "a.jfk:1"}, status="a:2")


@pytest.fixture
def holder(view) -> LeaseHolder:
    return new_holder(view, "a:1")


@pytest.fixture
def other(view) -> LeaseHolder:
    return new_holder(view, "b:1")


def test_the_first_lease_names_its_leader_to_everyone(view, holder):
    assert read_lease(view) is None
    holder.take(None)
    lease = read_lease(view)
    assert (lease.owner, lease.epoch, lease.lease_s, lease.status) == (holder.owner, 1, LEASE_S, "a:2")
    assert [lease.address_for(site) for site in ("ewr", "jfk")] == ["a:1", "a.jfk:1"]


def test_of_two_that_see_no_lease_one_gets_it(holder, other):
    holder.take(None)
    with pytest.raises(Conflict):
        other.take(None)


def test_a_lease_that_has_not_run_out_by_the_servers_clock_is_refused_whatever_ours_says(holder, other, monkeypatch):
    holder.take(None)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setattr(time, "monotonic", lambda: 4e9)
    with pytest.raises(Conflict):
        other.take(other.read())


def test_a_lease_that_has_run_out_is_taken_under_the_next_epoch_and_its_holder_learns_it(view, holder, other):
    holder.take(None)
    seen = replace(other.read(), lease_s=0.2)
    refusals = 0
    while True:
        try:
            other.take(seen)
            break
        except Conflict:
            refusals += 1
    assert refusals > 0
    assert read_lease(view).epoch == 2
    with pytest.raises(Fenced, match="epoch 2 at b:1"):
        holder.renew(1)
    with pytest.raises(Fenced):
        holder.give_back(1)
    other.renew(2)


def test_a_lease_that_was_renewed_after_it_was_read_is_refused(holder, other):
    holder.take(None)
    seen = replace(other.read(), lease_s=0.0)
    holder.renew(1)
    with pytest.raises(Conflict):
        other.take(seen)


def test_a_lease_that_was_given_back_is_taken_at_once_under_the_next_epoch(view, holder, other):
    holder.take(None)
    holder.give_back(1)
    assert not read_lease(view).is_held
    other.take(other.read())
    assert read_lease(view).epoch == 2


def test_a_taking_that_was_not_answered_is_taken_again_under_an_epoch_of_its_own(view, holder, monkeypatch):
    put = view.put

    def unanswered(*arguments, **options):
        put(*arguments, **options)
        raise InDoubt("no answer")

    monkeypatch.setattr(view, "put", unanswered)
    with pytest.raises(InDoubt):
        holder.take(None)
    monkeypatch.undo()
    assert holder.take(holder.read()).epoch == 2
    holder.renew(2)
    with pytest.raises(Fenced):
        holder.renew(1)


def test_a_record_of_a_newer_version_with_more_in_it_is_read(view, holder):
    holder.take(None)
    view.put(LEASES, "leader", {"colour": "red"})
    assert read_lease(view).epoch == 1
