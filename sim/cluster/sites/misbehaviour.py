"""What a node can be told to do wrong with its next commands."""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is done wrong."""

    DROP = "drop"
    """Carry the command out, and don't answer: the client can't know."""
    CLOSE = "close"
    """Carry it out, and hang up in the middle of the answer."""
    LATE = "late"
    """Carry it out, and answer after a while."""
    CODE = "code"
    """Don't carry it out, and answer a result code."""


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """kind: what is done wrong. code: the result code of CODE. delay_s: of LATE."""

    kind: Kind
    code: int = 0
    delay_s: float = 0.0

    def __str__(self) -> str:
        """As the order that asks for it has it."""
        detail = {Kind.LATE: f";delay_ms={self.delay_s * 1000:g}", Kind.CODE: f";code={self.code}"}
        return f"kind={self.kind}{detail.get(self.kind, '')}"


Misbehaviours = deque[Misbehaviour]
"""One for each of the next commands."""
