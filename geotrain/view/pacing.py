"""How many batches may be on their way to the cluster at once. Makes no call, and knows not what a batch holds."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Window:
    """One more after a window of good answers, half after an overload: additive increase, multiplicative decrease.

    Fair between writers that know nothing of each other (Chiu and Jain, 1989); TCP does the same. For one thread.

    limit: batches that may be in flight; what follows the point is progress towards the next one.
    most: its upper bound.
    """

    limit: float
    most: int
    num_in_flight: int = 0
    _num_decreases: int = 0

    def has_room(self) -> bool:
        return self.num_in_flight < int(self.limit)

    def sent(self) -> int:
        """Counts a batch in. Returns what `answered` wants to know of it."""
        self.num_in_flight += 1
        return self._num_decreases

    def answered(self, sent: int, *, overloaded: bool) -> None:
        """Counts a batch out. `overloaded`: whether the cluster was too slow, or said so."""
        self.num_in_flight -= 1
        if not overloaded:
            self.limit = min(self.most, self.limit + 1 / self.limit)
        elif sent == self._num_decreases:  # a batch from before the last decrease tells nothing that is not known
            self.limit = max(1.0, self.limit / 2)
            self._num_decreases += 1
