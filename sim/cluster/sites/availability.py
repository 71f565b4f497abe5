"""When a sub-cluster may serve a partition under strong consistency. Pure: knows nodes by name, and no data.

The rules are those of Aerospike's documentation (architecture, consistency modes): whatever two sub-clusters exist at
a time, at most one of them may serve the partition, since both would need the same roster copy or the same majority.
"""

from collections.abc import Collection, Sequence
from enum import StrEnum


class Rule(StrEnum):
    """Why a sub-cluster may serve a partition, or that it may not."""

    ALL_COPIES = "(a) the roster master and all roster replicas are present"
    MAJORITY = "(b) more than half of the roster is present, and a roster copy"
    HALF_AND_MASTER = "(c) exactly half of the roster is present, and the roster master"
    NONE = "too little of the roster is present"


class Status(StrEnum):
    """What a sub-cluster can do with a partition."""

    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"
    DEAD = "dead"


def rule(copies: Sequence[str], roster: Collection[str], present: Collection[str]) -> Rule:
    """The first rule by which the nodes that are present may serve a partition.

    copies: the roster nodes that hold it when all are there, the roster master first.
    """
    num_present = sum(name in present for name in roster)
    num_copies = sum(name in present for name in copies)
    if copies and num_copies == len(copies):
        return Rule.ALL_COPIES
    if num_present * 2 > len(roster) and num_copies:
        return Rule.MAJORITY
    if num_present * 2 == len(roster) and copies[0] in present:
        return Rule.HALF_AND_MASTER
    return Rule.NONE


def status(
    copies: Sequence[str], roster: Collection[str], present: Collection[str], *, is_newest_there: bool
) -> Status:
    """What the nodes that are present can do with a partition.

    is_newest_there: whether one of them holds the partition's newest version that any of them has heard of. Where even
    the whole roster does not, the data is lost: the partition is dead until an operator revives it with what is left.
    """
    if is_newest_there:
        return Status.UNAVAILABLE if rule(copies, roster, present) is Rule.NONE else Status.AVAILABLE
    return Status.DEAD if all(name in present for name in roster) else Status.UNAVAILABLE
