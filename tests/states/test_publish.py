import threading

import pytest
import torch

from geotrain.errors import ConfigError, DataError, ViewError
from geotrain.states import publish as publish_module
from geotrain.states import tensors as tensors_module
from geotrain.states.heads import move_alias
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import ALIASES, MANIFESTS, TENSORS, UnknownState
from geotrain.states.publish import RECORD_OVERHEAD_BYTES, publish, write_state
from geotrain.view.keyed import Conflict
from geotrain.view.refusals import InDoubt


def tensors(value, *names):
    return {name: torch.full((8,), float(value)) for name in names or ("body", "head")}


def put_state(view, model, value, scope="global", **changes):
    arguments = {"tensors": tensors(value), "lineage": {"value": value}, "metadata": {}} | changes
    return publish(view, model=model, scope=scope, **arguments)


def value_of(lookup):
    """The value of a state; fails where its tensors and its manifest are not of one state."""
    state = lookup.latest()
    (value,) = {float(x) for tensor in state.tensors.values() for x in tensor}
    assert state.manifest.lineage == {"value": value}
    return value


@pytest.fixture
def on_put(view, monkeypatch):
    """Calls a function before each write of the view: set name, key."""

    def install(before):
        put, put_many = view.put, view.put_many

        def hooked(set_name, key, bins, **options):
            before(set_name, key)
            put(set_name, key, bins, **options)

        def hooked_many(set_name, records):
            for key in records if len(records) > 1 else ():  # one is put
                before(set_name, key)
            put_many(set_name, records)

        monkeypatch.setattr(view, "put", hooked)
        monkeypatch.setattr(view, "put_many", hooked_many)

    return install


def test_versions_of_a_scope_grow_one_by_one_and_scopes_count_for_themselves(view, model):
    references = [
        put_state(view, model, value, scope).reference for scope in ("global", "site/ewr") for value in (1, 2)
    ]
    assert references == [f"{model}/global@1", f"{model}/global@2", f"{model}/site/ewr@1", f"{model}/site/ewr@2"]


def test_aliases_of_a_scope_move_apart(view, model):
    put_state(view, model, 1)
    assert put_state(view, model, 2, alias="candidate").version == 2
    assert value_of(ModelLookup(view, model)) == 1
    assert value_of(ModelLookup(view, model, alias="candidate")) == 2
    assert put_state(view, model, 3).version == 3


def test_only_tensors_that_the_view_lacks_are_written(view, model, on_put):
    written = []
    base = {"body": torch.randn(50_000), "head": torch.randn(10)}
    put_state(view, model, 1, tensors=base)
    on_put(lambda set_name, key: written.append(set_name))
    published = put_state(view, model, 2, "site/ewr", tensors=base | {"head": torch.randn(10)})
    assert written == [TENSORS, MANIFESTS, ALIASES]
    assert published.bytes_written < 10_000


def test_tensors_are_split_to_what_a_record_may_hold(view, model, on_put, monkeypatch):
    written = []
    monkeypatch.setattr(view, "max_record_bytes", 4096)
    on_put(lambda set_name, key: written.append(set_name))
    tensor = torch.randn(3000)
    put_state(view, model, 1, tensors={"t": tensor})
    assert written.count(TENSORS) == 4
    assert torch.equal(ModelLookup(view, model).latest().tensors["t"], tensor)


