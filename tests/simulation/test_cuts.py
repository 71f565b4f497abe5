"""Cuts with writers running through all of it: every site ends with byte-identical rows."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import numpy as np
import pytest

from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from geotrain.view.cut import Cut, Rows, among, differing, partitions, reconcile
from geotrain.view.scan import Scan
from geotrain.view.scanned import ScannedSet
from geotrain.wire.fingerprints import fingerprints
from sim.control import Control
from tests.conftest import simulated_cluster
from tests.sim.cluster.wire_client import WireClient
from tests.simulation.cut_histories import Table, read_by_sites, rows_of

# Rows that no writer touches: of the others, a scan that takes long may find none as it was at the cut.
NUM_LEFT_ALONE = 10


def reconciled(tables: list[Table]) -> list[Table]:
    """What the sites keep, as the coordinator decides it from fingerprints and the rows of what differs."""
    rows = [rows_of(table) for table in tables]
    by_site = {f"site{i}": {"s": fingerprints(each.digests, each.generations)} for i, each in enumerate(rows)}
    listed = differing(by_site).get("s", [])
    compared = {f"site{i}": {"s": only(each, listed)} for i, each in enumerate(rows)}
    drop = reconcile(compared)["s"]
    kept = []
    for table, each in zip(tables, rows, strict=True):
        gone = among(each.digests, drop)
        kept.append({digest: row for (digest, row), out in zip(table.items(), gone, strict=True) if not out})
    return kept


def only(rows: Rows, listed: list[int]) -> Rows:
    inside = np.isin(partitions(rows.digests), listed)
    return Rows(rows.digests[inside], rows.generations[inside])


def test_in_200_histories_every_site_ends_with_the_same_bytes_and_no_row_is_dropped_needlessly() -> None:
    num_reconciled = 0
    for seed in range(200):
        tables = read_by_sites(seed)
        kept = reconciled(tables)
        assert all(table == kept[0] for table in kept), f"seed {seed}"
        assert kept[0] == dict(set.intersection(*(set(table.items()) for table in tables))), f"seed {seed}"
        num_reconciled += any(table != tables[0] for table in tables)
    assert num_reconciled > 100  # else they prove nothing


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    """Of a cluster whose clocks differ: writes of some masters are dated before the cut while it is read."""
    with simulated_cluster(tmp_path_factory.mktemp("cuts")) as hosts:
        with WireClient(hosts[0]) as client, Control(client.info("sim-control")) as control:
            control.order("skew:node=jfk;ms=-400")
        with connect(ViewConfig(hosts=hosts, rack=1)) as view:
            yield view


@pytest.mark.parametrize("seed", range(50))
def test_sites_that_scan_while_rows_are_rewritten_end_with_the_same_table(view: View, seed: int) -> None:
    name = f"cut{seed}"
    for key in range(100):
        view.put(name, key, {"n": key, "m": 0})
    ended = threading.Event()

    def write(number: int) -> int:
        random = Random(f"{seed}/{number}")
        num_writes = 0
        while not ended.is_set():
            num_writes += 1
            view.put(name, random.randrange(NUM_LEFT_ALONE, 120), {"n": num_writes, "m": random.getrandbits(63)})
        return num_writes

    def scan(rack: int) -> ScannedSet:
        config = ViewConfig(hosts=view.config.hosts, rack=rack)
        columns = {"n": "int64", "m": "int64"}
        return ScannedSet.read(Scan(config, name, columns, cut=cut, metadata=("__digest", "__generation")))

    with ThreadPoolExecutor(5) as pool:
        writers = [pool.submit(write, number) for number in range(2)]
        cut = Cut.before(time.time(), 0.0)
        read = {f"site{rack}": each for rack, each in zip((1, 2, 3), pool.map(scan, (1, 2, 3)), strict=True)}
        ended.set()
        assert all(writer.result() for writer in writers)
    listed = differing({site: {name: each.fingerprints()} for site, each in read.items()}).get(name, [])
    drop = reconcile({site: {name: each.rows_in(listed)} for site, each in read.items()})[name]
    kept = [each.without(drop).table for each in read.values()]
    assert all(table.equals(kept[0]) for table in kept)
    assert kept[0].num_rows >= NUM_LEFT_ALONE
