"""Fingerprints: one 64-bit number a partition, equal for equal rows whatever their order. Knows nothing of cuts."""

import numpy as np
from numpy.typing import NDArray

from geotrain.wire.codes import DIGEST_BYTES
from geotrain.wire.partitions import NUM_PARTITIONS
from geotrain.wire.words import compiled, inlined, little_endian_64

_27, _30, _31, _32 = (np.uint64(n) for n in (27, 30, 31, 32))
_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def fingerprints(digests: NDArray[np.uint8], generations: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Returns the sum of the rows' hashes in each partition, (4096,), from (rows, 20) digests and (rows,) generations.

    It guards against rows that differ by accident, not against a forger.
    """
    sums = np.zeros(NUM_PARTITIONS, np.uint64)
    flat, each = np.ascontiguousarray(digests).reshape(-1), np.asarray(generations, np.uint32)[:]
    flat.flags.writeable = each.flags.writeable = False  # as arrays of Arrow are: compiled only once
    _fold(flat, each, sums)
    return sums


@compiled
def _fold(digests, generations, sums):  # type: ignore[no-untyped-def]
    for row in range(len(generations)):
        at = row * DIGEST_BYTES
        sums[partition_at(digests, at)] += row_hash(digests, at, generations[row])


@inlined
def partition_at(digests, at):  # type: ignore[no-untyped-def]
    """Returns the partition of the digest at `at`."""
    i = np.uint64(at)
    return (np.int64(digests[i]) | np.int64(digests[i + np.uint64(1)]) << 8) & (NUM_PARTITIONS - 1)


@inlined
def row_hash(digests, at, generation):  # type: ignore[no-untyped-def]
    """Returns 64 bits that name a row: its 20-byte digest at `at`, which is uniform already, and its generation.

    Mixed by splitmix64's finalizer (Steele, Lea and Flood, 2014), so that sums of them tell sets of rows apart.
    """
    last = little_endian_64(digests, at + 12) >> _32
    word = little_endian_64(digests, at) ^ little_endian_64(digests, at + 8) ^ last ^ np.uint64(generation) << _32
    word = word + _GOLDEN
    word = (word ^ (word >> _30)) * _MIX_1
    word = (word ^ (word >> _27)) * _MIX_2
    return word ^ (word >> _31)
