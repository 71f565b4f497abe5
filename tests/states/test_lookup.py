import threading

import pytest
import torch

from geotrain.errors import ConfigError, ViewError
from geotrain.states.heads import change_head
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import ALIASES, MANIFESTS, TENSORS, UnknownState
from geotrain.view.connect import connect
from geotrain.view.keyed import Record
from tests.states.test_publish import put_state, value_of
from tests.view.views import view_config


@pytest.fixture
def reads(view, monkeypatch):
    """The records that were asked for, as set names."""
    seen = []
    get, read_places = view.get, view.read_places

    def watched(places, *rest, **options):
        seen.extend(name for name, _ in places)
        return read_places(places, *rest, **options)

    monkeypatch.setattr(view, "get", lambda name, *rest, **options: (seen.append(name), get(name, *rest, **options))[1])
    monkeypatch.setattr(view, "read_places", watched)
    return seen


def test_the_newest_state_is_read_back_bit_for_bit(view, model):
    published = {"w": torch.randn(300, 700), "half": torch.randn(5).bfloat16(), "step": torch.tensor(7)}
    put_state(view, model, 1, tensors=published, metadata={"encoding": '{"a": 1}'})
    state = ModelLookup(view, model).latest()
    assert state.tensors.keys() == published.keys()
    assert all(torch.equal(state.tensors[name], tensor) for name, tensor in published.items())
    assert state.manifest.metadata == {"encoding": '{"a": 1}'}
    assert state.bytes_read > 300 * 700 * 4


def test_nothing_new_costs_one_small_read(view, model, reads):
    put_state(view, model, 1)
    lookup = ModelLookup(view, model)
    first = lookup.latest()
    reads.clear()
    again = lookup.latest()
    assert reads == [ALIASES]
    assert again.bytes_read == 0
    assert again.tensors is first.tensors
    assert lookup.latest() is again


def test_only_tensors_that_it_lacks_are_fetched(view, model, reads):
    base = {"body": torch.randn(50_000), "head": torch.randn(10)}
    put_state(view, model, 1, tensors=base)
    lookup = ModelLookup(view, model)
    body = lookup.latest().tensors["body"]
    put_state(view, model, 2, tensors=base | {"head": torch.randn(10)})
    reads.clear()
    state = lookup.latest()
    assert reads.count(TENSORS) == 1
    assert state.tensors["body"] is body
    assert state.bytes_read < 10_000


def test_every_rack_sees_what_was_published(cluster, view, model):
    put_state(view, model, 1)
    for rack in cluster.rack_ids:
        with connect(view_config(cluster, rack=rack)) as of_site:
            assert value_of(ModelLookup(of_site, model)) == 1


def test_a_version_can_be_read_after_newer_ones_came(view, model):
    for value in (1, 2):
        put_state(view, model, value)
    lookup = ModelLookup(view, model)
    assert lookup.at(1).manifest.lineage == {"value": 1}
    assert value_of(lookup) == 2


def test_a_state_can_not_be_changed(view, model):
    put_state(view, model, 1)
    state = ModelLookup(view, model).latest()
    with pytest.raises(AttributeError):
        state.tensors = {}
    with pytest.raises(TypeError):
        state.tensors["body"] = torch.zeros(1)


def test_a_damaged_tensor_is_detected(view, model):
    put_state(view, model, 1, tensors={"t": torch.randn(8)})
    part = ModelLookup(view, model).latest().manifest.tensors["t"].parts[0]
    view.put(TENSORS, part, {"data": bytes(32)})
    with pytest.raises(ViewError, match=f"{TENSORS}/{part} is damaged"):
        ModelLookup(view, model).latest()


def test_a_missing_tensor_is_detected(view, model):
    put_state(view, model, 1, tensors={"t": torch.randn(5)})
    part = ModelLookup(view, model).latest().manifest.tensors["t"].parts[0]
    view.client.remove(view.key(TENSORS, part), policy={"durable_delete": view.consistency == "strong"})
    with pytest.raises(ViewError, match=f"{TENSORS}/{part} is missing"):
        ModelLookup(view, model).latest()


