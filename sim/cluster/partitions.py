"""Who holds which partition. Pure: a function of node names and racks, so that every node finds the same answer."""

from collections.abc import Mapping
from hashlib import blake2b

from geotrain.wire.partitions import NUM_PARTITIONS


def succession(nodes: Mapping[str, int], partition: int) -> tuple[str, ...]:
    """All nodes (name -> rack) in the order in which they come to hold the partition: its master first.

    Rendezvous hashing (Thaler and Ravishankar, 1998) orders the nodes; then racks take turns, so that the first
    copies stand on as many racks as there are.
    """
    ranked = sorted(nodes, key=lambda name: _weight(name, partition), reverse=True)
    ordered: list[str] = []
    while ranked:
        racks_served: set[int] = set()
        for name in ranked:
            if nodes[name] not in racks_served:
                racks_served.add(nodes[name])
                ordered.append(name)
        ranked = [name for name in ranked if name not in ordered]
    return tuple(ordered)


def partition_map(nodes: Mapping[str, int], replication_factor: int) -> list[tuple[str, ...]]:
    """For each of the 4096 partitions the nodes that hold a copy, the master first."""
    return [succession(nodes, partition)[:replication_factor] for partition in range(NUM_PARTITIONS)]


def _weight(name: str, partition: int) -> bytes:
    return blake2b(f"{partition}:{name}".encode(), digest_size=8).digest()
