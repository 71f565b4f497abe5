"""Decides whether a concurrent history of one record could have come from a single copy of it. Pure.

The search of Wing and Gong (1993) with Lowe's memory of visited configurations (2017). Knows no client and no clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import NamedTuple


class Kind(StrEnum):
    """What an operation does to a record."""

    READ = "read"
    WRITE = "write"
    COMPARE_AND_SET = "compare-and-set"


class Version(NamedTuple):
    """What a record holds. Generation 0 is an absent record."""

    generation: int
    value: int | None


ABSENT = Version(0, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation, from its call to its return, as its caller saw it."""

    client: int
    kind: Kind
    called: float
    returned: float = inf
    """Infinite where the operation is in doubt: it may take effect at any time after its call, or never."""
    read: Version = ABSENT
    """What a read returned."""
    written: int = 0
    expected_generation: int = 0
    """What a compare-and-set demands: 0 is an absent record."""
    refused: bool = False
    """Whether a compare-and-set was refused for the generation that it met."""

    @property
    def is_in_doubt(self) -> bool:
        """Whether the caller does not know if it took effect."""
        return self.returned == inf

    def apply(self, version: Version) -> Version | None:
        """What the record holds after this operation, or None where its answer can't come from `version`."""
        match self.kind:
            case Kind.READ:
                return version if self.read == version else None
            case Kind.COMPARE_AND_SET if self.refused:
                return version if self.expected_generation != version.generation else None
            case Kind.COMPARE_AND_SET if self.expected_generation != version.generation:
                return None
        return Version(version.generation + 1, self.written)

    def __str__(self) -> str:
        match self.kind:
            case Kind.READ:
                what = f"read generation {self.read.generation}, value {self.read.value}"
            case Kind.WRITE:
                what = f"write {self.written}"
            case Kind.COMPARE_AND_SET:
                verdict = " (refused)" if self.refused else ""
                what = f"set {self.written} if generation {self.expected_generation}{verdict}"
        return f"client {self.client} [{self.called:.6f}, {self.returned:.6f}]: {what}"


def violation(history: Sequence[Operation], initial: Version = ABSENT) -> str | None:
    """Why no order of the operations that respects real time explains their answers, or None where one does.

    An operation in doubt may be anywhere after its call, or nowhere; a read in doubt says nothing.
    """
    operations = sorted(
        (operation for operation in history if not (operation.is_in_doubt and operation.kind == Kind.READ)),
        key=lambda operation: operation.called,
    )
    answered = sum(1 << at for at, operation in enumerate(operations) if not operation.is_in_doubt)
    longest, furthest = 0, initial
    start = (0, initial)
    visited, pending = {start}, [start]
    while pending:
        done, version = pending.pop()
        if done & answered == answered:
            return None
        if (done & answered).bit_count() >= longest.bit_count():
            longest, furthest = done & answered, version
        for at in _next(operations, done):
            after = operations[at].apply(version)
            if after is not None and (found := (done | 1 << at, after)) not in visited:
                visited.add(found)
                pending.append(found)
    head = f"{longest.bit_count()} operations can be put in order, up to {furthest}; nothing explains what follows:"
    return "\n  ".join([head, *(str(operations[at]) for at in _next(operations, longest))])


def _next(operations: list[Operation], done: int) -> list[int]:
    """The operations that may come next: those called before any of the others that are left has returned."""
    candidates, first_return = [], inf
    first_left = (~done & done + 1).bit_length() - 1
    for at in range(first_left, len(operations)):
        operation = operations[at]
        if operation.called > first_return:
            break
        if not done >> at & 1:
            candidates.append(at)
            first_return = min(first_return, operation.returned)
    return candidates
