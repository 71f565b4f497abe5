"""Updates on their way: what arrives is what was sent, or it is refused with the reason."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from geotrain.dtypes import DTYPES
from geotrain.errors import UpdateRefused
from geotrain.updates.checks import check
from geotrain.updates.chunks import DiskFull, Spool, SpooledFile, give_back
from geotrain.updates.codec import Layout, TensorFile
from tests.updates.files import encoded, tensor_file

MODEL = {"body.weight": torch.zeros(4, 3), "head.bias": torch.zeros(1)}

TENSORS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
    st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 4), max_size=3).map(tuple)),
    max_size=5,
).map(lambda shapes: {name: (torch.rand(shape) * 100).to(DTYPES[word]) for name, (word, shape) in shapes.items()})


def spool(path: Path, data: bytes, **changes: object) -> Spool:
    promised = {"num_bytes": len(data), "xxh3": xxhash.xxh3_128_digest(data), "max_bytes": 1 << 20} | changes
    return Spool(path, **promised)


def spooled(path: Path, data: bytes) -> Path:
    receiver = spool(path, data)
    receiver.add(0, data)
    receiver.finish()
    return path


@given(data=st.binary(min_size=1, max_size=5000), chunk_bytes=st.integers(1, 600))
def test_an_update_that_comes_in_chunks_arrives_byte_for_byte(tmp_path_factory, data, chunk_bytes):
    folder = tmp_path_factory.mktemp("spool")
    receiver = spool(folder / "ewr-1.safetensors", data)
    for at in range(0, len(data), chunk_bytes):
        assert not receiver.is_whole
        receiver.add(at, data[at : at + chunk_bytes])
    assert receiver.is_whole
    receiver.finish()
    assert receiver.path.read_bytes() == data + xxhash.xxh3_128_digest(data)
    assert not receiver.part.exists()


def read_and_check(path: Path, names: list[str]) -> None:
    """Read some tensors of a spooled update, then look whether all of it is as it came."""
    with SpooledFile(path) as file:
        for name in names:
            for start in range(MODEL[name].numel()):
                file.read(name, start, torch.empty(1))
        file.check_intact()


READS = st.lists(st.sampled_from(sorted(MODEL)), max_size=4)


@given(READS)
def test_a_spooled_update_is_as_it_came_whatever_is_read_of_it_before(tmp_path_factory, names):
    read_and_check(spooled(tmp_path_factory.mktemp("spool") / "u", encoded(MODEL)), names)


@given(st.data(), READS)
def test_a_spooled_update_that_its_disk_has_changed_is_known(tmp_path_factory, data, names):
    path = spooled(tmp_path_factory.mktemp("spool") / "u", encoded(MODEL))
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    with pytest.raises(UpdateRefused):
        read_and_check(path, names)


@pytest.mark.parametrize(
    ("deliver", "reason"),
    [
        (lambda s: s.add(4, b"efgh"), "starts at byte 4, expected 0"),
        (lambda s: s.add(0, b"abcdefghi"), "ends after byte 8"),
    ],
)
def test_what_does_not_fit_is_refused_and_what_came_before_stays_good(tmp_path, deliver, reason):
    receiver = spool(tmp_path / "u", b"abcdefgh")
    with pytest.raises(UpdateRefused, match=reason):
        deliver(receiver)
    assert receiver.received == 0
    receiver.add(0, b"abcdefgh")
    assert receiver.is_whole
    receiver.discard()
    assert list(tmp_path.iterdir()) == []


def test_updates_take_the_room_of_files_that_were_given_back_each_its_own(tmp_path):
    old = [spooled(tmp_path / f"old-{number}", b"a longer update than the next") for number in range(2)]
    rooms = {path.stat().st_ino for path in old}
    for path in old:
        give_back(path)
    sent = [f"new {number}".encode() for number in range(3)]
    new = [spooled(tmp_path / f"new-{number}", data) for number, data in enumerate(sent)]
    assert len({path.stat().st_ino for path in new} & rooms) == 2
    assert [path.read_bytes() for path in new] == [data + xxhash.xxh3_128_digest(data) for data in sent]
    give_back(tmp_path / "what is not there")
    assert len(list(tmp_path.iterdir())) == 3


def test_an_update_that_changed_on_its_way_is_not_whole(tmp_path):
    receiver = spool(tmp_path / "u", b"abcdefgh")
    receiver.add(0, b"abcdeXgh")
    assert not receiver.is_whole


def test_an_update_over_the_limit_is_refused_before_a_byte_is_stored(tmp_path):
    with pytest.raises(UpdateRefused, match="max_update_bytes is 4"):
        spool(tmp_path / "u", b"abcdefgh", max_bytes=4)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_said_before_a_byte_is_sent_and_left_as_it_was(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFull, match="does not take an update: No space left on device"):
        spool(tmp_path / "u", b"abcdefgh")
    assert list(tmp_path.iterdir()) == []


@given(TENSORS)
def test_tensors_survive_the_codec_and_the_library_reads_it_too(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("codec") / "u.safetensors"
    with tensor_file(path, tensors) as file:
        assert file.entries.keys() == tensors.keys()
        assert all(torch.equal(file.tensor(name), tensor) for name, tensor in tensors.items())
        assert all(
            torch.equal(
                torch.cat([block.clone() for block in file.blocks(name)] or [tensor]).reshape(-1), tensor.reshape(-1)
            )
            for name, tensor in tensors.items()
        )
    theirs = safetensors.torch.load(path.read_bytes())
    assert all(torch.equal(theirs[name], tensor) for name, tensor in tensors.items())
    assert Layout.of(tensors).num_bytes == path.stat().st_size


def test_a_file_of_the_library_is_read(tmp_path):
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(4)}
    safetensors.torch.save_file(tensors, tmp_path / "u", metadata={"format": "pt"})
    with TensorFile(tmp_path / "u") as file:
        assert all(torch.equal(file.tensor(name), tensor) for name, tensor in tensors.items())


def test_a_tensor_over_many_blocks_is_read_from_anywhere(tmp_path):
    tensor = torch.randn(3 << 20)
    with tensor_file(tmp_path / "u", {"a": torch.ones(3), "t": tensor}) as file:
        assert torch.equal(torch.cat([block.clone() for block in file.blocks("t")]), tensor)
        assert torch.equal(file.read("t", 12_345, torch.empty(7)), tensor[12_345:12_352])


@given(st.data())
def test_a_damaged_file_is_refused_or_read_but_never_read_beyond_its_end(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("codec") / "u.safetensors"
    whole = bytearray(encoded(MODEL))
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    with suppress(UpdateRefused), TensorFile(path) as file:
        check(file, MODEL, max_norm=1e40)


def test_a_file_that_is_not_safetensors_is_refused(tmp_path):
    path = tmp_path / "u.safetensors"
    for data in (b"", b"\x80\x04 not tensors at all", b"\x02\0\0\0\0\0\0\0[]"):
        path.write_bytes(data)
        with pytest.raises(UpdateRefused, match="not a safetensors file"):
            TensorFile(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"head.bias": torch.tensor([float("nan")])}, "tensor head.bias has values that are not finite"),
        ({"body.weight": torch.full((4, 3), float("inf"))}, "tensor body.weight has values that are not finite"),
        ({"body.weight": torch.zeros(3, 4)}, r"tensor body.weight is float32\[3, 4\], the model's is float32\[4, 3\]"),
        ({"head.bias": torch.zeros(1, dtype=torch.float64)}, r"tensor head.bias is float64\[1\]"),
        ({"extra": torch.zeros(1)}, r"unknown \['extra'\]"),
        ({"head.bias": torch.tensor([1e9])}, "strategy.max_update_norm = 100"),
        ({"head.bias": torch.tensor([3e38])}, "norm 3e[+]38 is over strategy.max_update_norm = 100"),
    ],
)
def test_an_update_that_must_not_enter_the_mean_is_refused_by_name(tmp_path, changes, reason):
    with tensor_file(tmp_path / "u", MODEL | changes) as file, pytest.raises(UpdateRefused, match=reason):
        check(file, MODEL, max_norm=100)


def test_a_number_whose_square_is_over_all_numbers_is_refused_as_one_too_large(tmp_path):
    model = {"bias": torch.zeros(1, dtype=torch.float64)}
    with (
        tensor_file(tmp_path / "u", {"bias": torch.tensor([1e200], dtype=torch.float64)}) as file,
        pytest.raises(UpdateRefused, match=r"norm inf is over strategy\.max_update_norm = 100"),
    ):
        check(file, model, max_norm=100)


def test_a_partial_update_is_refused_unless_a_part_is_meant(tmp_path):
    with tensor_file(tmp_path / "u", {"head.bias": torch.ones(1)}) as part:
        with pytest.raises(UpdateRefused, match=r"missing \['body.weight'\]"):
            check(part, MODEL, max_norm=100)
        check(part, MODEL, max_norm=100, whole=False)