def test_equal_parts_of_a_state_are_written_once(view, model, on_put, monkeypatch):
    written = []
    monkeypatch.setattr(view, "max_record_bytes", 4096)
    monkeypatch.setattr(publish_module, "CHECKED_PARTS", 2)
    on_put(lambda set_name, key: written.append(set_name))
    zeros = torch.zeros(10 * (4096 - RECORD_OVERHEAD_BYTES) // 4)
    published = put_state(view, model, 1, tensors={"t": zeros, "u": zeros.clone()})
    assert written == [TENSORS, MANIFESTS, ALIASES]
    assert published.bytes_written < 2 * 4096
    assert all(torch.equal(tensor, zeros) for tensor in ModelLookup(view, model).latest().tensors.values())


def test_a_publisher_that_stops_anywhere_leaves_readers_with_the_state_before_whole(view, model, monkeypatch):
    class StopError(Exception):
        pass

    put_state(view, model, 1)
    monkeypatch.setattr(tensors_module, "PARTS_PER_TRIP", 1)
    put = view.put
    for num_writes in range(100):
        done = []

        def stops(*arguments, done=done, last=num_writes, **options):
            if len(done) >= last:
                raise StopError
            put(*arguments, **options)
            done.append(arguments)

        monkeypatch.setattr(view, "put", stops)
        new = {f"t{i}": torch.randn(8) for i in range(3)}
        try:
            put_state(view, model, 2, tensors=new)
        except StopError:
            assert value_of(ModelLookup(view, model)) == 1
        else:
            break
    assert num_writes == 5  # three tensors, manifest, alias
    state = ModelLookup(view, model).latest()
    assert state.manifest.lineage == {"value": 2}
    assert state.tensors.keys() == new.keys()


def test_a_version_that_another_publisher_took_is_not_taken_twice(view, model, on_put):
    rivals = iter([10, 20])

    def rival(set_name, key):
        if set_name == MANIFESTS and (value := next(rivals, None)):
            put_state(view, model, value)

    on_put(rival)
    assert put_state(view, model, 1).version == 3
    assert value_of(ModelLookup(view, model)) == 1


def test_the_alias_never_moves_back_to_a_lower_version(view, model, on_put):
    overtaken = []

    def rival(set_name, key):
        if set_name == ALIASES and not overtaken:
            overtaken.append(True)
            put_state(view, model, 2)

    on_put(rival)
    assert put_state(view, model, 1).version == 1
    assert value_of(ModelLookup(view, model)) == 2


def test_a_late_alias_does_not_set_the_newest_version_back(view, model, on_put):
    overtaken = []

    def rival(set_name, key):
        if set_name == ALIASES and not overtaken:
            overtaken.append(True)
            put_state(view, model, 2, alias="candidate")

    on_put(rival)
    put_state(view, model, 1)
    assert view.get(ALIASES, f"{model}/global").bins["newest"] == 2
    assert put_state(view, model, 3).version == 3


@pytest.mark.parametrize("applied", [True, False])
def test_an_alias_write_in_doubt_is_settled_by_reading(view, model, monkeypatch, applied):
    put_state(view, model, 1)
    put = view.put
    doubted = []

    def doubtful(set_name, key, bins, **options):
        if set_name == ALIASES and not doubted:
            doubted.append(True)
            if applied:
                put(set_name, key, bins, **options)
            raise InDoubt("no answer")
        put(set_name, key, bins, **options)

    monkeypatch.setattr(view, "put", doubtful)
    assert put_state(view, model, 2).version == 2
    assert value_of(ModelLookup(view, model)) == 2


@pytest.mark.parametrize("applied", [True, False])
def test_a_manifest_write_in_doubt_is_settled_by_reading(view, model, monkeypatch, applied):
    put = view.put
    doubted = []

    def doubtful(set_name, key, bins, **options):
        if set_name == MANIFESTS and not doubted:
            doubted.append(True)
            if applied:
                put(set_name, key, bins, **options)
            raise InDoubt("no answer")
        put(set_name, key, bins, **options)

    monkeypatch.setattr(view, "put", doubtful)
    assert put_state(view, model, 1).version == 1
    assert value_of(ModelLookup(view, model)) == 1


def test_who_was_interrupted_before_the_alias_finds_its_own_version_again(view, model):
    state = {"model": model, "scope": "global", "tensors": tensors(1).items(), "lineage": {"round": 1}, "metadata": {}}
    assert [write_state(view, **state).version for _ in range(3)] == [1, 1, 1]
    assert write_state(view, **state | {"lineage": {"round": 2}}).version == 2
    with pytest.raises(UnknownState):
        ModelLookup(view, model).latest()
    with pytest.raises(UnknownState):
        ModelLookup(view, model).at(2)


def test_tensors_for_those_who_train_on_are_kept_with_the_state_and_not_read_with_it(view, model):
    momentum = {"body.momentum": torch.randn(1000), "step": torch.tensor(3.0)}
    state = {"model": model, "scope": "global", "tensors": tensors(1).items(), "lineage": {}, "metadata": {}}
    version = write_state(view, **state, resume=momentum.items()).version
    move_alias(view, model, "global", version)
    lookup = ModelLookup(view, model)
    read = lookup.at(version)
    assert read.tensors.keys() == {"body", "head"}
    assert read.bytes_read < 4000
    resumed = lookup.resume(read.manifest)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in momentum.items())


def test_a_publisher_that_always_loses_gives_up(view, model, monkeypatch):
    def loses(set_name, key, bins, **options):
        if set_name == ALIASES:
            raise Conflict("lost")
        return None

    view.config.ride_through_s = 0.1
    monkeypatch.setattr(view, "put", loses)
    with pytest.raises(Conflict):
        put_state(view, model, 1)


def test_a_tensor_that_could_not_be_written_stops_the_publication(view, model, monkeypatch):
    def refuses(set_name, records):
        assert set_name == TENSORS
        raise ViewError("the cluster is out of space")

    monkeypatch.setattr(view, "put_many", refuses)
    with pytest.raises(ViewError, match="out of space"):
        put_state(view, model, 1, tensors={"t": torch.randn(8)})


def test_publishers_at_once_each_get_a_version_and_the_alias_ends_at_the_highest(view, model):
    versions = []
    threads = [
        threading.Thread(target=lambda value=value: versions.append(put_state(view, model, value).version))
        for value in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == [1, 2, 3, 4]
    assert ModelLookup(view, model).latest().manifest.version == 4


def test_bad_names_and_tensors_are_refused_before_anything_is_written(view, on_put):
    def fails(set_name, key):
        raise AssertionError("written")

    on_put(fails)
    with pytest.raises(ConfigError, match="model 'Flights'"):
        put_state(view, "Flights", 1)
    with pytest.raises(DataError, match="tensor t "):
        put_state(view, "flights", 1, tensors={"t": torch.zeros(1, dtype=torch.complex64)})
    tensors = {"t": torch.zeros(1)}
    with pytest.raises(DataError, match=r"the lineage can't be kept as JSON: .* set "):
        publish(view, model="flights", scope="global", tensors=tensors, lineage={"sites": {"ewr"}}, metadata={})
    with pytest.raises(DataError, match="metadata width is 128, and no text"):
        publish(view, model="flights", scope="global", tensors=tensors, lineage={}, metadata={"width": 128})
