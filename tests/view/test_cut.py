import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geotrain.view.cut import Cut, Rows, among, differing, partitions, reconcile
from geotrain.wire.fingerprints import fingerprints
from geotrain.wire.partitions import NUM_PARTITIONS

# Few distinct digests, some of them ending in zeros (which NumPy's strings hide), in few partitions.
DIGESTS = st.builds(
    lambda first, last: bytes([first, 0x30]) + bytes(16) + bytes([last, 0]), st.integers(0, 5), st.integers(0, 2)
)
TABLES = st.dictionaries(DIGESTS, st.integers(0, 3), max_size=12)


def rows_of(table: dict[bytes, int]) -> Rows:
    digests = np.frombuffer(b"".join(table), np.uint8).reshape(-1, 20)
    return Rows(digests, np.array(list(table.values()), np.uint32))


def table_of(rows: Rows) -> dict[bytes, int]:
    return dict(zip(map(bytes, rows.digests), rows.generations.tolist(), strict=True))


def fingerprints_of(table: dict[bytes, int]) -> np.ndarray:
    rows = rows_of(table)
    return fingerprints(rows.digests, rows.generations)


def test_a_cut_ends_before_now_by_the_margin():
    assert Cut.before(1.5, 0.25) == Cut(1_250_000_000)


def test_a_partition_is_the_low_twelve_bits_of_a_digest():
    digest = bytes.fromhex("b747f585") + bytes(16)
    assert partitions(rows_of({digest: 1}).digests).tolist() == [0x7B7]


@given(st.lists(TABLES, min_size=1, max_size=4))
def test_sites_differ_exactly_in_the_partitions_whose_rows_differ(tables):
    def of_partition(table, partition):
        return {k: g for k, g in table.items() if partitions(rows_of({k: g}).digests)[0] == partition}

    found = differing({f"site{i}": {"legs": fingerprints_of(table)} for i, table in enumerate(tables)})
    touched = {int(p) for table in tables for p in partitions(rows_of(table).digests)}
    unequal = [p for p in sorted(touched) if any(of_partition(t, p) != of_partition(tables[0], p) for t in tables)]
    assert found.get("legs", []) == unequal


def test_a_set_that_a_site_does_not_name_is_empty_there():
    by_site = {"ewr": {"legs": np.zeros(NUM_PARTITIONS, np.uint64)}, "jfk": {}}
    assert differing(by_site) == {}
    by_site["ewr"]["legs"][7] = 1
    assert differing(by_site) == {"legs": [7]}


@given(st.lists(TABLES, min_size=1, max_size=4))
def test_after_reconciliation_every_site_holds_the_same_rows_and_none_is_dropped_needlessly(tables):
    by_site = {f"site{i}": {"legs": rows_of(table)} for i, table in enumerate(tables)}
    drop = reconcile(by_site)["legs"]
    kept = []
    for sets in by_site.values():
        keep = ~among(sets["legs"].digests, drop)
        kept.append(table_of(Rows(sets["legs"].digests[keep], sets["legs"].generations[keep])))
    common = dict(set.intersection(*(set(table.items()) for table in tables)))
    assert all(table == common for table in kept)


def test_the_drop_list_names_each_digest_once_and_in_order():
    low, high = bytes(20), b"\xff" * 20
    by_site = {"ewr": {"legs": rows_of({high: 1, low: 1})}, "jfk": {"legs": rows_of({high: 2, low: 2})}}
    assert reconcile(by_site)["legs"].tobytes() == low + high
