import aerospike
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.wire.digests import digests

sets = st.text("abcxyz-_é", max_size=20)
int64s = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
keys_of_one_type = st.one_of(st.lists(keys, min_size=1) for keys in (int64s, texts, st.binary(min_size=1)))


def official(set_name: str, key: int | str | bytes) -> bytes:
    return bytes(aerospike.calc_digest("any", set_name, bytearray(key) if isinstance(key, bytes) else key))


@settings(deadline=None)
@given(set_name=sets, keys=keys_of_one_type)
def test_digests_are_those_of_the_official_client(set_name: str, keys: list[int | str | bytes]) -> None:
    found = digests(set_name, pa.array(keys))
    assert [digest.tobytes() for digest in found] == [official(set_name, key) for key in keys]


@pytest.mark.parametrize("num_bytes", range(120, 0, -1))
def test_keys_of_every_length_up_to_two_blocks_have_the_digest_of_the_official_client(num_bytes: int) -> None:
    keys = ["x" * num_bytes, "y" * (num_bytes // 2), "z" * 300]
    assert [digest.tobytes() for digest in digests("set", pa.array(keys))] == [official("set", key) for key in keys]


@pytest.mark.parametrize("keys", [["b", "c"] * 20, [b"b", b"c"] * 20, list(range(40))])
def test_a_slice_of_an_array_has_the_digests_of_its_own_keys(keys: list[int | str | bytes]) -> None:
    assert np.array_equal(digests("s", pa.array(keys)[3:33]), digests("s", pa.array(keys[3:33])))


@pytest.mark.parametrize("arrow_type", [pa.int8(), pa.int32(), pa.uint16(), pa.int64()])
def test_integers_of_any_size_are_the_same_keys(arrow_type: pa.DataType) -> None:
    assert np.array_equal(digests("s", pa.array([1, 100], arrow_type)), digests("s", pa.array([1, 100])))


def test_a_string_with_a_nul_is_not_cut_there() -> None:
    assert len(np.unique(digests("s", pa.array(["a", "a\0b", "a\0c"])), axis=0)) == 3


def test_no_keys_have_no_digests() -> None:
    assert digests("s", pa.array([], pa.string())).shape == (0, 20)


def test_keys_that_are_null_are_refused_with_their_number() -> None:
    with pytest.raises(ValueError, match="2 of 3 keys are null"):
        digests("s", pa.array([None, "a", None]))


@pytest.mark.parametrize("keys", [pa.array([1.5]), pa.array([True]), pa.array([[1]]), pa.nulls(0)])
def test_keys_of_a_type_that_no_record_has_are_refused(keys: pa.Array) -> None:
    with pytest.raises(TypeError, match="integers, strings or binary"):
        digests("s", keys)
