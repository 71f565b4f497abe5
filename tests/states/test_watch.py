"""What a serving process has at hand while states come, and while the view goes and comes."""

import threading
import time
from types import SimpleNamespace

import pytest

from geotrain.errors import ConfigError, ViewError
from geotrain.states import watch
from geotrain.states.cache import StateCache
from geotrain.states.manifest import ALIASES, MANIFESTS, UnknownState
from geotrain.states.watch import ModelWatcher
from tests.conftest import free_port
from tests.states.test_publish import put_state
from tests.view.views import view_config


@pytest.fixture
def watched(cluster, model):
    """Makes watchers that are closed in the end; by default they ask only when they are told to."""
    made = []

    def make(**options):
        made.append(ModelWatcher(view_config(cluster), model, **{"interval_s": None} | options))
        return made[-1]

    yield make
    for watcher in made:
        watcher.close()


def away():
    """A view that nobody answers for."""
    return watch.ViewConfig(hosts=[f"127.0.0.1:{free_port()}"], connect_timeout_s=0.2)


def value(watcher):
    return watcher.state.manifest.lineage["value"]


def test_a_newer_state_is_served_after_the_view_was_asked_and_not_before(view, model, watched):
    put_state(view, model, 1)
    watcher = watched()
    put_state(view, model, 2)
    assert (value(watcher), watcher.version, watcher.served_from) == (1, 1, "view")
    assert watcher.check() is watcher.state
    assert (value(watcher), watcher.version, watcher.problem) == (2, 2, None)


def test_in_the_background_every_new_state_arrives_and_none_older_comes_after_it(view, model, watched):
    put_state(view, model, 1)
    watcher = watched(interval_s=0.005)
    seen, arrived = [], threading.Event()

    def read():
        while not seen or seen[-1] < 5:
            state = watcher.state
            values = {float(x) for tensor in state.tensors.values() for x in tensor}
            assert values == {state.manifest.lineage["value"]}
            seen.append(state.manifest.version)
        arrived.set()

    threading.Thread(target=read, daemon=True).start()
    for number in range(2, 6):
        put_state(view, model, number)
    assert arrived.wait(60)
    assert seen == sorted(seen)


def test_its_age_is_since_the_view_was_asked_and_the_state_was_still_the_newest(view, model, watched, monkeypatch):
    now_s = 1000.0
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: now_s))
    put_state(view, model, 1)
    watcher = watched()
    now_s += 40
    assert watcher.age_s == 40
    watcher.check()
    assert watcher.age_s == 0


def test_a_view_that_goes_away_leaves_the_last_good_state_and_the_reason(view, model, watched, monkeypatch):
    put_state(view, model, 1)
    watcher = watched()

    def fails(*_, **__):
        raise ViewError("no connection to the cluster", "try again")

    with monkeypatch.context() as patch:
        patch.setattr(watcher.view, "get", fails)
        with pytest.raises(ViewError, match="no connection"):
            watcher.check()
        assert (value(watcher), watcher.served_from) == (1, "view")
        assert watcher.problem.what == "no connection to the cluster"
    put_state(view, model, 2)
    watcher.check()
    assert (value(watcher), watcher.problem) == (2, None)


def test_a_process_that_starts_while_the_view_is_away_serves_from_disk_until_it_answers(
    view, model, watched, cluster, tmp_path, monkeypatch
):
    put_state(view, model, 1)
    put_state(view, model, 5, "site/ewr")
    cache = StateCache(tmp_path)
    for scope in ("global", "site/ewr"):
        watched(scope=scope, cache=cache).close()
    put_state(view, model, 2)
    now_s = time.time() + 100
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=time.monotonic, time=lambda: now_s))
    with ModelWatcher(away(), model, cache=StateCache(tmp_path), interval_s=None) as watcher:
        assert (value(watcher), watcher.served_from) == (1, "cache on disk")
        assert 90 < watcher.age_s < 200
        assert "no cluster answers" in watcher.problem.what
        with pytest.raises(ViewError, match="no cluster answers"):
            _ = watcher.view
        watcher._config = view_config(cluster)
        watcher.check()
        assert (value(watcher), watcher.served_from, watcher.problem) == (2, "view", None)
        assert watcher.age_s < 90


@pytest.mark.parametrize("lost", ["states", "tensors"])
def test_without_a_view_and_without_a_whole_state_on_disk_it_does_not_start(view, model, watched, tmp_path, lost):
    put_state(view, model, 1)
    watched(cache=StateCache(tmp_path)).close()
    for file in (tmp_path / lost).iterdir():
        file.write_bytes(b"{")
    with pytest.raises(ViewError, match="no cluster answers"):
        ModelWatcher(away(), model, cache=StateCache(tmp_path), interval_s=None)
    with pytest.raises(ViewError, match="no cluster answers"):
        ModelWatcher(away(), model, interval_s=None)


def test_what_the_view_does_not_have_is_not_taken_from_disk(view, model, watched, tmp_path):
    put_state(view, model, 1)
    watched(cache=StateCache(tmp_path)).close()
    durably = {"durable_delete": view.consistency == "strong"}
    view.client.remove(view.key(ALIASES, f"{model}/global"), policy=durably)
    with pytest.raises(UnknownState):
        watched(cache=StateCache(tmp_path))
    with pytest.raises(ConfigError, match="scope 'EWR'"):
        watched(scope="EWR")


def test_a_state_that_can_not_be_read_leaves_the_one_before(view, model, watched):
    put_state(view, model, 1)
    watcher = watched()
    put_state(view, model, 2)
    manifest = view.get(MANIFESTS, f"{model}/global@2").bins["manifest"]
    view.put(MANIFESTS, f"{model}/global@2", {"manifest": manifest.replace(b'"format": 2', b'"format": 3')})
    with pytest.raises(ViewError, match="format 3"):
        watcher.check()
    assert value(watcher) == 1
    view.put(MANIFESTS, f"{model}/global@2", {"manifest": manifest})  # others read all manifests that there are


def test_a_site_without_a_state_of_its_own_gets_that_of_all(view, model, watched, tmp_path):
    put_state(view, model, 1)
    watcher = watched(scope="site/ewr", fall_back="global", cache=StateCache(tmp_path))
    assert (value(watcher), watcher.state.manifest.scope) == (1, "global")
    with ModelWatcher(
        away(), model, "site/ewr", fall_back="global", cache=StateCache(tmp_path), interval_s=None
    ) as offline:
        assert offline.state.manifest.scope == "global"
    put_state(view, model, 2, "site/ewr")
    watcher.check()
    assert (value(watcher), watcher.state.manifest.scope) == (2, "site/ewr")
