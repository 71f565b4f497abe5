"""What a coordinator of an earlier epoch publishes after a later one was here: nothing that anyone sees."""

import pytest
import torch

from geotrain.errors import Fenced
from geotrain.states.heads import fence, move_alias, read_record, write_manifest
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import ALIASES, MANIFESTS, UnknownState, head_key
from geotrain.states.publish import publish, write_state
from geotrain.view.keyed import Conflict
from geotrain.view.refusals import InDoubt

SCOPE = "global"


@pytest.fixture
def write(view, model):
    """Writes a state of this value, which counts once the alias is moved."""

    def written(value: float, epoch: int | None, job: str = "job") -> int:
        return write_state(
            view,
            model=model,
            scope=SCOPE,
            tensors={"t": torch.full((4,), value)}.items(),
            lineage={"job": job, "value": value},
            metadata={},
            epoch=epoch,
        ).version

    return written


@pytest.fixture
def move(view, model):
    return lambda version, epoch: move_alias(view, model, SCOPE, version, epoch=epoch)


def value_at(view, model, version: int | None = None) -> float:
    lookup = ModelLookup(view, model)
    state = lookup.latest() if version is None else lookup.at(version)
    assert state.manifest.lineage["value"] == state.tensors["t"][0].item()
    return state.manifest.lineage["value"]


def test_a_scope_that_was_fenced_takes_nothing_of_an_earlier_epoch(view, model, write, move):
    move(write(1, 4), 4)
    fence(view, model, SCOPE, epoch=5)
    with pytest.raises(Fenced, match="epoch 5"):
        write(2, 4)
    with pytest.raises(Fenced, match="epoch 5"):
        move(2, 4)
    with pytest.raises(Fenced):
        fence(view, model, SCOPE, epoch=4)
    assert value_at(view, model) == 1


def test_a_scope_without_a_state_can_be_fenced_and_has_still_no_state(view, model, write):
    fence(view, model, SCOPE, epoch=5)
    with pytest.raises(UnknownState, match="has no state in scope global"):
        ModelLookup(view, model).latest()
    with pytest.raises(Fenced):
        write(1, 4)
    assert write(1, 5) == 1


def test_the_alias_of_an_earlier_epoch_that_arrives_after_the_fence_is_refused(view, model, write, move, monkeypatch):
    move(write(1, 4), 4)
    version = write(2, 4)
    sent = []
    put = view.put
    monkeypatch.setattr(view, "put", lambda *arguments, **options: sent.append((arguments, options)))
    move(version, 4)
    monkeypatch.undo()
    fence(view, model, SCOPE, epoch=5)
    [(arguments, options)] = sent
    with pytest.raises(Conflict):
        put(*arguments, **options)
    assert value_at(view, model) == 1


@pytest.mark.parametrize("epoch", [4, 5])
def test_what_a_stopped_coordinator_has_left_is_written_over_and_no_version_is_skipped(view, model, write, move, epoch):
    move(write(1, 4), 4)
    assert write(2, 4) == 2
    fence(view, model, SCOPE, epoch=epoch)
    assert write(3, epoch) == 2
    move(2, epoch)
    assert value_at(view, model) == value_at(view, model, 2) == 3


def test_the_same_left_by_an_earlier_epoch_is_signed_anew_so_that_nothing_on_its_way_replaces_it(
    view, model, write, move, monkeypatch
):
    write(1, 3)
    on_the_way = []
    put = view.put

    def hold(set_name, *arguments, **options):
        if set_name == MANIFESTS and options["generation"]:
            on_the_way.append((set_name, *arguments))
        else:
            put(set_name, *arguments, **options)

    monkeypatch.setattr(view, "put", hold)
    write(7, 4)  # over what epoch 3 has left
    monkeypatch.undo()
    fence(view, model, SCOPE, epoch=5)
    assert write(1, 5) == 1
    move(1, 5)
    [over] = on_the_way
    with pytest.raises(Conflict):
        put(*over, generation=1)
    assert value_at(view, model) == 1


def test_a_version_that_began_to_count_after_the_head_was_read_is_not_written_over(view, model, write, move):
    before = read_record(view, model, SCOPE)
    move(write(1, 4), 4)
    fields = {"tensors": {}, "resume": {}, "lineage": {"job": "job"}, "metadata": {}}
    assert write_manifest(view, {"model": model, "scope": SCOPE, **fields}, 5, before)[0] == 2
    assert value_at(view, model, 1) == 1


def test_an_alias_whose_head_was_seen_before_moves_without_another_look(view, model, write, move, monkeypatch):
    move(write(1, 4), 4)
    version, seen = write(2, 4), read_record(view, model, SCOPE)
    with monkeypatch.context() as patched:
        patched.setattr(view, "get", lambda *_, **__: pytest.fail("it looked again"))
        move_alias(view, model, SCOPE, version, epoch=4, seen=seen)
    assert value_at(view, model) == 2


def test_an_alias_whose_head_has_changed_since_it_was_seen_moves_from_where_it_is_now(view, model, write, move):
    move(write(1, 4), 4)
    seen = read_record(view, model, SCOPE)
    move(write(2, 4), 4)
    move_alias(view, model, SCOPE, write(3, 4), epoch=4, seen=seen)
    assert value_at(view, model) == 3
    assert [move["to"] for move in read_record(view, model, SCOPE).bins["history"]] == [1, 2, 3]
    fence(view, model, SCOPE, epoch=5)
    with pytest.raises(Fenced):
        move_alias(view, model, SCOPE, 3, epoch=4, seen=seen)


def test_another_job_of_the_same_leader_is_not_written_over(view, model, write, move):
    assert [write(1, 4, "one"), write(2, 4, "another")] == [1, 2]
    move(2, 4)
    move(1, 4)
    assert (value_at(view, model), value_at(view, model, 1)) == (2, 1)


def test_who_is_no_coordinator_is_neither_fenced_nor_written_over(view, model, write, move):
    fence(view, model, SCOPE, epoch=5)
    publish(view, model=model, scope=SCOPE, tensors={"t": torch.ones(4)}, lineage={"value": 1.0}, metadata={})
    assert value_at(view, model) == 1
    assert write(2, None) == 2
    assert write(3, 6) == 3
    assert view.get(ALIASES, head_key(model, SCOPE)).bins["epoch"] == 5


def test_an_alias_of_a_later_epoch_raises_the_fence_though_it_need_not_move(view, model, write, move):
    move(write(1, 4), 4)
    move(1, 5)
    with pytest.raises(Fenced):
        move(1, 4)


@pytest.mark.parametrize("applied", [True, False])
def test_a_fence_in_doubt_is_settled_by_reading(view, model, write, monkeypatch, applied):
    put, doubted = view.put, []

    def doubtful(set_name, *arguments, **options):
        if not doubted:
            doubted.append(set_name)
            if applied:
                put(set_name, *arguments, **options)
            raise InDoubt("no answer")
        put(set_name, *arguments, **options)

    monkeypatch.setattr(view, "put", doubtful)
    fence(view, model, SCOPE, epoch=5)
    monkeypatch.undo()
    with pytest.raises(Fenced):
        write(1, 4)
