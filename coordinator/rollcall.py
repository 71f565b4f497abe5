"""Whom a phase waits for, and what those said that have answered. Pure; knows no phase and not what comes next."""

from collections.abc import Iterable
from typing import Any

from coordinator.quorum import Decision, decide


class RollCall:
    """The sites in the phase that a job is in.

    expected: asked, and not given up. reports: by site, its answer. done: sites that had done before what others are
    asked. away: hung up in this round, and may come back. returning: those of them that are connected again, and have
    not said yet what they still have of the round.
    """

    def __init__(self, expected: Iterable[str], done: Iterable[str]) -> None:
        self.away: set[str] = set()
        self.begin(expected, done)

    def begin(self, expected: Iterable[str], done: Iterable[str]) -> None:
        """A phase begins; who is away stays so."""
        self.expected, self.done = set(expected), set(done)
        self.returning: set[str] = set()
        self.reports: dict[str, Any] = {}
        self._quorum_s: float | None = None

    @property
    def answered(self) -> set[str]:
        return self.reports.keys() | self.done

    @property
    def hopeful(self) -> set[str]:
        """Who has answered, or may still do so."""
        return self.expected | self.answered

    def report(self, site: str, answer: object) -> None:
        """Note the first answer of a site that is asked."""
        if site in self.expected:
            self.reports.setdefault(site, answer)

    def rejoin(self, site: str) -> None:
        """A site that was away is connected again. It may work all the while: slow is not dead."""
        if site in self.away:
            self.returning.add(site)
            self.expected.add(site)

    def settle(self, site: str) -> bool:
        """A site has said what it still has of the round. Returns whether it is in the phase, and not to be asked."""
        was_in = site in self.hopeful and (site not in self.returning or site in self.answered)
        self.returning.discard(site)
        return was_in

    def lose(self, site: str, *, given_up: bool, may_return: bool = False) -> None:
        """A site hung up or failed. given_up: it is waited for no more; may_return: if it was, it may come back."""
        self.away.discard(site)
        self.returning.discard(site)
        if may_return and site in self.expected:
            self.away.add(site)
        if given_up:
            self.expected.discard(site)

    def judge(self, *, min_sites: int, waited_s: float, deadline_s: float, grace_s: float, now_s: float) -> Decision:
        """Whether the phase can be closed. waited_s: since it began; grace_s: from when enough have answered."""
        if len(self.answered) < min_sites:
            self._quorum_s = None
        elif self._quorum_s is None:
            self._quorum_s = now_s
        return decide(
            reported=self.answered,
            expected=self.expected | self.done,
            waited_s=waited_s,
            min_sites=min_sites,
            deadline_s=deadline_s,
            away=self.away,
            quorum_waited_s=0.0 if self._quorum_s is None else now_s - self._quorum_s,
            grace_s=grace_s,
        )
