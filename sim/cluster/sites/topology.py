"""Which nodes form a sub-cluster with which. Pure: knows who hears whom, and nothing of partitions."""

from collections.abc import Callable, Iterable


def sub_clusters(nodes: Iterable[str], hears: Callable[[str, str], bool]) -> list[tuple[str, ...]]:
    """Split the nodes into sub-clusters in which everybody hears everybody, the largest first.

    A node that hears two groups that do not hear each other joins one of them, as the clustering of a real server has
    it: the larger, and of two equal ones the one with the first name.
    """
    left = sorted(nodes)
    neighbours = {a: {b for b in left if a != b and hears(a, b) and hears(b, a)} for a in left}
    found = []
    while left:
        group = min(_cliques(neighbours, (), left), key=lambda clique: (-len(clique), clique))
        found.append(group)
        left = [name for name in left if name not in group]
    return found


def _cliques(neighbours: dict[str, set[str]], group: tuple[str, ...], left: list[str]) -> Iterable[tuple[str, ...]]:
    """All groups that extend `group` and can't be extended by a later name. Tried in order, so each comes once."""
    if not left:
        yield group
        return
    if all(b in neighbours[a] for a in left for b in left if a != b):  # the usual case: nothing is cut
        yield (*group, *left)
        return
    for at, name in enumerate(left):
        yield from _cliques(neighbours, (*group, name), [b for b in left[at + 1 :] if b in neighbours[name]])
