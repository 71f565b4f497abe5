"""Who holds which partition. Pure: a function of node names and racks, so that every node finds the same answer."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from hashlib import blake2b

from geotrain.wire.partitions import NUM_PARTITIONS


def succession(
    nodes: Mapping[str, int], partition: int, quiesced: Collection[str] = (), active_rack: int = 0
) -> tuple[str, ...]:
    """All nodes (name -> rack) in the order in which they come to hold the partition: its master first.

    Rendezvous hashing (Thaler and Ravishankar, 1998) orders the nodes; then racks take turns, so that the first
    copies stand on as many racks as there are. The active rack (0: none) has the first turn; quiesced nodes come last.
    """
    ranked = sorted(nodes, key=lambda name: _weight(name, partition), reverse=True)
    last = [name for name in ranked if name in quiesced]
    ranked = [name for name in ranked if name not in quiesced]
    if active_rack:
        ranked.sort(key=lambda name: nodes[name] != active_rack)
    ordered: list[str] = []
    while ranked:
        racks_served: set[int] = set()
        for name in ranked:
            if nodes[name] not in racks_served:
                racks_served.add(nodes[name])
                ordered.append(name)
        ranked = [name for name in ranked if name not in ordered]
    return (*ordered, *last)


def partition_map(
    nodes: Mapping[str, int], replication_factor: int, quiesced: Collection[str] = (), active_rack: int = 0
) -> list[tuple[str, ...]]:
    """For each of the 4096 partitions the nodes that hold a copy, the master first.

    A quiesced node holds none, unless nobody else is there.
    """
    return _partition_map(tuple(nodes.items()), replication_factor, frozenset(quiesced), active_rack)


@lru_cache(maxsize=64)  # a node that comes and goes brings the same few compositions about again and again
def _partition_map(
    nodes: tuple[tuple[str, int], ...], replication_factor: int, quiesced: frozenset[str], active_rack: int
) -> list[tuple[str, ...]]:
    racks = dict(nodes)
    num_holders = min(replication_factor, sum(name not in quiesced for name in racks) or len(racks))
    return [succession(racks, partition, quiesced, active_rack)[:num_holders] for partition in range(NUM_PARTITIONS)]


def _weight(name: str, partition: int) -> bytes:
    return blake2b(f"{partition}:{name}".encode(), digest_size=8).digest()
