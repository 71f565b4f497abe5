"""Why sites are not in a round, and how long its phases took: what is told of a job. Pure; decides nothing."""

from collections.abc import Container, Iterable, Mapping, Set
from itertools import pairwise

from coordinator.rollcall import RollCall
from coordinator.rules import Phase


class Attendance:
    """Kept by a job's state machine, round by round.

    failures: why a site is not here, or can't run the job. waiting: why it can't say yet whether it can.
    """

    def __init__(self, phase: Phase, now_s: float) -> None:
        self.failures: dict[str, str] = {}
        self.waiting: dict[str, str] = {}
        self._absent: dict[str, str] = {}
        # Since the last commit: the phases in their order, and when each began.
        self._entered = [(phase, now_s)]

    def entered(self, phase: Phase, now_s: float) -> None:
        self._entered.append((phase, now_s))

    def lost(self, site: str, reason: str) -> None:
        """The site has no part in the round for now, nor in the job if it says nothing more."""
        self.failures[site] = self._absent[site] = reason
        self.waiting.pop(site, None)

    def returned(self, site: str) -> None:
        """The site can run the job; it may still have lost its part in the round."""
        self.failures.pop(site, None)
        self.waiting.pop(site, None)

    def readmitted(self, site: str) -> None:
        self._absent.pop(site, None)

    def opened(self) -> None:
        """A round begins."""
        self._absent = {}

    def committed(self) -> None:
        """What is counted from here on is the next round's."""
        self._entered.clear()

    def absent(self, sites: Iterable[str], roll: RollCall, prepared: Container[str]) -> dict[str, str]:
        """Returns why each of the sites is not in the round. prepared: who is here and can run the job."""
        return {site: self._why_absent(site, roll, prepared) for site in sorted(sites)}

    def standing(
        self, sites: Iterable[str], roll: RollCall, connected: Container[str], prepared: Container[str]
    ) -> dict[str, tuple[str, str]]:
        """Returns where each of the sites stands in a phase, and why.

        `reported`, `asked`, `away` and may come back, `back` from there and not in the phase yet, or `out` of it.
        """
        return {site: self._stands(site, roll, connected, prepared) for site in sites}

    def _why_absent(self, site: str, roll: RollCall, prepared: Container[str]) -> str:
        if site in self._absent:
            return self._absent[site]
        if site in roll.expected:
            return "it had sent nothing when the round closed"
        if site not in prepared:
            return self.waiting.get(site) or self.failures.get(site, "it was not connected")
        return "it came after the round had begun"

    def _stands(
        self, site: str, roll: RollCall, connected: Container[str], prepared: Container[str]
    ) -> tuple[str, str]:
        if site in roll.answered:
            return "reported", ""
        if site not in roll.expected | roll.away:
            return "out", self._why_absent(site, roll, prepared)
        if site not in connected:
            return "away", self.failures.get(site, "it is not connected")
        if site in roll.returning or site not in roll.expected:
            return "back", "it is back, and is asked what it still has of the round"
        return "asked", self.waiting.get(site, "")

    def seconds_by_phase(self, now_s: float) -> dict[str, float]:
        """Since the last commit, or since this coordinator took the job."""
        spent: dict[str, float] = {}
        for (phase, since_s), (_, until_s) in pairwise([*self._entered, (Phase.ENDED, now_s)]):
            spent[phase.value] = spent.get(phase.value, 0.0) + until_s - since_s
        return spent

    def why_waiting(self, expected: Set[str]) -> str:
        """Of those who are asked and wait, to be added to a reason."""
        return _listed({site: why for site, why in self.waiting.items() if site in expected})

    def with_failures(self, reason: str) -> str:
        return reason + _listed(self.failures | self.waiting)


def _listed(reasons: Mapping[str, str]) -> str:
    return f" ({'; '.join(f'{site}: {why}' for site, why in sorted(reasons.items()))})" if reasons else ""
