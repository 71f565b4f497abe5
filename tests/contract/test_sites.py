import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import aerospike
import pytest
from aerospike import exception

from tests.conftest import ClusterUnderTest

Statistics = Callable[[str], Counter[int]]


@pytest.fixture
def statistics(client: Any, cluster: ClusterUnderTest, racks: list[int]) -> Statistics:
    """A statistic of the namespace, summed over the nodes of each rack."""

    def statistics(name: str) -> Counter[int]:
        values: Counter[int] = Counter()
        for error, answer in client.info_all(f"namespace/{cluster.namespace}").values():
            assert error is None
            found = dict(part.partition("=")[::2] for part in answer.strip().split(";"))
            values[int(found["rack-id"])] += int(found[name])
        return values

    return statistics


@pytest.mark.parametrize("position", [0, 1, -1])
def test_a_scan_that_prefers_its_rack_asks_the_nodes_of_that_rack_only(
    cluster: ClusterUnderTest, set_name: str, racks: list[int], statistics: Statistics, position: int
) -> None:
    rack = racks[position]
    client = cluster.connect(rack_aware=True, rack_ids=[rack])
    try:
        for n in range(100):
            client.put((cluster.namespace, set_name, n), {"n": n})
        before = statistics("pi_query_long_basic_complete")
        found = client.query(cluster.namespace, set_name).results({"replica": aerospike.POLICY_REPLICA_PREFER_RACK})
        after = statistics("pi_query_long_basic_complete")
    finally:
        client.close()
    assert sorted(record[2]["n"] for record in found) == list(range(100))
    assert (after - before).keys() == {rack}


def test_relaxed_reads_of_keys_stay_on_the_rack_and_others_go_to_the_masters(
    strong: None, cluster: ClusterUnderTest, set_name: str, racks: list[int], statistics: Statistics
) -> None:
    client = cluster.connect(rack_aware=True, rack_ids=[racks[0]])
    near = {"replica": aerospike.POLICY_REPLICA_PREFER_RACK}
    keys = [(cluster.namespace, set_name, n) for n in range(60)]
    try:
        for key in keys:
            client.put(key, {"n": key[2]})
        before = statistics("client_read_success")
        for key in keys:
            client.get(key, near | {"read_mode_sc": aerospike.POLICY_READ_MODE_SC_ALLOW_REPLICA})
        between = statistics("client_read_success")
        for key in keys:
            client.get(key, near | {"read_mode_sc": aerospike.POLICY_READ_MODE_SC_LINEARIZE})
        after = statistics("client_read_success")
    finally:
        client.close()
    assert between - before == {racks[0]: 60}
    assert len(after - between) > 1


def test_every_rack_holds_every_record(client: Any, cluster: ClusterUnderTest, set_name: str, racks: list[int]) -> None:
    for n in range(50):
        client.put((cluster.namespace, set_name, n), {"n": n})
    held = [
        int(found.group(1))
        for _, answer in client.info_all(f"sets/{cluster.namespace}").values()
        if (found := re.search(rf"set={set_name}:objects=(\d+)", answer))
    ]
    assert sum(held) == 50 * len(racks)


def test_the_roster_is_what_is_observed(strong: None, client: Any, cluster: ClusterUnderTest, racks: list[int]) -> None:
    answers = {answer for _, answer in client.info_all(f"roster:namespace={cluster.namespace}").values()}
    assert len(answers) == 1
    found = re.search(r"roster=(\S+):pending_roster=(\S+):observed_nodes=(\S+)", answers.pop())
    assert found is not None
    roster, pending, observed = found.groups()
    assert roster == pending == observed
    assert sorted(int(member.partition("@")[2]) for member in roster.split(",")) == racks


def test_all_nodes_agree_on_the_cluster(client: Any, cluster: ClusterUnderTest) -> None:
    for name in ("cluster-stable:", "namespaces", "build", "edition"):
        answers = {answer for _, answer in client.info_all(name).values()}
        assert len(answers) == 1
        assert "ERROR" not in answers.pop()


def test_an_unknown_info_name_gets_an_error(client: Any) -> None:
    with pytest.raises(exception.InvalidRequest):
        client.info_random_node("nosuchcommand")
