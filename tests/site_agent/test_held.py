"""The update that a site keeps."""

import hashlib
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.rpc import coordinator_pb2 as pb
from site_agent.held import HeldUpdate, Update


def update(data: bytes = b"tensors", **changes: object) -> Update:
    fields = {"job": "j", "site": "ewr", "round": 3, "samples": 10, "metrics": {"loss": 0.5}, "base_version": 7}
    sums = {"num_bytes": len(data), "sha256": hashlib.sha256(data).digest()}
    return Update(pb.UpdateHeader(**fields | sums | changes), data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "ewr.update"


def test_what_is_kept_is_there_after_a_restart_for_its_job_alone(path):
    HeldUpdate(path).keep(update())
    assert HeldUpdate(path).of("j") == update()
    assert HeldUpdate(path).of("other") is None
    assert HeldUpdate(path).of("j") == update()


def test_only_the_last_one_is_kept(path):
    held = HeldUpdate(path)
    for number in (1, 2):
        held.keep(update(round=number))
    assert held.of("j").header.round == 2
    assert [file.name for file in path.parent.iterdir()] == ["ewr.update"]


def test_what_was_dropped_is_gone(path):
    held = HeldUpdate(path)
    held.keep(update())
    held.drop()
    held.drop()
    assert held.of("j") is None


@given(st.data())
def test_a_damaged_one_is_never_taken_for_an_update(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("spool") / "ewr.update"
    held = HeldUpdate(path)
    held.keep(update())
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    assert held.of("j") is None
    assert not path.exists()


def test_a_disk_that_does_not_take_it_is_said_and_costs_only_the_keeping(tmp_path, caplog):
    (tmp_path / "spool").write_text("a file where the folder should be")
    with caplog.at_level(logging.ERROR):
        HeldUpdate(tmp_path / "spool" / "ewr.update").keep(update())
    assert "the update of round 3 can't be kept" in caplog.text
