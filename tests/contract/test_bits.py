"""Blobs as bits through the official client's bitwise operations."""

from typing import Any

import aerospike
import pytest
from aerospike import exception
from aerospike_helpers.operations import bitwise_operations as bits

from tests.conftest import ClusterUnderTest

Key = tuple[str, str, str]
FAIL, SATURATE, WRAP = aerospike.BIT_OVERFLOW_FAIL, aerospike.BIT_OVERFLOW_SATURATE, aerospike.BIT_OVERFLOW_WRAP

pytestmark = pytest.mark.filterwarnings("ignore:value_byte_size is deprecated:DeprecationWarning")


@pytest.fixture
def key(cluster: ClusterUnderTest, set_name: str) -> Key:
    return cluster.namespace, set_name, "k"


def written(client: Any, key: Key, make: Any, *arguments: Any, **more: Any) -> bytes:
    """The blob 01 42 03 04 05 after an operation."""
    client.put(key, {"b": bytes.fromhex("0142030405")})
    client.operate(key, [make("b", *arguments, **more)])
    blob: bytes = client.get(key)[2]["b"]
    return blob


@pytest.mark.parametrize(
    ("make", "arguments", "expected"),
    [
        (bits.bit_get, (9, 5), b"\x80"),
        (bits.bit_get, (-8, 8), b"\x05"),
        (bits.bit_count, (20, 4), 2),
        (bits.bit_lscan, (24, 8, True), 5),
        (bits.bit_lscan, (0, 7, True), -1),
        (bits.bit_rscan, (32, 8, True), 7),
        (bits.bit_get_int, (8, 16, False), 0x4203),
        (bits.bit_get_int, (9, 2, True), -2),
    ],
)
def test_bits_are_read(client: Any, key: Key, make: Any, arguments: Any, expected: Any) -> None:
    client.put(key, {"b": bytes.fromhex("0142030405")})
    assert client.operate(key, [make("b", *arguments)])[2] == {"b": expected}


@pytest.mark.parametrize(
    ("make", "arguments", "expected"),
    [
        (bits.bit_set, (13, 3, 1, b"\xe0"), "0147030405"),
        (bits.bit_or, (17, 6, 1, b"\xa8"), "0142570405"),
        (bits.bit_xor, (17, 6, 1, b"\xac"), "0142550405"),
        (bits.bit_and, (23, 9, 2, b"\x3c\x80"), "0142020005"),
        (bits.bit_not, (25, 6), "0142037a05"),
        (bits.bit_lshift, (32, 8, 3), "0142030428"),
        (bits.bit_rshift, (0, 9, 1), "00c2030405"),
        (bits.bit_add, (24, 16, 128, False, FAIL), "0142030485"),
        (bits.bit_subtract, (24, 16, 128, False, FAIL), "0142030385"),
        (bits.bit_subtract, (0, 8, 2, False, WRAP), "ff42030405"),
        (bits.bit_subtract, (0, 8, 2, False, SATURATE), "0042030405"),
        (bits.bit_set_int, (1, 8, 127), "3fc2030405"),
        (bits.bit_insert, (1, 2, b"\xff\xc7"), "01ffc742030405"),
        (bits.bit_remove, (0, 2), "030405"),
        (bits.bit_resize, (3,), "014203"),
        (bits.bit_resize, (7,), "01420304050000"),
    ],
)
def test_bits_are_changed(client: Any, key: Key, make: Any, arguments: Any, expected: str) -> None:
    assert written(client, key, make, *arguments).hex() == expected


def test_a_blob_is_resized_at_its_front(client: Any, key: Key) -> None:
    front = aerospike.BIT_RESIZE_FROM_FRONT
    assert written(client, key, bits.bit_resize, 3, resize_flags=front).hex() == "030405"
    assert written(client, key, bits.bit_resize, 6, resize_flags=front).hex() == "000142030405"


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (bits.bit_get("b", 36, 8), exception.OpNotApplicable),
        (bits.bit_not("b", 36, 8), exception.OpNotApplicable),
        (bits.bit_subtract("b", 0, 8, 2, False, FAIL), exception.OpNotApplicable),
        (bits.bit_remove("b", 9, 1), exception.InvalidRequest),
        (bits.bit_not("absent", 0, 1), exception.BinNotFound),  # type: ignore[attr-defined]
        (bits.bit_not("n", 0, 1), exception.BinIncompatibleType),
        (bits.bit_resize("b", 9, {"bit_write_flags": aerospike.BIT_WRITE_CREATE_ONLY}), exception.BinExistsError),
    ],
)
def test_what_can_not_be_done_changes_nothing(client: Any, key: Key, operation: Any, error: type[Exception]) -> None:
    before = {"b": bytes.fromhex("0142030405"), "n": 5}
    client.put(key, before)
    with pytest.raises(error):
        client.operate(key, [bits.bit_resize("b", 6), operation] if operation["bin"] != "b" else [operation])
    assert client.get(key)[2] == before


def test_a_window_past_the_end_is_cut_where_that_is_allowed(client: Any, key: Key) -> None:
    partial = {"bit_write_flags": aerospike.BIT_WRITE_PARTIAL}
    assert written(client, key, bits.bit_not, 36, 8, partial).hex() == "014203040a"
