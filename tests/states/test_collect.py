"""What is collected, and what never is. By a cluster whose clock the tests advance."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geotrain.errors import ViewError
from geotrain.states import collect as collect_module
from geotrain.states import publish
from geotrain.states.aliases import head_of, pin, promote, read_head, rollback, unpin
from geotrain.states.collect import collect, given_up, retention
from geotrain.states.heads import move_alias, removed
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import MANIFESTS, TENSORS, UnknownState
from geotrain.states.publish import write_state
from geotrain.view.connect import connect
from tests.states.clock import GRACE_S, aging_cluster, follow
from tests.states.test_publish import put_state, value_of
from tests.view.views import view_config

SCOPE = "global"


@pytest.fixture(scope="module")
def aging(tmp_path_factory):
    with aging_cluster(tmp_path_factory.mktemp("aging")) as cluster_and_clock:
        yield cluster_and_clock


@pytest.fixture
def clock(aging, monkeypatch):
    follow(aging[1], monkeypatch)
    return aging[1]


@pytest.fixture
def view(aging):
    """An empty one."""
    with connect(view_config(aging[0], ride_through_s=1.0)) as connected:
        yield connected
        for set_name in (TENSORS, MANIFESTS, "gt_aliases"):
            connected.client.truncate("geotrain", set_name, 0)


@pytest.fixture
def gc(view):
    return lambda **options: collect(view, **{"num_newest": 1, "grace_s": GRACE_S, **options})


def num_records(view, set_name):
    return len(view.client.query("geotrain", set_name).results({}, {"nobins": True}))


def put_versions(view, model, count):
    for value in range(1, count + 1):
        put_state(view, model, value)


def test_a_version_goes_when_readers_had_their_grace_and_its_parts_with_it(view, model, clock, gc):
    put_versions(view, model, 3)
    clock.advance(GRACE_S + 1)
    first = gc()
    assert first.retired == [f"{model}/global@1"]
    assert (first.removed, first.num_parts_removed) == ([], 0)
    assert gc().waiting == first.retired
    clock.advance(GRACE_S + 1)
    second = gc()
    assert (second.removed, second.num_parts_removed, second.is_complete) == (first.retired, 1, True)
    assert (num_records(view, MANIFESTS), num_records(view, TENSORS)) == (2, 2)
    assert value_of(ModelLookup(view, model)) == 3
    with pytest.raises(UnknownState):
        ModelLookup(view, model).at(1)


def test_it_is_told_what_is_kept_and_why(view, model, clock, gc):
    put_versions(view, model, 5)
    pin(view, model, SCOPE, 1, who="ann", why="audit")
    promote(view, model, SCOPE, 2, alias="canary")
    assert gc().kept == {
        f"{model}/global@1": ["pinned by ann: audit"],
        f"{model}/global@2": ["canary points to it"],
        f"{model}/global@4": ["production pointed to it before"],
        f"{model}/global@5": ["production points to it", "the newest"],
    }


def test_a_pin_that_is_let_go_of_keeps_no_longer(view, model, clock, gc):
    put_versions(view, model, 3)
    pin(view, model, SCOPE, 1)
    assert gc().retired == []
    unpin(view, model, SCOPE, 1)
    assert gc().retired == [f"{model}/global@1"]


def test_what_is_given_up_can_neither_be_promoted_nor_pinned_nor_rolled_back_to(view, model, clock, gc):
    put_versions(view, model, 3)
    gc()
    for act in (promote, rollback, pin, move_alias):
        with pytest.raises(UnknownState, match=f"{model}/global@1 was removed"):
            act(view, model, SCOPE, 1)
    assert rollback(view, model, SCOPE).now == 2


def test_parts_that_another_state_shares_stay(view, model, clock, gc):
    body = {"body": torch.randn(8)}
    for value in (1, 2, 3):
        put_state(view, model, value, tensors=body | {"head": torch.full((8,), float(value))})
    put_state(view, model, 1, "site/ewr", tensors=body)
    gc()
    clock.advance(GRACE_S + 1)
    assert gc().num_parts_removed == 1
    assert ModelLookup(view, model).latest().tensors.keys() == {"body", "head"}
    assert ModelLookup(view, model, "site/ewr").latest().tensors.keys() == {"body"}


def test_tensors_for_those_who_train_on_stay_with_their_state(view, model, clock, gc):
    momentum = {"momentum": torch.randn(9)}
    version = write_state(
        view, model=model, scope=SCOPE, tensors=[], lineage={}, metadata={}, resume=momentum.items(), epoch=1
    ).version
    move_alias(view, model, SCOPE, version, epoch=1)
    clock.advance(2 * GRACE_S)
    assert gc().num_parts_removed == 0
    lookup = ModelLookup(view, model)
    assert lookup.resume(lookup.latest().manifest).keys() == {"momentum"}


def test_a_dry_run_says_the_same_and_changes_nothing(view, model, clock, gc):
    put_versions(view, model, 4)
    for _ in range(2):
        before = read_head(view, model, SCOPE), num_records(view, MANIFESTS), num_records(view, TENSORS)
        would = gc(dry_run=True)
        assert (read_head(view, model, SCOPE), num_records(view, MANIFESTS), num_records(view, TENSORS)) == before
        assert would == gc()
        clock.advance(GRACE_S + 1)


def test_what_it_tells_is_in_the_order_of_versions_however_the_nodes_answer(view, model, clock, gc, monkeypatch):
    put_versions(view, model, 12)
    there = collect_module.read_set
    for turn in (list, reversed):
        monkeypatch.setattr(collect_module, "read_set", lambda *args, turn=turn: turn(list(there(*args))))
        told = gc(dry_run=True)
        assert told.retired == [f"{model}/global@{version}" for version in range(1, 11)]
    gc()
    clock.advance(GRACE_S + 1)
    for turn in (list, reversed):
        monkeypatch.setattr(collect_module, "read_set", lambda *args, turn=turn: turn(list(there(*args))))
        assert gc(dry_run=True).removed == told.retired


def test_what_a_publisher_has_abandoned_goes(view, model, clock, gc):
    put_versions(view, model, 1)
    left = {"model": model, "scope": SCOPE, "lineage": {}, "metadata": {}}
    write_state(view, tensors={"t": torch.randn(5)}.items(), **left)
    write_state(view, tensors={"t": torch.randn(6)}.items(), **left | {"scope": "site/jfk"})
    assert gc().retired == []
    clock.advance(GRACE_S + 1)
    assert gc().retired == [f"{model}/global@2", f"{model}/site/jfk@1"]
    clock.advance(GRACE_S + 1)
    assert gc().num_parts_removed == 2
    assert value_of(ModelLookup(view, model)) == 1
    assert put_state(view, model, 3).version == 3
    assert put_state(view, model, 3, "site/jfk").version == 2


def test_what_a_coordinator_may_have_committed_in_its_ledger_stays(view, model, clock, gc):
    put_versions(view, model, 1)
    state = {"model": model, "scope": SCOPE, "tensors": {"t": torch.ones(5)}.items(), "lineage": {"value": 1.0}}
    version = write_state(view, **state, metadata={}, epoch=4).version
    for _ in range(3):
        clock.advance(GRACE_S + 1)
        gc()
    move_alias(view, model, SCOPE, version, epoch=5)
    assert value_of(ModelLookup(view, model)) == 1
    assert ModelLookup(view, model).latest().manifest.version == 2


def test_parts_without_any_manifest_go(view, model, clock, gc):
    put_versions(view, model, 1)
    view.put(TENSORS, "ab" * 32, {"data": b"left by a publisher that was killed"})
    assert gc().num_parts_removed == 0
    clock.advance(GRACE_S + 1)
    assert gc().num_parts_removed == 1


def test_a_part_that_a_publisher_takes_up_again_is_not_removed_under_its_hands(view, model, clock, gc, monkeypatch):
    """The collector has listed the part as one that nobody names, and removes it only after the publisher looked."""
    again = {"t": torch.randn(7)}
    put_state(view, model, 1, tensors=again)
    put_versions(view, model, 3)
    gc()
    clock.advance(GRACE_S + 1)
    remove_idle = collect_module.remove_idle

    def late(view, set_name, *arguments):
        if set_name == TENSORS:
            put_state(view, model, 4, tensors=again)
        return remove_idle(view, set_name, *arguments)

    monkeypatch.setattr(collect_module, "remove_idle", late)
    assert gc().num_parts_removed == 1  # of the other version that went
    assert torch.equal(ModelLookup(view, model).latest().tensors["t"], again["t"])


def test_a_publisher_that_stood_still_too_long_does_not_point_an_alias_to_what_is_gone(
    view, model, clock, gc, monkeypatch
):
    again = {"t": torch.randn(7)}
    put_state(view, model, 1, tensors=again)
    put_versions(view, model, 2)
    gc()
    clock.advance(GRACE_S + 1)
    write_manifest = publish.write_manifest

    def late(*arguments):
        for _ in range(2):
            clock.advance(GRACE_S + 1)
            gc()
        return write_manifest(*arguments)

    monkeypatch.setattr(publish, "write_manifest", late)
    with pytest.raises(ViewError, match="parts of the state were removed while it was written"):
        put_state(view, model, 4, tensors=again)
    monkeypatch.undo()
    assert value_of(ModelLookup(view, model)) == 2


def test_a_collector_that_stood_still_removes_no_parts(view, model, clock, gc, monkeypatch):
    view.put(TENSORS, "ab" * 32, {"data": b"left"})
    clock.advance(GRACE_S + 1)
    idle_records = collect_module.idle_records

    def slow(*arguments, **options):
        clock.advance(GRACE_S / 4)
        return idle_records(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(collect_module, "idle_records", slow)
        found = gc()
    assert (found.num_parts_removed, found.is_complete) == (0, False)
    assert gc().num_parts_removed == 1


def test_a_reader_that_began_before_a_version_was_given_up_can_end(view, model, clock, gc, monkeypatch):
    put_versions(view, model, 3)
    clock.advance(2 * GRACE_S)
    lookup = ModelLookup(view, model)
    get_many = view.get_many

    def slow(set_name, *arguments, **options):
        monkeypatch.undo()
        follow(clock, monkeypatch)
        for _ in range(3):
            gc()
            clock.advance(GRACE_S / 4)
        return get_many(set_name, *arguments, **options)

    monkeypatch.setattr(view, "get_many", slow)
    assert lookup.at(1).manifest.lineage == {"value": 1}
    gc()
    clock.advance(GRACE_S)
    assert gc().num_parts_removed == 1


def test_a_manifest_of_a_newer_format_stops_the_collection(view, model, clock, gc):
    put_versions(view, model, 3)
    data = view.get(MANIFESTS, f"{model}/global@1").bins["manifest"]
    view.put(MANIFESTS, f"{model}/global@1", {"manifest": json.dumps(json.loads(data) | {"format": 3}).encode()})
    clock.advance(2 * GRACE_S)
    with pytest.raises(ViewError, match="format 3"):
        gc()
    assert num_records(view, TENSORS) == 3


def test_a_kept_version_whose_manifest_is_gone_is_told(view, model, clock, gc):
    put_versions(view, model, 2)
    view.client.remove(view.key(MANIFESTS, f"{model}/global@2"), policy={"durable_delete": True})
    assert gc().missing == [f"{model}/global@2"]


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from(["gc", "publish", "point", "pin"]), st.integers(1, 20), st.integers(1, 4))),
)
def test_whatever_happens_to_a_scope_nothing_that_is_needed_is_given_up(newest, acts):
    head = {"model": "m", "scope": "s", "newest": newest, "aliases": {}}
    for act, version, num_newest in acts:
        known = head_of(head).versions
        if act == "publish":
            head = head | {"newest": head["newest"] + 1}
        elif act == "point" and version in known:
            head = head | {"aliases": {"production": version}}
        elif act == "pin" and version in known:
            head = head | {"pins": {version: {"who": "ann", "why": ""}}}
        elif act == "gc":
            head = head | given_up(head, num_newest, {version} - set(range(head["newest"] + 1)))
            assert given_up(head, num_newest) == {}
            assert set(head_of(head).versions) == set(retention(head_of(head), num_newest))
        needed = {*head["aliases"].values(), *head.get("pins", {})}
        assert not any(removed(head, version) for version in needed)
        assert needed <= set(head_of(head).versions)
