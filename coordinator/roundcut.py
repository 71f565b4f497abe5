"""The cut of a round: who has it, who needs none any more, and when another one is taken. Pure; knows no phase.

Whoever has trained for the round is never asked to train again; all others are to read the same rows. A cut that was
decided can be read again as long as none of its rows is written: where a site finds others, the round goes on without
it, or, where it is needed, all that have not trained take another cut.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from coordinator import cuts
from coordinator.events import CutReported, CutRowsListed, Held, SitePrepared
from coordinator.facts import RoundFacts
from coordinator.instructions import DecideCut
from geotrain.view.cut import Digests, differing, reconcile


@dataclass(frozen=True, slots=True)
class Scan:
    """The sites are to scan cut `number` of the round; `done` have its update, and are not to."""

    sites: Set[str]
    number: int
    done: Set[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ListRows:
    """The sites that have scanned are to list their rows in these partitions, by set: they differ there."""

    partitions: Mapping[str, list[int]]


@dataclass(frozen=True, slots=True)
class GoOn:
    """The sites have the cut or the update. decided: what those keep that join the cut now; None where none does.
    lost: why a site can't have the cut any more."""

    sites: Set[str]
    decided: DecideCut | None = None
    lost: Mapping[str, str] = field(default_factory=dict)


Step = Scan | ListRows | GoOn


class RoundCut:
    """Of the open round, or of the last one while sites localize.

    facts: the round, with the cut that was decided last; None before the first. is_left: whether it is to be taken up
    again once its sites are gathered. prepared: what each site has said that it has, by site; of those that are here.
    why_anew: why another cut is taken than the one before; "" where none is.
    min_sites: that a round needs. wanted: what the cut is for: the update that is asked of a site.
    """

    def __init__(self, facts: RoundFacts | None, min_sites: int) -> None:
        self.facts = facts
        self.is_left = facts is not None
        self.prepared: dict[str, SitePrepared] = {}
        self.why_anew = ""
        self._min_sites = min_sites
        # Which of the round's cuts sites scan, or have scanned last; and what they reported of it.
        self._number = facts.cut_number if facts else 1
        self._read: Mapping[str, CutReported] = {}

    def can_answer(self, site: str, wanted: Held) -> bool:
        """Whether the site needs no cut to give what the round wants: it holds the update, or the cut itself."""
        prepared = self.prepared[site]
        has_cut = (prepared.cut_round, prepared.cut_number) == (self.round.round, self.round.cut_number)
        return has_cut or self._holds(site, wanted)

    def leave(self) -> None:
        """The sites are asked again what they have, and the round is taken up again from that."""
        self.is_left, self.prepared, self.why_anew = True, {}, ""

    def open(self, number: int, sites: Set[str]) -> Step:
        """A round begins."""
        self.facts = RoundFacts(round=number, sites=tuple(sorted(sites)))
        return self._scan(sites, 1)

    def take_up(self, sites: Set[str], wanted: Held) -> Step:
        """Go on in a round that another coordinator left: the same cut, the same base, nothing done twice. Also from
        the last round to what sites localize: one may have come without its cut."""
        self.is_left = False
        able = {site for site in sites if self.can_answer(site, wanted)}
        if wanted.base_version and sites == able:
            return GoOn(able)
        cut = self.round.cut
        if not (wanted.base_version and able and cut):
            return self._scan_anew(sites, wanted)
        if cut.dropped:
            return self._go_on_with(able, sites - able, "it dropped rows that the ledger does not name", wanted)
        return self._scan(sites - able, self.round.cut_number, done=able)

    def compare(self, read: Mapping[str, CutReported], done: Set[str], wanted: Held) -> Step:
        """The cut is scanned. done: those that had the update, and are still here."""
        cut = self.round.cut
        if cut is None or self._number != self.round.cut_number:
            self._read = dict(read)
            partitions = differing({site: report.fingerprints for site, report in read.items()})
            return ListRows(partitions) if partitions else self._decided(set(read), done, {}, {})
        # It was decided before; a site may find other rows in it by now.
        same = cuts.same_as(cut.proof, read)
        self._join(same)
        decided = cuts.decided(same, read, {}, {}) if same else None
        return self._go_on_with(same | done, read.keys() - same, "rows of it were written since", wanted, decided)

    def reconcile(self, listed: Mapping[str, CutRowsListed], done: Set[str]) -> Step:
        """The rows in which sites differ are listed: what not all have is nobody's."""
        return self._decided(set(listed), done, listed, reconcile({site: rows.rows for site, rows in listed.items()}))

    @property
    def round(self) -> RoundFacts:
        assert self.facts is not None, "no round is open"
        return self.facts

    def _holds(self, site: str, wanted: Held) -> bool:
        return self.prepared[site].held == wanted

    def _scan(self, sites: Set[str], number: int, *, done: Set[str] = frozenset()) -> Step:
        self._read, self._number = {}, number
        return Scan(sites, number, done)

    def _scan_anew(self, sites: Set[str], wanted: Held) -> Step:
        """Have those of the sites that do not hold the round's update decide on a cut: another one than before."""
        number = self.round.cut_number + (self.round.cut is not None)
        holders = {site for site in sites if self._holds(site, wanted)}
        return self._scan(sites - holders, number, done=holders)

    def _go_on_with(
        self, able: Set[str], lost: Set[str], why: str, wanted: Held, decided: DecideCut | None = None
    ) -> Step:
        """Go on with who has the round's update or its cut, and without those that can't have that again.

        If it takes these as well, all that have not trained yet take another cut: nobody trains twice, and a round has
        one cut wherever it can be closed with that. A site's own state has no later round to wait for.
        """
        reason = f"round {self.round.round}'s cut can't be read again: {why}"
        is_enough = len(able) >= self._min_sites and any(self._holds(site, wanted) for site in able)
        if lost and (wanted.round == 0 or not is_enough):
            self.why_anew = f"; {', '.join(sorted(lost))}: {reason}, so another one is taken"
            return self._scan_anew(able | lost, wanted)
        return GoOn(able, decided, dict.fromkeys(lost, reason))

    def _decided(
        self, sites: Set[str], done: Set[str], listed: Mapping[str, CutRowsListed], drop: Mapping[str, Digests]
    ) -> Step:
        self.why_anew = ""
        if not sites:  # who scanned has left, and there are enough that need no cut
            return GoOn(done)
        decided = cuts.decided(sites, self._read, listed, drop)
        self.facts = replace(self.round, cut=cuts.facts(decided), cut_number=self._number)
        self._join(sites)
        return GoOn(sites | done, decided)

    def _join(self, sites: Iterable[str]) -> None:
        """These have the round's cut from here on."""
        number, cut_number = self.round.round, self.round.cut_number
        for site in sites:
            self.prepared[site] = replace(self.prepared[site], cut_round=number, cut_number=cut_number)
