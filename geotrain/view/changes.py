"""Brings a set that was read at an earlier cut up to a later one, without reading it all again."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from geotrain.view.config import ViewConfig
from geotrain.view.cut import Cut, partitions
from geotrain.view.layout import DIGEST, GENERATION
from geotrain.view.scan import Scan
from geotrain.view.scanned import ScannedSet

IDENTITY = (DIGEST, GENERATION)


def refresh(
    config: ViewConfig, set_name: str, columns: Mapping[str, str], held: ScannedSet, *, since: Cut, cut: Cut
) -> ScannedSet:
    """Returns the set at `cut`, given what it held at `since` in the same columns.

    The rows that were written between the cuts are read. That does not tell which were deleted, or written again after
    `cut`: so a scan without columns gives the set's fingerprints, and partitions in which they differ are read whole.
    """
    changed = ScannedSet.read(Scan(config, set_name, columns, changed_since=since, cut=cut, metadata=IDENTITY))
    merged = _merged(held.without(changed.digests), changed)
    proof = Scan(config, set_name, {}, cut=cut)
    for _ in proof.reader():
        pass
    stale = np.flatnonzero(merged.fingerprints() != proof.fingerprints).tolist()
    if not stale:
        return merged
    read_anew = ScannedSet.read(Scan(config, set_name, columns, cut=cut, partitions=stale, metadata=IDENTITY))
    is_right = ~np.isin(partitions(merged.digests), stale)
    return _merged(ScannedSet(merged.table.filter(pa.array(is_right))), read_anew)


def _merged(one: ScannedSet, other: ScannedSet) -> ScannedSet:
    return ScannedSet(pa.concat_tables([one.table, other.table])).in_order()
