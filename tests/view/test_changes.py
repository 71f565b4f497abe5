import time

import pyarrow.compute as pc
import pytest

from geotrain.view.changes import refresh
from geotrain.view.cut import Cut
from geotrain.view.scan import Scan
from geotrain.view.scanned import ScannedSet
from tests.view.test_scan import wait_for_the_next_millisecond

COLUMNS = {"n": "int64"}


def read(view, set_name, cut):
    return ScannedSet.read(Scan(view.config, set_name, COLUMNS, cut=cut, metadata=("__digest", "__generation")))


def cut_now():
    cut = Cut(time.time_ns())
    wait_for_the_next_millisecond(cut)
    return cut


@pytest.fixture
def earlier(view, set_name):
    for key in range(60):
        view.put(set_name, key, {"n": key})
    return cut_now()


def delete(view, set_name, key):
    view.client.remove(view.key(set_name, key), policy={"durable_delete": view.consistency == "strong"})


def test_a_set_brought_up_to_a_later_cut_is_what_a_full_scan_of_that_cut_gives(view, set_name, earlier):
    held = read(view, set_name, earlier)
    view.put(set_name, 3, {"n": 333})
    view.put(set_name, "new", {"n": 100})
    delete(view, set_name, 7)
    delete(view, set_name, 8)
    view.put(set_name, 8, {"n": 888})
    later = cut_now()
    view.put(set_name, 9, {"n": 999})  # its row of the cut is gone
    refreshed = refresh(view.config, set_name, COLUMNS, held, since=earlier, cut=later)
    whole = read(view, set_name, later)
    assert refreshed.table.equals(whole.table)
    assert (refreshed.fingerprints() == whole.fingerprints()).all()
    numbers = set(refreshed.table["n"].to_pylist())
    assert numbers == set(range(60)) - {3, 7, 8, 9} | {333, 888, 100}


def test_where_nothing_was_deleted_only_what_changed_is_read_with_its_columns(view, set_name, earlier, monkeypatch):
    held = read(view, set_name, earlier)
    view.put(set_name, 3, {"n": 333})
    later = cut_now()
    scans = []

    class Noted(Scan):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            scans.append(self)

    monkeypatch.setattr("geotrain.view.changes.Scan", Noted)
    refreshed = refresh(view.config, set_name, COLUMNS, held, since=earlier, cut=later)
    assert [(scan.schema.names[:-2], scan.num_rows) for scan in scans] == [(["n"], 1), ([], 60)]
    assert pc.sum(refreshed.table["n"]).as_py() == sum(range(60)) + 330
