"""A site trains what it is asked to once, and keeps what it trained until the coordinator needs it no more."""

import errno
import os

import pytest
import safetensors.torch

from geotrain.rpc import coordinator_pb2 as pb
from geotrain.updates.chunks import DiskFull
from site_agent.held import Update


def test_an_update_is_what_training_changed_of_the_base_that_the_round_names(site):
    site.get_ready()
    version = site.publish(5.0)
    site.publish(6.0)
    [update] = site.ask("train", pb.Train(job="j", round=1, base_version=version, ahead_bytes=9))
    assert isinstance(update, Update)
    assert (update.header.site, update.header.round, update.header.samples) == ("ewr", 1, 10)
    assert update.header.ahead_bytes == 9
    tensors = safetensors.torch.load(update.path.read_bytes()[: update.header.num_bytes])
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"body": [1.0, 1.0], "head": [1.0]}


def test_what_was_trained_is_sent_again_and_not_trained_again_also_after_a_restart(site):
    site.get_ready()
    asked = pb.Train(job="j", round=1, base_version=site.publish(5.0))
    [sent] = site.ask("train", asked)
    assert site.ask("train", asked) == [sent]
    site.start()
    [answer] = site.prepare()
    assert (answer.prepared.held.round, answer.prepared.held.base_version) == (1, asked.base_version)
    assert answer.prepared.cut_round == 0
    assert site.ask("train", asked) == [sent]
    assert site.notes.num_trained == 1


@pytest.mark.parametrize(
    ("committed", "is_held"),
    [
        (pb.RoundCommitted(job="j", round=1, version=2, counted=1, oldest=1), False),
        (pb.RoundCommitted(job="j", round=1, version=2, oldest=1, reason="it sent nothing"), True),
        (pb.RoundCommitted(job="j", round=2, version=3, counted=1, oldest=1), False),
        (pb.RoundCommitted(job="j", round=1, version=2, oldest=2, reason="it sent nothing"), False),
    ],
    ids=["counted", "left out, may still be", "counted late", "too late"],
)
def test_an_update_is_kept_until_it_is_counted_or_can_be_no_more(site, committed, is_held):
    site.get_ready()
    site.ask("train", pb.Train(job="j", round=1, base_version=site.publish(5.0)))
    [answer] = site.prepare()
    assert answer.prepared.HasField("held")
    site.ask("round_committed", committed)
    [answer] = site.prepare()
    assert answer.prepared.HasField("held") == is_held


def test_a_localized_state_is_kept_whatever_round_is_committed(site):
    site.get_ready()
    site.ask("localize", pb.Localize(job="j", base_version=site.publish(5.0)))
    site.ask("round_committed", pb.RoundCommitted(job="j", round=1, version=2, oldest=2))
    [answer] = site.prepare()
    assert answer.prepared.HasField("held")


def test_a_paused_job_frees_its_workers_and_keeps_its_update_and_its_cut(site):
    site.get_ready()
    asked = pb.Train(job="j", round=1, base_version=site.publish(5.0))
    [sent] = site.ask("train", asked)
    assert site.ask("job_paused", pb.JobPaused(job="j", reason="kim asks")) == []
    assert site.notes.released == ["j"]
    [answer] = site.prepare()
    assert (answer.prepared.held.round, answer.prepared.cut_round) == (1, 1)
    assert site.ask("train", asked) == [sent]


def test_a_full_disk_is_said_before_anything_is_trained(site, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    site.get_ready()
    asked = pb.Train(job="j", round=1, base_version=site.publish(5.0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(DiskFull, match="No space left on device"):
            site.ask("train", asked)
    assert site.notes.num_trained == 0
    [update] = site.ask("train", asked)
    assert update.header.round == 1


def test_an_update_from_another_base_or_of_another_round_is_trained(site):
    site.get_ready()
    first, second = site.publish(5.0), site.publish(6.0)
    for number, version in ((1, first), (1, second), (2, second)):
        [update] = site.ask("train", pb.Train(job="j", round=number, base_version=version))
        assert (update.header.round, update.header.base_version) == (number, version)
    assert site.notes.num_trained == 3


def test_a_localized_state_sends_only_what_the_site_changed(site):
    site.get_ready()
    [update] = site.ask("localize", pb.Localize(job="j", base_version=site.publish(5.0)))
    assert update.header.kind == pb.UpdateHeader.LOCALIZED
    assert safetensors.torch.load(update.path.read_bytes()[: update.header.num_bytes]).keys() == {"head"}