def test_a_state_that_can_not_be_read_leaves_the_reader_with_the_one_before(view, model, monkeypatch):
    put_state(view, model, 1)
    lookup = ModelLookup(view, model)
    lookup.latest()
    put_state(view, model, 2)
    with monkeypatch.context() as patch:
        patch.setattr(view, "get_many", lambda *_, **__: [None])
        with pytest.raises(ViewError, match="missing"):
            lookup.latest()
    assert value_of(lookup) == 2


def test_unknown_models_scopes_aliases_and_versions_are_named_with_what_there_is(view, model):
    put_state(view, model, 1)
    known = f"{model}/global@1"
    with pytest.raises(UnknownState, match="model nothing has no state in scope global") as refused:
        ModelLookup(view, "nothing").latest()
    assert known in refused.value.remedy
    with pytest.raises(UnknownState, match=f"model {model} has no state in scope site/ewr") as refused:
        ModelLookup(view, model, "site/ewr").latest()
    assert known in refused.value.remedy
    with pytest.raises(UnknownState, match=f"{model}/global has no alias candidate") as refused:
        ModelLookup(view, model, alias="candidate").latest()
    assert "production" in refused.value.remedy
    with pytest.raises(UnknownState, match=f"no model state {model}/global@9") as refused:
        ModelLookup(view, model).at(9)
    assert known in refused.value.remedy
    with pytest.raises(ConfigError, match="scope 'site ewr'"):
        ModelLookup(view, model, "site ewr")


def test_threads_that_read_while_states_are_published_see_each_whole_and_never_an_older_one(view, model):
    put_state(view, model, 1)
    lookup = ModelLookup(view, model)
    stop = threading.Event()
    seen = [[] for _ in range(3)]

    def read(into):
        while not stop.is_set():
            into.append(value_of(lookup))

    readers = [threading.Thread(target=read, args=[into]) for into in seen]
    for reader in readers:
        reader.start()
    for value in range(2, 12):
        put_state(view, model, value)
    stop.set()
    for reader in readers:
        reader.join()
    assert all(values == sorted(values) and values for values in seen)
    assert value_of(lookup) == 11


def test_threads_that_find_a_new_state_at_once_fetch_it_once(view, model, monkeypatch):
    put_state(view, model, 1)
    lookup = ModelLookup(view, model)
    get, get_many = view.get, view.get_many
    fetching, second_has_asked = threading.Event(), threading.Event()
    fetched = []

    def watched_get(set_name, *rest, **options):
        record = get(set_name, *rest, **options)
        if fetching.is_set():
            second_has_asked.set()
        return record

    def slow_get_many(set_name, keys):
        fetched.append(keys)
        fetching.set()
        assert second_has_asked.wait(10)
        return get_many(set_name, keys)

    monkeypatch.setattr(view, "get", watched_get)
    monkeypatch.setattr(view, "get_many", slow_get_many)
    first = threading.Thread(target=lookup.latest)
    first.start()
    assert fetching.wait(10)
    assert value_of(lookup) == 1
    first.join()
    assert len(fetched) == 1


def test_a_lookup_holds_no_tensors_but_those_in_use(view, model):
    lookup = ModelLookup(view, model)
    for value in range(5):
        put_state(view, model, value)
        lookup.latest()
    assert len(lookup._held) == 1  # body and head are equal, hence one


def test_the_view_holds_one_manifest_a_version_and_one_head_a_scope(view, model):
    for value in (1, 2):
        put_state(view, model, value)
    assert view.exist(MANIFESTS, [f"{model}/global@{version}" for version in (1, 2, 3)]) == [True, True, False]
    head = view.get(ALIASES, f"{model}/global").bins
    assert (head["model"], head["scope"], head["newest"], head["aliases"]) == (model, "global", 2, {"production": 2})


