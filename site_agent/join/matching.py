"""Where numbers lie among others, five times as fast as a join of polars finds it. Knows no rows and no columns."""

import numpy as np
from numpy.typing import NDArray

from geotrain.wire.words import compiled, inlined

NOWHERE = -1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing (Knuth): the highest bits of a product tell keys apart
_BITS = 64


def find(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int32], bool]:
    """Return where each of `wanted` lies in `keys`, or NOWHERE, (wanted,); and whether no key comes twice.

    Of a key that comes twice one place is returned.
    """
    num_bits = max(1, (2 * len(keys) - 1).bit_length())  # at most half full
    table = np.full(1 << num_bits, NOWHERE, np.int32)
    found = np.empty(len(wanted), np.int32)
    # Compiled once, for arrays that may be written to or not.
    keys, wanted = (np.require(numbers, np.int64, "C").view() for numbers in (keys, wanted))
    keys.flags.writeable = wanted.flags.writeable = False
    is_unique = _fill(keys, table, np.uint64(_BITS - num_bits))
    _find(keys, wanted, table, np.uint64(_BITS - num_bits), found)
    return found, bool(is_unique)


@inlined
def _place(key, keys, table, shift):  # type: ignore[no-untyped-def]
    # Where the key is in the table, or the free place where it would be.
    at = np.int64(np.uint64(key) * _GOLDEN >> shift)
    while table[at] != NOWHERE and keys[table[at]] != key:
        at = (at + 1) & (len(table) - 1)
    return at


@compiled
def _fill(keys, table, shift):  # type: ignore[no-untyped-def]
    is_unique = True
    for i in range(len(keys)):
        at = _place(keys[i], keys, table, shift)
        is_unique &= table[at] == NOWHERE
        table[at] = i
    return is_unique


@compiled
def _find(keys, wanted, table, shift, found):  # type: ignore[no-untyped-def]
    for i in range(len(wanted)):
        found[i] = table[_place(wanted[i], keys, table, shift)]
