import numpy as np

from geotrain.view.cut import partitions
from geotrain.view.scan import Scan
from geotrain.view.scanned import ScannedSet


def scanned(view, set_name, num_rows=50):
    for key in range(num_rows):
        view.put(set_name, key, {"n": key})
    scan = Scan(view.config, set_name, {"n": "int64"}, metadata=("__digest", "__generation"))
    return scan, ScannedSet.read(scan)


def test_the_fingerprints_are_those_that_were_folded_while_it_was_scanned(view, set_name):
    view.put(set_name, 3, {"n": 3})
    scan, whole = scanned(view, set_name, 5)
    assert sorted(whole.generations.tolist()) == [1, 1, 1, 1, 2]
    assert whole.digests.tobytes() == b"".join(whole.table["__digest"].to_pylist())
    assert (whole.fingerprints() == scan.fingerprints).all()


def test_rows_of_a_partition_can_be_listed_and_dropped(view, set_name):
    _, whole = scanned(view, set_name)
    chosen = int(partitions(whole.digests)[10])
    listed = whole.rows_in([chosen])
    left = whole.without(listed.digests)
    assert len(listed.digests) + left.table.num_rows == 50
    assert chosen not in partitions(left.digests)
    assert np.flatnonzero(left.fingerprints() != whole.fingerprints()).tolist() == [chosen]
    assert whole.without(listed.digests[:0]).table.equals(whole.table)
