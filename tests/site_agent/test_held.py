"""The updates that a site keeps."""

import errno
import os
from pathlib import Path

import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from geotrain.errors import GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.updates.chunks import DiskFull
from geotrain.updates.codec import Layout, TensorFile
from site_agent.held import HeldUpdates, Update

TENSORS = {"body": torch.randn(5, 3), "head": torch.ones(2)}
LAYOUT = Layout.of(TENSORS)


def keep(held: HeldUpdates, **changes: object) -> Update:
    fields = {"job": "j", "site": "ewr", "round": 3, "samples": 10, "metrics": {"loss": 0.5}, "base_version": 7}
    return held.write(pb.UpdateHeader(**fields | changes), LAYOUT, TENSORS.__getitem__)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_what_is_kept_is_there_after_a_restart_for_its_job_alone(folder):
    update = keep(HeldUpdates(folder, "ewr"))
    held = HeldUpdates(folder, "ewr")
    assert held.of("j") == update
    assert held.of("other") is None
    assert HeldUpdates(folder, "jfk").of("j") is None
    with TensorFile(update.path) as file:
        assert all(torch.equal(file.tensor(name), tensor) for name, tensor in TENSORS.items())
    data = update.path.read_bytes()[: update.header.num_bytes]
    assert xxhash.xxh3_128_digest(data) == update.header.xxh3


def test_each_job_keeps_its_last_one(folder):
    held = HeldUpdates(folder, "ewr")
    for job, number in (("a", 1), ("a", 2), ("b", 1)):
        keep(held, job=job, round=number)
    assert (held.of("a").header.round, held.of("b").header.round) == (2, 1)
    assert held.jobs() == ["a", "b"]
    assert HeldUpdates(folder, "jfk").jobs() == []
    assert len(list(folder.iterdir())) == 2


def test_what_was_dropped_is_gone_with_the_room_that_was_reserved(folder):
    held = HeldUpdates(folder, "ewr")
    keep(held)
    held.reserve("j", LAYOUT)
    held.drop("j")
    held.drop("j")
    assert held.of("j") is None
    assert list(folder.iterdir()) == []


def test_the_room_of_a_counted_update_is_the_next_ones_until_the_job_is_dropped(folder):
    held = HeldUpdates(folder, "ewr")
    room = keep(held, round=3, metrics={"loss": 0.5, "a name that makes it longer": 1.0}).path.stat().st_ino
    held.release("j")
    assert held.of("j") is None
    assert HeldUpdates(folder, "ewr").jobs() == ["j"]
    held.reserve("j", LAYOUT)
    update = keep(held, round=4)
    assert update.path.stat().st_ino == room
    assert HeldUpdates(folder, "ewr").of("j") == update
    held.release("j")
    held.drop("j")
    assert list(folder.iterdir()) == []


def test_the_room_that_was_reserved_is_given_back(folder):
    held = HeldUpdates(folder, "ewr")
    held.reserve("j", Layout.of({"large": torch.zeros(1 << 20)}))
    assert keep(held).path.stat().st_size < 1000
    assert held.of("j") is not None


@given(st.data())
def test_a_damaged_one_is_never_taken_for_an_update(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("spool")
    path = keep(HeldUpdates(folder, "ewr")).path
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    assert HeldUpdates(folder, "ewr").of("j") is None
    assert not path.exists()


@pytest.mark.parametrize("do", [keep, lambda held: held.reserve("j", LAYOUT)])
def test_a_disk_that_does_not_take_it_is_said_with_its_folder(tmp_path, do):
    (tmp_path / "spool").write_text("a file where the folder should be")
    with pytest.raises(DiskFull, match=r"/spool does not take an update"):
        do(HeldUpdates(tmp_path / "spool", "ewr"))


def test_a_full_disk_is_said_before_anything_is_trained_and_leaves_what_is_kept(folder, monkeypatch):
    held = HeldUpdates(folder, "ewr")
    keep(held)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFull, match="No space left on device"):
        held.reserve("j", LAYOUT)
    assert held.of("j").header.round == 3


@pytest.mark.parametrize("job", ["../../etc/x", "a/b", "", ".j"])
def test_a_job_whose_name_leads_elsewhere_is_refused(folder, job):
    with pytest.raises(GeotrainError, match="is not a name for a job"):
        HeldUpdates(folder, "ewr").of(job)
