"""What of a job is committed, which updates still may be, and how much a late one weighs. Pure: knows no phase.

An update is late when the round that it was trained for has closed without it. Its staleness is the number of rounds
since; it weighs samples * (1 + staleness) ** -discount, the polynomial form of FedAsync (Xie, Koyejo and Gupta,
"Asynchronous Federated Optimization", arXiv:1903.03934).
"""

from collections.abc import Mapping, Sequence

from coordinator.events import Held, UpdateArrived
from coordinator.facts import JobFacts
from coordinator.instructions import DropUpdate, Train
from coordinator.rules import Rules


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

    committed: the last round that is, noted by whoever sees it happen. localized: the sites whose own state is
    published, or about to be.
    """

    def __init__(self, rules: Rules, facts: JobFacts) -> None:
        self.committed = max((past.round for past in facts.committed), default=0)
        self.localized: set[str] = set(facts.localized)
        self._waiting: dict[str, UpdateArrived] = {}
        self._rules = rules
        self._counted: set[tuple[str, int]] = set()
        for past in facts.committed:
            if past.commit:
                self._count(past.commit.weights, past.round, past.commit.staleness)

    @property
    def is_last(self) -> bool:
        """Whether the last round is committed."""
        return self.committed == self._rules.rounds

    def oldest(self, number: int) -> int:
        """The earliest round whose updates round `number` takes; one after the last takes none."""
        return number if number > self._rules.rounds else max(1, number - self._rules.max_staleness)

    def refusal(self, site: str, trained: int, number: int) -> str:
        """Why an update of this site for round `trained` is not taken, whatever is in it, where round `number` is the
        next to be committed; "" where it is."""
        if site not in self._rules.sites:
            return f"site {site} takes no part in this job"
        if trained == 0:
            return f"the localized state of {site} is published already" if site in self.localized else ""
        if self.is_last:
            return f"round {trained} is committed, and so is the last one"
        if (site, trained) in self._counted:
            return f"the update of {site} for round {trained} is counted already"
        if trained > number:
            return f"round {trained} has not begun"
        if trained < self.oldest(number):
            return (
                f"round {trained} is committed, and the update comes {number - trained} rounds late: "
                f"strategy.max_staleness is {self._rules.max_staleness}"
            )
        return ""

    def arrived(self, update: UpdateArrived, number: int, on_time: dict[str, UpdateArrived] | None) -> list[DropUpdate]:
        """Keep it for round `number`, the next to be committed. Returns it where it is not kept.

        on_time: the updates of that round, by site; None where it takes none of this site now.
        """
        if reason := self.refusal(update.site, update.round, number):
            return [DropUpdate(update, reason)]
        if update.round < number:
            before = self._waiting.setdefault(update.site, update)
        elif on_time is not None:
            before = on_time.setdefault(update.site, update)
        else:  # it is asked for again
            return []
        return [DropUpdate(update, "it came twice")] if before.path != update.path else []

    def late_of(self, site: str, held: Held | None, number: int) -> list[Train]:
        """Have a site send the update that it holds of an earlier round, where round `number` still takes that."""
        if held is None or not 0 < held.round < number or self.refusal(site, held.round, number):
            return []
        return [Train((site,), held.round, held.base_version)]

    def close(
        self, on_time: Mapping[str, UpdateArrived], number: int
    ) -> tuple[tuple[UpdateArrived, ...], list[DropUpdate]]:
        """Round `number` is made of these, and of what came late of other sites.

        Returns its updates, in the order of the sites' names, and what it leaves out; none waits any more.
        """
        late, by_site = self._waiting, {**self._waiting, **on_time}
        updates = tuple(by_site[site] for site in sorted(by_site))
        self._count({update.site: 0 for update in updates}, number, staleness(updates, number))
        self._waiting = {}
        newer = sorted(late.keys() & on_time.keys())
        return updates, [DropUpdate(late[site], f"a newer update of {site} is in round {number}") for site in newer]

    def _count(self, sites: Mapping[str, float], number: int, late: Mapping[str, int]) -> None:
        self._counted |= {(site, number - late.get(site, 0)) for site in sites}
