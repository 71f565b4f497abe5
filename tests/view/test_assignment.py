from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.view.assignment import Answer, Assignment, Claim, PartitionMap
from geotrain.wire.columnar import Progress
from geotrain.wire.partitions import NUM_PARTITIONS

ALL = range(NUM_PARTITIONS)


def copies_of(rack: int) -> list[list[int]]:
    return [[pid for pid in ALL if (pid + copy) % 5 == rack] for copy in range(5)]


# One node a rack, each with a copy of everything; the masters go round.
FIVE_RACKS = PartitionMap.of({f"node{i}": Claim(regime=1, copies=copies_of(i), rack=i) for i in range(5)})


def assignment(
    partitions: list[int] | None = None, *, rack: int = 3, connections: int = 1, progress: Progress | None = None
) -> Assignment:
    return Assignment(progress or Progress(), partitions, rack=rack, connections_per_node=connections)


def asked(plan) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for request in plan:
        found.setdefault(request.node, []).extend(request.partitions.tolist())
    return found


def test_the_fifth_copy_counts_like_the_first():
    for rack in range(5):
        assert asked(assignment(rack=rack).plan(FIVE_RACKS)) == {f"node{rack}": list(ALL)}


def test_without_a_rack_the_masters_are_asked():
    plan = asked(assignment(rack=99).plan(FIVE_RACKS))
    assert plan == {f"node{rack}": [pid for pid in ALL if pid % 5 == rack] for rack in range(5)}


def test_claims_of_an_older_regime_do_not_count():
    claims = {
        "stale": Claim(regime=1, copies=[[1, 2]], rack=3),
        "fresh": Claim(regime=2, copies=[[], [2]], rack=4),
    }
    assert asked(assignment().plan(PartitionMap.of(claims))) == {"stale": [1], "fresh": [2]}


def test_the_connections_to_a_node_share_its_partitions():
    plan = assignment([1, 5, 9, 4000], connections=3).plan(FIVE_RACKS)
    assert [request.partitions.tolist() for request in plan] == [[1, 5], [9], [4000]]


def test_a_partition_that_was_begun_goes_on_after_its_last_digest_elsewhere():
    progress = Progress()
    scan = assignment([7, 8, 9], progress=progress)
    (request,) = scan.plan(FIVE_RACKS)
    progress.num_rows[8] = 2
    progress.last_digests[8] = 0xAB
    scan.take(request, Answer({}, failure="it hung up"))
    plan = scan.plan(FIVE_RACKS)
    assert all(request.node != "node3" for request in plan)
    assert sorted(pid for request in plan for pid in request.fresh.tolist()) == [7, 9]
    assert [request.resumed.tolist() for request in plan if 8 in request.partitions] == [[[0xAB] * 20]]
    assert "hung up" in scan.failures["node3"]


def test_only_what_was_refused_is_asked_for_again():
    scan = assignment([7, 8, 9])
    (request,) = scan.plan(FIVE_RACKS)
    scan.take(request, Answer({8: 11}))
    assert scan.num_remaining == 1
    assert list(asked(scan.plan(FIVE_RACKS)).values()) == [[8]]
    assert scan.failures == {"node3": "1 partitions refused with code 11"}


def test_all_copies_are_tried_before_one_is_tried_again():
    scan = assignment([7])
    tried = Counter()
    for _ in range(11):
        for request in scan.plan(FIVE_RACKS):
            tried[request.node] += 1
            scan.take(request, Answer({7: 11}))
    assert tried == {f"node{rack}": 2 for rack in range(5)} | {"node3": 2}


def test_partitions_that_no_node_holds_are_not_asked_for_and_remain():
    known = PartitionMap.of({"node": Claim(regime=1, copies=[[1]], rack=3)})
    scan = assignment([1, 2])
    (request,) = scan.plan(known)
    scan.take(request, Answer({}))
    assert scan.plan(known) == []
    assert scan.num_remaining == 1


@pytest.mark.parametrize("known", [PartitionMap.of({}), PartitionMap.of({"node": Claim(regime=0, copies=[])})])
def test_of_a_cluster_that_holds_nothing_nothing_is_asked(known):
    assert assignment().plan(known) == []


@settings(max_examples=50)
@given(st.data())
def test_whatever_fails_every_partition_is_read_once_and_in_order(data):
    wanted = sorted(data.draw(st.sets(st.integers(0, NUM_PARTITIONS - 1), min_size=1, max_size=8)))
    num_rows = {pid: data.draw(st.integers(0, 3), label=f"rows of {pid}") for pid in wanted}
    progress = Progress()
    scan = assignment(wanted, connections=data.draw(st.integers(1, 3)), progress=progress)
    delivered: dict[int, list[int]] = {pid: [] for pid in wanted}
    num_failures = 0
    for _ in range(100):
        if not scan.num_remaining:
            break
        for request in scan.plan(FIVE_RACKS):
            fails = data.draw(st.booleans(), label="fails") and num_failures < 20
            num_failures += fails
            begun = np.setdiff1d(request.partitions, request.fresh).tolist()
            start = dict.fromkeys(request.fresh.tolist(), 0)
            # As a server would: strictly after the digest, which here is the number of its row.
            start |= {pid: int(digest[0]) + 1 for pid, digest in zip(begun, request.resumed, strict=True)}
            left = [(pid, row) for pid, first in start.items() for row in range(first, num_rows[pid])]
            sent = left[: data.draw(st.integers(0, len(left)))] if fails else left
            for pid, row in sent:
                delivered[pid].append(row)
                progress.num_rows[pid] += 1
                progress.last_digests[pid] = row
            scan.take(request, Answer({}, failure="it hung up" if fails else None))
    assert delivered == {pid: list(range(num_rows[pid])) for pid in wanted}
    assert scan.num_remaining == 0
