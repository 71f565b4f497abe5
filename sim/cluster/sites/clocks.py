"""When the clocks of a sub-cluster's nodes are too far apart for strong consistency. Pure: knows no clock."""

from collections.abc import Iterable

MAX_SKEW_MS = 20_000
"""Beyond it no writes are taken: at 27 s a node could take for valid what the others have already given up."""


def skew_ms(ahead_ms: Iterable[int]) -> int:
    """How far clocks are apart. ahead_ms: of each by how much it is ahead of the true time, or (negative) behind."""
    known = list(ahead_ms)
    return max(known) - min(known) if known else 0


def stops_writes(skew_ms: int, *, is_strong: bool) -> bool:
    """Whether the nodes take no writes. is_strong: whether the namespace is strongly consistent."""
    return is_strong and skew_ms > MAX_SKEW_MS
