"""From what sites read of a cut to what is decided of it. Pure: knows no phase and no site's fate."""

from collections.abc import Collection, Mapping

from coordinator import instructions
from coordinator.events import CutReported, CutRowsListed
from coordinator.facts import CutFacts, proof
from geotrain.view.cut import Digests, Rows, among


def decided(
    members: Collection[str],
    read: Mapping[str, CutReported],
    listed: Mapping[str, CutRowsListed],
    drop: Mapping[str, Digests],
) -> instructions.DecideCut:
    """Returns the cut that all members keep.

    read: what each reported of its scan. listed: its rows where sites differ. drop: of these, what nobody may use.
    """
    first = min(members)  # any will do: what each keeps is the same everywhere
    lost = sum(
        int(among(listed[first].rows.get(name, Rows.none()).digests, digests).sum()) for name, digests in drop.items()
    )
    return instructions.DecideCut(
        tuple(sorted(members)),
        read[first].round,
        rows=sum(read[first].rows.values()) - lost,
        drop=drop,
        equal=not drop,
        fingerprints=read[first].fingerprints,
    )


def facts(decided: instructions.DecideCut, *, decided_s: float = 0.0) -> CutFacts:
    """Returns what is noted of it."""
    return CutFacts(
        decided_s=decided_s,
        rows=decided.rows,
        dropped=sum(len(digests) for digests in decided.drop.values()),
        equal=decided.equal,
        proof=proof(decided.fingerprints),
    )


def same_as(known: Mapping[str, str], read: Mapping[str, CutReported]) -> set[str]:
    """Returns the sites that have read what `proof` says of a cut that was decided before."""
    return {site for site, report in read.items() if proof(report.fingerprints) == known}
