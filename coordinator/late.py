"""Which updates a round still takes, and how much a late one weighs. Pure: knows no phase.

An update is late when the round that it was trained for has closed without it. Its staleness is the number of rounds
since; it weighs samples * (1 + staleness) ** -discount, the polynomial form of FedAsync (Xie, Koyejo and Gupta,
"Asynchronous Federated Optimization", arXiv:1903.03934).
"""

from collections.abc import Iterable, Mapping, Sequence

from coordinator.events import UpdateArrived
from coordinator.facts import RoundFacts


def weights(updates: Sequence[UpdateArrived], number: int, discount: float) -> dict[str, float]:
    """Returns each site's weight in round `number`."""
    late = staleness(updates, number)
    return {update.site: update.samples * (1 + late.get(update.site, 0)) ** -discount for update in updates}


def staleness(updates: Sequence[UpdateArrived], number: int) -> dict[str, int]:
    """Returns how many rounds late updates are, by site; of those that are late."""
    return {update.site: number - update.round for update in updates if update.round < number}


def earlier_cut(updates: Sequence[UpdateArrived], number: int, cut_number: int) -> tuple[str, ...]:
    """Returns the sites whose updates are of round `number`, and of a cut of it before `cut_number`."""
    return tuple(update.site for update in updates if update.round == number and update.cut_number < cut_number)


class Taken:
    """The updates of a job that have been counted, and the late ones that wait for the next commit.

    max_staleness: rounds after which a late update is not taken any more. committed: the rounds so far.
    """

    def __init__(self, max_staleness: int, committed: Iterable[RoundFacts]) -> None:
        self.waiting: dict[str, UpdateArrived] = {}
        self._max_staleness = max_staleness
        self._counted: set[tuple[str, int]] = set()
        for past in committed:
            if past.commit:
                self._count(past.commit.weights, past.round, past.commit.staleness)

    def oldest(self, number: int) -> int:
        """The earliest round whose updates round `number` takes."""
        return max(1, number - self._max_staleness)

    def refusal(self, site: str, trained: int, number: int) -> str:
        """Why round `number`, the next to be committed, does not take the site's update of round `trained`."""
        if (site, trained) in self._counted:
            return f"the update of {site} for round {trained} is counted already"
        if trained > number:
            return f"round {trained} has not begun"
        if trained < self.oldest(number):
            return (
                f"round {trained} is committed, and the update comes {number - trained} rounds late: "
                f"strategy.max_staleness is {self._max_staleness}"
            )
        return ""

    def commit(self, updates: Sequence[UpdateArrived], number: int) -> None:
        """These are counted now; none waits any more."""
        self._count({update.site: 0 for update in updates}, number, staleness(updates, number))
        self.waiting = {}

    def _count(self, sites: Mapping[str, float], number: int, late: Mapping[str, int]) -> None:
        self._counted |= {(site, number - late.get(site, 0)) for site in sites}
