from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.sites.partitions import partition_map, succession

racks = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 3), min_size=1, max_size=6)
SITES = {"ewr": 1, "jfk": 2, "lga": 3}


@given(nodes=racks, partition=st.integers(0, 4095))
def test_every_node_is_in_the_succession_once(nodes: dict[str, int], partition: int) -> None:
    assert sorted(succession(nodes, partition)) == sorted(nodes)


@given(nodes=racks, partition=st.integers(0, 4095))
def test_the_first_copies_stand_on_different_racks(nodes: dict[str, int], partition: int) -> None:
    num_racks = len(set(nodes.values()))
    assert len({nodes[name] for name in succession(nodes, partition)[:num_racks]}) == num_racks


@given(nodes=racks, partition=st.integers(0, 4095), data=st.data())
def test_the_order_of_the_nodes_configuration_does_not_matter(
    nodes: dict[str, int], partition: int, data: st.DataObject
) -> None:
    shuffled = dict(data.draw(st.permutations(list(nodes.items()))))
    assert succession(shuffled, partition) == succession(nodes, partition)


def test_a_lost_node_moves_only_the_partitions_that_it_was_master_of() -> None:
    left = {name: rack for name, rack in SITES.items() if name != "jfk"}
    for partition, (master, *_) in enumerate(partition_map(SITES, 3)):
        if master != "jfk":
            assert succession(left, partition)[0] == master


def test_as_many_copies_as_racks_put_everything_on_every_rack() -> None:
    assert all(set(owners) == set(SITES) for owners in partition_map(SITES, 3))


def test_mastership_is_spread_evenly() -> None:
    masters = Counter(owners[0] for owners in partition_map(SITES, 2))
    assert all(4096 / 3 * 0.9 < count < 4096 / 3 * 1.1 for count in masters.values())
