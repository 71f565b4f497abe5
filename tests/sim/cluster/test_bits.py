"""Operations on bits, against the same on a string of zeros and ones."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from geotrain.wire import packing
from geotrain.wire.codes import ResultCode
from geotrain.wire.particles import decode_value
from sim.cluster.values import bits
from sim.cluster.values.bits import (
    CREATE_ONLY,
    FROM_FRONT,
    GROW_ONLY,
    NO_FAIL,
    PARTIAL,
    SATURATE,
    SHRINK_ONLY,
    SIGNED,
    UPDATE_ONLY,
    WRAP,
)
from sim.cluster.values.refused import Refused

RESIZE, INSERT, REMOVE, SET, OR, XOR, AND, NOT, LEFT, RIGHT, ADD, SUBTRACT, SET_INTEGER = range(13)
GET, COUNT, SCAN_LEFT, SCAN_RIGHT, GET_INTEGER = range(50, 55)

blobs = st.binary(min_size=1, max_size=6)
offsets = st.integers(-48, 47)
sizes = st.integers(1, 48)


def read(blob: bytes, *operation: Any) -> Any:
    return decode_value(*bits.read(blob, packing.pack(list(operation))))


def modify(blob: bytes | None, *operation: Any) -> bytes | None:
    return bits.modify(blob, packing.pack(list(operation)))


def code_of(perform: Callable[..., Any], *arguments: Any) -> ResultCode:
    with pytest.raises(Refused) as refusal:
        perform(*arguments)
    return refusal.value.code


def text_of(blob: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in blob)


def blob_of(text: str) -> bytes:
    return bytes(int(text[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(text), 8))


def window(blob: bytes, offset: int, size: int) -> tuple[str, str, str]:
    """The bits before, in and after a window that lies in the blob."""
    text = text_of(blob)
    start = offset + len(text) if offset < 0 else offset
    assume(start >= 0 and start + size <= len(text))
    return text[:start], text[start : start + size], text[start + size :]


@given(blob=blobs, offset=offsets, size=sizes)
def test_a_window_is_read_counted_and_scanned(blob: bytes, offset: int, size: int) -> None:
    _, inside, _ = window(blob, offset, size)
    assert read(blob, GET, offset, size) == blob_of(inside)
    assert read(blob, COUNT, offset, size) == inside.count("1")
    for bit in (False, True):
        assert read(blob, SCAN_LEFT, offset, size, bit) == inside.find(str(int(bit)))
        assert read(blob, SCAN_RIGHT, offset, size, bit) == inside.rfind(str(int(bit)))
    value = int(inside, 2)
    assert read(blob, GET_INTEGER, offset, size) == value
    assert read(blob, GET_INTEGER, offset, size, SIGNED) == value - (int(inside[0]) << size)


@given(blob=blobs, offset=offsets, size=sizes, value=st.binary(min_size=6, max_size=6), shift=st.integers(0, 60))
def test_a_window_is_overwritten_and_nothing_else(
    blob: bytes, offset: int, size: int, value: bytes, shift: int
) -> None:
    before, inside, after = window(blob, offset, size)
    given_bits = text_of(value)[:size]
    pairs = list(zip(inside, given_bits, strict=True))
    expected = {
        (SET, value): given_bits,
        (OR, value): "".join("1" if "1" in pair else "0" for pair in pairs),
        (XOR, value): "".join("01"[a != b] for a, b in pairs),
        (AND, value): "".join("01"[a == b == "1"] for a, b in pairs),
        (NOT,): "".join("10"[int(bit)] for bit in inside),
        (LEFT, shift): (inside + "0" * shift)[-size:] if shift < size else "0" * size,
        (RIGHT, shift): ("0" * shift + inside)[:size],
    }
    for (code, *argument), changed in expected.items():
        assert modify(blob, code, offset, size, *argument) == blob_of(before + changed + after)


@given(blob=blobs, offset=offsets, size=sizes, value=st.integers(0, (1 << 48) - 1), is_signed=st.booleans())
def test_sums_fit_wrap_saturate_or_fail(blob: bytes, offset: int, size: int, value: int, is_signed: bool) -> None:
    before, inside, after = window(blob, offset, size)
    value %= 1 << size
    low, high = (-(1 << (size - 1)), (1 << (size - 1)) - 1) if is_signed else (0, (1 << size) - 1)

    def number(bits_: int) -> int:
        return bits_ - (1 << size) if bits_ > high else bits_

    def stored(total: int) -> bytes:
        return blob_of(before + f"{total % (1 << size):0{size}b}" + after)

    flag = SIGNED if is_signed else 0
    for code, sign in ((ADD, 1), (SUBTRACT, -1)):
        total = number(int(inside, 2)) + sign * number(value)
        assert modify(blob, code, offset, size, value, 0, flag | WRAP) == stored(total)
        assert modify(blob, code, offset, size, value, 0, flag | SATURATE) == stored(min(max(total, low), high))
        if low <= total <= high:
            assert modify(blob, code, offset, size, value, 0, flag) == stored(total)
        else:
            assert code_of(modify, blob, code, offset, size, value, 0, flag) == ResultCode.OP_NOT_APPLICABLE
            assert modify(blob, code, offset, size, value, NO_FAIL, flag) == blob
    assert modify(blob, SET_INTEGER, offset, size, value) == stored(value)


@given(blob=blobs, size=st.integers(0, 9))
def test_a_blob_grows_and_shrinks_at_either_end(blob: bytes, size: int) -> None:
    assert modify(blob, RESIZE, size) == blob[:size].ljust(size, b"\0")
    assert modify(blob, RESIZE, size, 0, FROM_FRONT) == blob[-size:].rjust(size, b"\0")[:size]
    for forbidden, is_forbidden in ((GROW_ONLY, size < len(blob)), (SHRINK_ONLY, size > len(blob))):
        if is_forbidden:
            assert code_of(modify, blob, RESIZE, size, 0, forbidden) == ResultCode.PARAMETER
            assert modify(blob, RESIZE, size, NO_FAIL, forbidden) == blob


@given(blob=blobs, offset=st.integers(-6, 9), value=blobs, size=st.integers(1, 6))
def test_bytes_are_inserted_and_removed(blob: bytes, offset: int, value: bytes, size: int) -> None:
    start = offset + len(blob) if offset < 0 else offset
    if start < 0:
        assert code_of(modify, blob, INSERT, offset, value) == ResultCode.PARAMETER
        return
    assert modify(blob, INSERT, offset, value) == blob[:start].ljust(start, b"\0") + value + blob[start:]
    if start + size <= len(blob):
        assert modify(blob, REMOVE, offset, size) == blob[:start] + blob[start + size :]
    else:
        assert code_of(modify, blob, REMOVE, offset, size) == ResultCode.PARAMETER
        assert modify(blob, REMOVE, offset, size, NO_FAIL) == blob
    if start < len(blob):
        assert modify(blob, REMOVE, offset, size, PARTIAL) == blob[:start] + blob[start + size :]


def test_a_window_past_the_end_is_refused_or_cut() -> None:
    blob = b"\xff\xff"
    for operation in ([SET, 12, 8, b"\0"], [SET, 16, 1, b"\0"], [NOT, 9, 8], [ADD, 9, 8, 1], [SET_INTEGER, 9, 8, 1]):
        assert code_of(modify, blob, *operation) == ResultCode.OP_NOT_APPLICABLE
        assert modify(blob, *operation, NO_FAIL) == blob
    for operation in ([GET, 12, 8], [COUNT, 16, 1], [SCAN_LEFT, 15, 2, True], [GET_INTEGER, 9, 8]):
        assert code_of(read, blob, *operation) == ResultCode.OP_NOT_APPLICABLE
    assert modify(blob, SET, 12, 8, b"\x0f", PARTIAL) == b"\xff\xf0"
    assert modify(blob, NOT, 12, 8, PARTIAL) == b"\xff\xf0"


def test_only_resize_and_insert_make_a_blob() -> None:
    assert modify(None, RESIZE, 2) == b"\0\0"
    assert modify(None, INSERT, 1, b"a") == b"\0a"
    assert code_of(modify, None, SET, 0, 1, b"\1") == ResultCode.BIN_NOT_FOUND
    assert modify(None, SET, 0, 1, b"\1", NO_FAIL) is None
    assert code_of(modify, None, RESIZE, 2, UPDATE_ONLY) == ResultCode.BIN_NOT_FOUND
    assert code_of(modify, b"a", RESIZE, 2, CREATE_ONLY) == ResultCode.BIN_EXISTS


@pytest.mark.parametrize(
    "operation",
    [
        [],
        [99],
        [13],
        ["a"],
        [SET],
        [SET, 0, 0, b"a"],
        [SET, 0, 16, b"a"],
        [SET, 0, 1, "a"],
        [NOT, "a", 1],
        [LEFT, 0, 1, -1],
    ],
)
def test_what_is_no_operation_on_bits_is_a_wrong_parameter(operation: list[Any]) -> None:
    assert code_of(modify, b"abc", *operation) == ResultCode.PARAMETER


@pytest.mark.parametrize("operation", [[INSERT, 1 << 40, b"a"], [LEFT, 0, 8, 1 << 62], [RESIZE, 1 << 40]])
def test_no_operation_takes_memory_without_measure(operation: list[Any]) -> None:
    with contextlib.suppress(Refused):
        assert len(modify(b"a", *operation) or b"") <= 1


@given(operation=st.binary(max_size=20) | st.lists(st.integers(-9, 9) | st.binary(max_size=3)).map(packing.pack))
def test_garbage_is_refused_and_never_crashes(operation: bytes) -> None:
    for perform in (bits.read, bits.modify):
        with contextlib.suppress(Refused):
            perform(b"abc", operation)
