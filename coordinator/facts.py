"""What the ledger says of a job. Values, and how they are written; they know no store and take no decision.

Times are in seconds since the Unix epoch. A round 0 that is committed is the first model.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from geotrain.view.cut import Fingerprints


def proof(fingerprints: Mapping[str, Fingerprints]) -> dict[str, str]:
    """Returns what names the rows that were read of each set: the SHA-256 of its fingerprints, in hex."""
    return {name: hashlib.sha256(of_set.tobytes()).hexdigest() for name, of_set in sorted(fingerprints.items())}


@dataclass(frozen=True, slots=True, kw_only=True)
class CutFacts:
    """A cut as it was decided. proof: of what was read, with the `dropped` rows that sites differ in."""

    decided_s: float
    rows: int
    dropped: int
    equal: bool
    proof: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFacts:
    """A round as it was committed: its state, and whose updates are in it.

    bytes_up, bytes_down: of all sites in this round, as counted by the coordinator that committed it. phases_s: seconds
    by phase since the round before, in that coordinator. absent: the job's sites that are not in it, and why.
    staleness: of the updates that came late, how many rounds after their own. earlier_cut: the sites whose updates were
    trained on a cut of this round before the one that is noted. alias: that points to the state. gate: why that one,
    where the job has a gate.
    """

    committed_s: float
    version: int
    weights: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    reason: str = ""
    phases_s: Mapping[str, float] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    staleness: Mapping[str, int] = field(default_factory=dict)
    earlier_cut: tuple[str, ...] = ()
    alias: str = "production"
    gate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFacts:
    """A round. cut, commit: None until then. sites: its members. until_ns: the moment of its cut; cut_number: which cut
    of the round that is, from 1."""

    round: int
    base_version: int = 0
    until_ns: int = 0
    cut_number: int = 1
    sites: tuple[str, ...] = ()
    opened_s: float = 0.0
    cut: CutFacts | None = None
    commit: CommitFacts | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "RoundFacts":
        fields: dict[str, Any] = json.loads(text)
        cut, commit = fields.pop("cut"), fields.pop("commit")
        return cls(
            **fields | {"sites": tuple(fields["sites"])},
            cut=CutFacts(**cut) if cut else None,
            commit=CommitFacts(**commit | {"earlier_cut": tuple(commit.get("earlier_cut", ()))}) if commit else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalizedFacts:
    """A site's own state, and where it was noted that it counts. alias, gate: as of a round's commit."""

    site: str
    committed_s: float
    version: int
    samples: int
    metrics: Mapping[str, float]
    alias: str = "production"
    gate: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "LocalizedFacts":
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """A job. rounds: from round 0, all but perhaps the last committed. localized: by site.

    config_sha256: of the configuration that it was launched with.
    status: queued, running, paused, finished, failed or cancelled, since since_s; reason: of a pause or an end;
    ended_s: of an end.
    """

    config_sha256: str = ""
    status: str = "queued"
    reason: str = ""
    since_s: float = 0.0
    launched_s: float = 0.0
    ended_s: float = 0.0
    rounds: tuple[RoundFacts, ...] = ()
    localized: Mapping[str, LocalizedFacts] = field(default_factory=dict)

    def with_round(self, noted: RoundFacts) -> "JobFacts":
        """The same, with this round in the place of what was known of it."""
        others = [past for past in self.rounds if past.round != noted.round]
        return replace(self, rounds=tuple(sorted([*others, noted], key=lambda past: past.round)))

    @property
    def committed(self) -> tuple[RoundFacts, ...]:
        return tuple(past for past in self.rounds if past.commit)

    @property
    def open_round(self) -> RoundFacts | None:
        """The round that is open."""
        return next((past for past in self.rounds if not past.commit), None)

    @property
    def version(self) -> int:
        """Of the newest committed state; 0 where there is none."""
        return self.newest.version if self.newest else 0

    @property
    def newest(self) -> CommitFacts | None:
        """What is known of it."""
        commits = (past.commit for past in self.rounds if past.commit)
        return max(commits, key=lambda commit: commit.version, default=None)
