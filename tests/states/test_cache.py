"""What is on this machine's disk is what was written, or it is fetched again; and it does not grow without bound."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geotrain.errors import ConfigError
from geotrain.states.cache import ABANDONED_S, StateCache
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import TENSORS, part_name
from geotrain.states.tensors import split
from tests.conftest import ROOT
from tests.states.test_publish import put_state, value_of

TENSOR = torch.arange(1000, dtype=torch.float32).reshape(10, 100)


@pytest.fixture
def cache(tmp_path):
    return StateCache(tmp_path)


def keep(cache, tensor, part_bytes=1024):
    entry, parts = split("t", tensor, part_bytes)
    entry = replace(entry, parts=tuple(part_name(part) for part in parts))
    return entry, cache.write(entry, parts)


def files(tmp_path):
    return sorted((tmp_path / "tensors").iterdir())


@pytest.fixture
def fetched(view, monkeypatch):
    """The parts that were read from the view."""
    seen = []
    get_many = view.get_many

    def watched(name, keys, **options):
        assert name == TENSORS
        seen.extend(keys)
        return get_many(name, keys, **options)

    monkeypatch.setattr(view, "get_many", watched)
    return seen


@pytest.mark.parametrize(
    "tensor",
    [TENSOR, TENSOR.bfloat16(), torch.tensor(7), torch.tensor([True, False]), torch.zeros(0, 3), torch.zeros(600)],
)
def test_a_tensor_is_read_back_bit_for_bit_by_whoever_opens_the_folder(tmp_path, cache, tensor):
    entry, written = keep(cache, tensor)
    for found in (written, cache.tensor(entry), StateCache(tmp_path).tensor(entry)):
        assert torch.equal(found, tensor)
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)


def test_who_changes_a_tensor_changes_it_for_nobody_else(cache):
    entry, written = keep(cache, TENSOR)
    written.zero_()
    assert torch.equal(cache.tensor(entry), TENSOR)


def test_tensors_are_mapped_and_not_held_in_memory_a_second_time(tmp_path, cache):
    entry, _ = keep(cache, TENSOR)
    found = cache.tensor(entry)
    [file] = files(tmp_path)
    assert str(file) in Path("/proc/self/maps").read_text()
    assert torch.equal(found, TENSOR)


@pytest.mark.parametrize("damage", ["flip", "shorten", "empty", "lengths"])
def test_a_damaged_file_is_removed_said_and_fetched_again(tmp_path, view, model, fetched, caplog, damage):
    put_state(view, model, 1, tensors={"t": TENSOR}, lineage={})
    ModelLookup(view, model, cache=StateCache(tmp_path)).latest()
    [file] = files(tmp_path)
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[17] ^= 1
    elif damage == "lengths":
        data[-4] ^= 1
    file.write_bytes({"shorten": data[:100], "empty": b""}.get(damage, data))
    fetched.clear()
    with caplog.at_level(logging.WARNING):
        state = ModelLookup(view, model, cache=StateCache(tmp_path)).latest()
    assert torch.equal(state.tensors["t"], TENSOR)
    assert (len(fetched), state.bytes_read > TENSOR.nbytes) == (1, True)
    assert f"{file} is damaged" in caplog.text
    assert len(file.read_bytes()) > TENSOR.nbytes


def test_what_is_on_disk_is_not_fetched_again_by_another_process(tmp_path, view, model, fetched):
    put_state(view, model, 1)
    assert value_of(ModelLookup(view, model, cache=StateCache(tmp_path))) == 1
    fetched.clear()
    assert value_of(ModelLookup(view, model, cache=StateCache(tmp_path))) == 1
    assert fetched == []


def test_of_a_tensor_that_changed_a_little_only_what_changed_is_fetched(tmp_path, view, model, fetched, monkeypatch):
    monkeypatch.setattr(view, "max_record_bytes", 5120)
    big = torch.randn(200, 1000)
    put_state(view, model, 1, tensors={"t": big}, lineage={})
    lookup = ModelLookup(view, model, cache=StateCache(tmp_path))
    lookup.latest()
    fetched.clear()
    changed = big.clone()
    changed[100, :200] += 1
    put_state(view, model, 2, tensors={"t": changed}, lineage={})
    state = lookup.latest()
    assert torch.equal(state.tensors["t"], changed)
    assert len(fetched) <= 2
    assert state.bytes_read < big.nbytes / 10


def test_a_disk_that_takes_no_more_costs_the_cache_and_not_the_state(tmp_path, view, model, monkeypatch, caplog):
    put_state(view, model, 1)
    cache = StateCache(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert value_of(ModelLookup(view, model, cache=cache)) == 1
    assert "No space left" in caplog.text
    assert files(tmp_path) == []


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file can't be made"):
        StateCache(tmp_path / "file")


def test_beyond_its_bound_what_was_not_used_for_longest_goes_but_nothing_of_the_kept_state(tmp_path, view, model):
    cache = StateCache(tmp_path, max_bytes=3 * 4200)
    for value in range(5):
        put_state(view, model, value, tensors={"t": torch.full((1000,), float(value))})
        ModelLookup(view, model, cache=cache).latest()
    assert len(files(tmp_path)) == 3
    small = StateCache(tmp_path, max_bytes=10)
    state = ModelLookup(view, model, cache=small).latest()
    put_state(view, model, 9, tensors={"t": torch.full((1000,), 9.0), "u": torch.full((1000,), 8.0)})
    assert ModelLookup(view, model, cache=small).latest().manifest.version == 6
    assert len(files(tmp_path)) == 2
    assert state.tensors["t"].eq(4).all()  # what is mapped stays


def test_what_a_killed_process_left_aside_goes_in_time_and_what_is_being_written_stays(tmp_path, view, model):
    cache = StateCache(tmp_path)
    old, new = tmp_path / "tensors" / "old.part", tmp_path / "tensors" / "new.part"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (0, old.stat().st_mtime - 2 * ABANDONED_S))
    put_state(view, model, 1)
    ModelLookup(view, model, cache=cache).latest()
    assert (old.exists(), new.exists()) == (False, True)


def test_processes_that_write_and_read_one_folder_at_once_all_read_what_was_written(tmp_path):
    program = f"""
import dataclasses, sys, torch
sys.path.insert(0, {str(ROOT)!r})
from geotrain.states.cache import StateCache
from geotrain.states.manifest import part_name
from geotrain.states.tensors import split
cache = StateCache({str(tmp_path)!r})
for _ in range(20):
    for value in range(10):
        tensor = torch.full((1000,), float(value))
        entry, parts = split("t", tensor, 999)
        entry = dataclasses.replace(entry, parts=tuple(part_name(part) for part in parts))
        found = cache.tensor(entry)
        assert found is None or torch.equal(found, tensor)
        assert torch.equal(cache.write(entry, parts), tensor)
"""
    running = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in running] == [(b"", 0)] * 3
    assert len(files(tmp_path)) == 10