def test_where_a_scope_has_no_state_yet_that_of_the_scope_to_fall_back_to_is_taken(view, model):
    put_state(view, model, 1)
    lookup = ModelLookup(view, model, "site/ewr", fall_back="global")
    assert (value_of(lookup), lookup.latest().manifest.scope) == (1, "global")
    put_state(view, model, 2, "site/ewr")
    assert (value_of(lookup), lookup.latest().manifest.scope) == (2, "site/ewr")
    with pytest.raises(UnknownState, match="no state in scope site/jfk or site/lga"):
        ModelLookup(view, model, "site/jfk", fall_back="site/lga").latest()


def test_a_copy_of_the_head_that_lags_takes_no_reader_back_and_a_rollback_does(view, model, monkeypatch):
    lookup = ModelLookup(view, model)
    put_state(view, model, 1)
    first = _head(view, model)
    put_state(view, model, 2)
    second = _head(view, model)
    assert value_of(lookup) == 2
    with monkeypatch.context() as patch:
        patch.setattr(view, "get", lambda *_, **__: first)
        assert value_of(lookup) == 2
    change_head(view, model, "global", lambda head: {"aliases": {"production": 1}})
    assert value_of(lookup) == 1
    monkeypatch.setattr(view, "get", lambda *_, **__: second)
    assert value_of(lookup) == 1


def _head(view, model):
    return view.get(ALIASES, f"{model}/global")


def test_what_the_rack_does_not_have_yet_is_read_from_where_it_was_written(view, model, monkeypatch):
    put_state(view, model, 1)
    get, get_many = view.get, view.get_many

    def rack_get(name, key, *bins, reads=None):
        return None if name == MANIFESTS and reads is None else get(name, key, *bins, reads=reads)

    monkeypatch.setattr(view, "get", rack_get)
    monkeypatch.setattr(
        view, "get_many", lambda name, keys, reads=None: get_many(name, keys) if reads else [None] * len(keys)
    )
    assert value_of(ModelLookup(view, model)) == 1


def test_a_copy_in_the_rack_that_is_damaged_is_said_and_read_where_it_was_written(view, model, monkeypatch, caplog):
    put_state(view, model, 1)
    get_many = view.get_many

    def damaged(name, keys, reads=None):
        records = get_many(name, keys)
        return records if reads else [Record({"data": record.bins["data"][:-1]}, 1) for record in records]

    monkeypatch.setattr(view, "get_many", damaged)
    assert value_of(ModelLookup(view, model)) == 1
    assert "1 records of gt_tensors are not whole in this rack" in caplog.text


def test_a_damaged_manifest_is_named(view, model):
    put_state(view, model, 1)
    whole = view.get(MANIFESTS, f"{model}/global@1").bins["manifest"]
    for damaged in (b"", b"{", b"[]", b"{}"):
        view.put(MANIFESTS, f"{model}/global@1", {"manifest": damaged})
        with pytest.raises(ViewError, match=f"{MANIFESTS}/{model}/global@1 is damaged"):
            ModelLookup(view, model).latest()
    view.put(MANIFESTS, f"{model}/global@1", {"manifest": whole})  # others read all manifests that there are


def test_a_state_that_was_replaced_and_collected_while_it_was_read_is_passed_over(view, model, monkeypatch):
    put_state(view, model, 1)
    lookup = ModelLookup(view, model)
    get = view.get

    def collects(name, key, *bins, **options):
        if name == MANIFESTS and key.endswith("@1"):
            if ModelLookup(view, model)._newest()[1] == 1:
                put_state(view, model, 2)
            return None
        return get(name, key, *bins, **options)

    monkeypatch.setattr(view, "get", collects)
    assert value_of(lookup) == 2


def test_a_tensor_of_a_type_that_this_version_lacks_is_refused_with_advice(view, model):
    put_state(view, model, 1)
    key = f"{model}/global@1"
    manifest = view.get(MANIFESTS, key).bins["manifest"]
    view.put(MANIFESTS, key, {"manifest": manifest.replace(b'"F32"', b'"F4"')})
    with pytest.raises(ViewError, match="types F4") as refused:
        ModelLookup(view, model).latest()
    assert "upgrade" in refused.value.remedy
