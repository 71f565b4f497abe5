"""Cuts: what proves that all sites read the same rows, and what makes it so where they did not.

Pure: arrays in, arrays out. Knows neither sockets nor messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from geotrain.wire.partitions import NUM_PARTITIONS

Digests = NDArray[np.uint8]  # (rows, 20)
Generations = NDArray[np.uint32]  # (rows,)
Fingerprints = NDArray[np.uint64]  # (4096,), one a partition


@dataclass(frozen=True, slots=True)
class Cut:
    """A point of the view: rows whose last update is later are not in it.

    until_ns: nanoseconds since the Unix epoch, on the clock of the cluster.
    """

    until_ns: int

    @classmethod
    def before(cls, now_s: float, skew_margin_s: float) -> "Cut":
        """Returns the newest cut in which all nodes see all writes, while their clocks are at most the margin apart."""
        return cls(int((now_s - skew_margin_s) * 1e9))


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows a site read: (rows, 20) digests and the generation of each.

    Below one cut these two name a row's content. A record that was deleted and made anew has an old generation again,
    but also a later update, which the cut leaves out.
    """

    digests: Digests
    generations: Generations

    @classmethod
    def none(cls) -> "Rows":
        return cls(np.empty((0, 20), np.uint8), np.empty(0, np.uint32))


def partitions(digests: Digests) -> NDArray[np.int64]:
    """Returns the partition of each digest, (rows,): the low 12 bits of its first two bytes, as in Aerospike."""
    return (digests[:, 0].astype(np.int64) | digests[:, 1].astype(np.int64) << 8) & (NUM_PARTITIONS - 1)


def differing(by_site: Mapping[str, Mapping[str, Fingerprints]]) -> dict[str, list[int]]:
    """Returns, for each set in which sites differ, the partitions that do. Empty: proven equal everywhere.

    by_site: site -> set -> fingerprints; a set that a site does not name is empty there.
    """
    empty = np.zeros(NUM_PARTITIONS, np.uint64)
    found = {}
    for name in _names(by_site):
        stacked = np.stack([sets.get(name, empty) for sets in by_site.values()])
        if unequal := np.flatnonzero((stacked != stacked[0]).any(axis=0)).tolist():
            found[name] = unequal
    return found


def reconcile(by_site: Mapping[str, Mapping[str, Rows]]) -> dict[str, Digests]:
    """Returns, for each set, the digests that every site must drop: those not read in the same generation everywhere.

    by_site: site -> set -> the rows it read in the partitions that differ.
    """
    drop = {}
    for name in _names(by_site):
        sites = [sets.get(name, Rows.none()) for sets in by_site.values()]
        same = reduce(np.intersect1d, [_row_keys(rows) for rows in sites])
        kept = np.ascontiguousarray(same.view(np.uint8).reshape(-1, 24)[:, :20])
        read = np.concatenate([_keys(rows.digests) for rows in sites])
        drop[name] = np.setdiff1d(read, _keys(kept)).view(np.uint8).reshape(-1, 20)
    return drop


def among(digests: Digests, others: Digests) -> NDArray[np.bool_]:
    """Returns for each of `digests` whether `others` hold it, (rows,)."""
    return np.isin(_keys(digests), _keys(others))


def _names(by_site: Mapping[str, Mapping[str, object]]) -> list[str]:
    return sorted({name for sets in by_site.values() for name in sets})


def _keys(fixed: Digests) -> NDArray[np.bytes_]:
    # Strings of fixed length can be sorted and compared; NumPy ignores zeros at their end, which does no harm here.
    width = fixed.shape[1]
    return np.ascontiguousarray(fixed).view(f"S{width}").reshape(-1)


def _row_keys(rows: Rows) -> NDArray[np.bytes_]:
    generations = rows.generations.astype("<u4").view(np.uint8).reshape(-1, 4)
    return _keys(np.concatenate([rows.digests, generations], axis=1))
