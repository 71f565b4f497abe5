"""What can happen to a job. Values to be logged and replayed; they know nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from geotrain.tasks.features import Statistics
from geotrain.view.cut import Fingerprints, Rows


@dataclass(frozen=True, slots=True)
class SiteJoined:
    site: str


@dataclass(frozen=True, slots=True)
class SiteLeft:
    site: str
    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """An update that a site keeps until its round is committed. round: 0 for a localized state."""

    round: int
    base_version: int


@dataclass(frozen=True, slots=True)
class SitePrepared:
    """The site can run the job. held: its unsent update; cut_round: whose decided cut it has joined, 0: none;
    cut_number: which of that round's cuts."""

    site: str
    held: Held | None = None
    cut_round: int = 0
    cut_number: int = 1


@dataclass(frozen=True, slots=True)
class SiteWaits:
    """The site will say later whether it can run the job, and says why."""

    site: str
    reason: str


@dataclass(frozen=True, slots=True)
class SiteFailed:
    """The site can't do what it was asked, and says why. round: 0 while localizing, None where it can't run the job.

    is_final: asked again, it would do the same.
    """

    site: str
    reason: str
    round: int | None = None
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class CutReported:
    site: str
    round: int
    rows: Mapping[str, int]
    fingerprints: Mapping[str, Fingerprints]


@dataclass(frozen=True, slots=True)
class CutRowsListed:
    """A site's rows, by set, in the partitions that it was asked about."""

    site: str
    round: int
    rows: Mapping[str, Rows]


@dataclass(frozen=True, slots=True)
class StatisticsReported:
    site: str
    statistics: Statistics


@dataclass(frozen=True, slots=True)
class UpdateArrived:
    """A checked update lies in the spool. round: 0 for a localized state. cut_number: on which of its round's cuts."""

    site: str
    round: int
    samples: int
    metrics: Mapping[str, float]
    path: Path
    cut_number: int = 1


@dataclass(frozen=True, slots=True)
class Published:
    """The state that the last instruction asked for can be read."""

    version: int


@dataclass(frozen=True, slots=True)
class LocalizedPublished:
    site: str


@dataclass(frozen=True, slots=True)
class PauseAsked:
    reason: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    pass


Event = (
    SiteJoined
    | SiteLeft
    | SitePrepared
    | SiteWaits
    | SiteFailed
    | CutReported
    | CutRowsListed
    | StatisticsReported
    | UpdateArrived
    | Published
    | LocalizedPublished
    | PauseAsked
    | CancelAsked
    | Tick
)
