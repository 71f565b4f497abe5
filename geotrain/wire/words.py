"""Compiled access to bytes: words out of arrays of bytes, and into them. Refuses to know what the bytes are.

Nothing here checks bounds: callers have, and leave `SLACK_BYTES` behind what they ask for.
"""

from typing import Any

import numpy as np
from numba import njit

SLACK_BYTES = 16  # whole words are read and written where only some of their bytes are meant

_1, _2, _3, _4, _5, _6, _7 = (np.uint64(n) for n in range(1, 8))
_B1, _B2, _B3, _B4, _B5, _B6, _B7 = (np.uint64(8 * n) for n in range(1, 8))

# Without reference counts, which made the kernel ten times slower: arrays are its callers', it makes none of its own.
# What is only called by compiled code needs no wrappers for others, which took as long to compile as itself.
_OPTIONS: Any = {"cache": True, "nogil": True, "_nrt": False, "no_cfunc_wrapper": True}
_INLINED: Any = {**_OPTIONS, "forceinline": True, "no_cpython_wrapper": True}
compiled = njit(**_OPTIONS)
inlined = njit(**_INLINED)


# Unsigned indices skip the test for negative ones, and then LLVM makes one load of the eight.
@inlined
def big_endian_64(data, at):  # type: ignore[no-untyped-def]
    """Returns the 8 bytes from `at` on, the first one highest."""
    i = np.uint64(at)
    return (
        np.uint64(data[i]) << _B7
        | np.uint64(data[i + _1]) << _B6
        | np.uint64(data[i + _2]) << _B5
        | np.uint64(data[i + _3]) << _B4
        | np.uint64(data[i + _4]) << _B3
        | np.uint64(data[i + _5]) << _B2
        | np.uint64(data[i + _6]) << _B1
        | np.uint64(data[i + _7])
    )


@inlined
def little_endian_64(data, at):  # type: ignore[no-untyped-def]
    """Returns the 8 bytes from `at` on, the first one lowest."""
    i = np.uint64(at)
    return (
        np.uint64(data[i])
        | np.uint64(data[i + _1]) << _B1
        | np.uint64(data[i + _2]) << _B2
        | np.uint64(data[i + _3]) << _B3
        | np.uint64(data[i + _4]) << _B4
        | np.uint64(data[i + _5]) << _B5
        | np.uint64(data[i + _6]) << _B6
        | np.uint64(data[i + _7]) << _B7
    )


@inlined
def big_endian_32(data, at):  # type: ignore[no-untyped-def]
    """Returns the 4 bytes from `at` on as a number that is not negative."""
    i = np.uint64(at)
    return np.int64(
        np.uint64(data[i]) << _B3
        | np.uint64(data[i + _1]) << _B2
        | np.uint64(data[i + _2]) << _B1
        | np.uint64(data[i + _3])
    )


@inlined
def store_64(target, to, word):  # type: ignore[no-untyped-def]
    """Puts 8 bytes from `to` on, the lowest one first."""
    i = np.uint64(to)
    target[i] = np.uint8(word)
    target[i + _1] = np.uint8(word >> _B1)
    target[i + _2] = np.uint8(word >> _B2)
    target[i + _3] = np.uint8(word >> _B3)
    target[i + _4] = np.uint8(word >> _B4)
    target[i + _5] = np.uint8(word >> _B5)
    target[i + _6] = np.uint8(word >> _B6)
    target[i + _7] = np.uint8(word >> _B7)


@inlined
def copy_words(source, at, target, to, num_bytes):  # type: ignore[no-untyped-def]
    """Copies `num_bytes` by words: up to 7 bytes behind them are copied too."""
    for done in range(0, num_bytes, 8):
        store_64(target, to + done, little_endian_64(source, at + done))


@inlined
def copy_digest(source, at, target, to):  # type: ignore[no-untyped-def]
    """Copies 20 bytes, and no more."""
    store_64(target, to, little_endian_64(source, at))
    store_64(target, to + 8, little_endian_64(source, at + 8))
    store_64(target, to + 12, little_endian_64(source, at + 12))
