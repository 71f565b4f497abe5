"""Updates on their way: what arrives is what was sent, or it is refused with the reason."""

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geotrain.errors import UpdateRefused
from geotrain.updates.checks import check
from geotrain.updates.chunks import Spool, split
from geotrain.updates.codec import decode_file, encode

MODEL = {"body.weight": torch.zeros(4, 3), "head.bias": torch.zeros(1)}


def spool(path: Path, data: bytes, **changes: object) -> Spool:
    promised = {"num_bytes": len(data), "sha256": hashlib.sha256(data).digest(), "max_bytes": 1 << 20} | changes
    return Spool(path, **promised)


@given(data=st.binary(min_size=1, max_size=5000), max_bytes=st.integers(1, 600))
def test_a_chunked_update_arrives_byte_for_byte(tmp_path_factory, data, max_bytes):
    path = tmp_path_factory.mktemp("spool") / "ewr-1.safetensors"
    with spool(path, data) as receiver:
        for offset, chunk, crc32 in split(data, max_bytes):
            receiver.add(offset, bytes(chunk), crc32)
        receiver.finish()
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("deliver", "reason"),
    [
        (lambda s: s.add(0, b"abcX", 0xED82CD11), "damaged"),
        (lambda s: s.add(4, b"efgh", 0), "starts at byte 4, expected 0"),
        (lambda s: s.add(0, b"abcdefghi", 0), "ends after byte 8"),
        (lambda s: s.finish(), "ended after 0 of 8"),
    ],
)
def test_a_damaged_update_is_refused_and_leaves_no_file(tmp_path, deliver, reason):
    with pytest.raises(UpdateRefused, match=reason), spool(tmp_path / "u", b"abcdefgh") as receiver:
        deliver(receiver)
    assert list(tmp_path.iterdir()) == []


def test_an_update_whose_hash_differs_is_refused(tmp_path):
    data = b"abcdefgh"
    with spool(tmp_path / "u", data, sha256=b"0" * 32) as receiver:
        for offset, chunk, crc32 in split(data, 3):
            receiver.add(offset, bytes(chunk), crc32)
        with pytest.raises(UpdateRefused, match="sha256"):
            receiver.finish()
    assert list(tmp_path.iterdir()) == []


def test_an_update_over_the_limit_is_refused_before_a_byte_is_stored(tmp_path):
    with pytest.raises(UpdateRefused, match="max_update_bytes is 4"):
        spool(tmp_path / "u", b"abcdefgh", max_bytes=4)


def test_tensors_survive_the_codec(tmp_path):
    path = tmp_path / "u.safetensors"
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(4).reshape(2, 2).t()}
    path.write_bytes(encode(tensors))
    decoded = decode_file(path)
    assert decoded.keys() == tensors.keys()
    assert all(torch.equal(decoded[name], tensor) for name, tensor in tensors.items())


def test_a_file_that_is_not_safetensors_is_refused(tmp_path):
    path = tmp_path / "u.safetensors"
    path.write_bytes(b"\x80\x04 not tensors at all")
    with pytest.raises(UpdateRefused, match="not a safetensors file"):
        decode_file(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"head.bias": torch.tensor([float("nan")])}, "tensor head.bias has values that are not finite"),
        ({"body.weight": torch.full((4, 3), float("inf"))}, "tensor body.weight has values that are not finite"),
        ({"body.weight": torch.zeros(3, 4)}, r"tensor body.weight is float32\[3, 4\], the model's is float32\[4, 3\]"),
        ({"head.bias": torch.zeros(1, dtype=torch.float64)}, r"tensor head.bias is float64\[1\]"),
        ({"extra": torch.zeros(1)}, r"unknown \['extra'\]"),
        ({"head.bias": torch.tensor([1e9])}, "strategy.max_update_norm = 100"),
    ],
)
def test_an_update_that_must_not_enter_the_mean_is_refused_by_name(changes, reason):
    with pytest.raises(UpdateRefused, match=reason):
        check(MODEL | changes, MODEL, max_norm=100)


def test_a_partial_update_is_refused_unless_a_part_is_meant():
    part = {"head.bias": torch.ones(1)}
    with pytest.raises(UpdateRefused, match=r"missing \['body.weight'\]"):
        check(part, MODEL, max_norm=100)
    check(part, MODEL, max_norm=100, whole=False)
