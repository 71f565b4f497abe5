"""What a job's state machine asks for. Values to be logged and replayed; they know nothing.

sites: those that are asked, in the order of their names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator.events import UpdateArrived
from geotrain.tasks.features import Statistics
from geotrain.view.cut import Digests, Fingerprints


@dataclass(frozen=True, slots=True)
class Prepare:
    site: str


@dataclass(frozen=True, slots=True)
class ScanCut:
    """number: of the round's cuts, from 1. One that the ledger names is at the moment that it says, another one now."""

    sites: tuple[str, ...]
    round: int
    base_version: int
    number: int = 1


@dataclass(frozen=True, slots=True)
class ListCutRows:
    sites: tuple[str, ...]
    round: int
    partitions: Mapping[str, list[int]]


@dataclass(frozen=True, slots=True)
class DecideCut:
    """drop: by set, what no site may use, since sites read different versions of them."""

    sites: tuple[str, ...]
    round: int
    rows: int
    drop: Mapping[str, Digests]
    equal: bool
    fingerprints: Mapping[str, Fingerprints]


@dataclass(frozen=True, slots=True)
class AskStatistics:
    sites: tuple[str, ...]
    round: int


@dataclass(frozen=True, slots=True)
class PublishInitial:
    statistics: Mapping[str, Statistics]


@dataclass(frozen=True, slots=True)
class Train:
    sites: tuple[str, ...]
    round: int
    base_version: int


@dataclass(frozen=True, slots=True)
class PublishRound:
    """updates: in the order of the sites' names, whatever the order of arrival. phases_s: seconds by phase since the
    round before. absent: why a site is not in it. oldest: the earliest round whose updates are taken after this one."""

    round: int
    base_version: int
    updates: tuple[UpdateArrived, ...]
    reason: str
    phases_s: Mapping[str, float] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    oldest: int = 0


@dataclass(frozen=True, slots=True)
class DropUpdate:
    """The update is in no state and will be in none."""

    update: UpdateArrived
    reason: str


@dataclass(frozen=True, slots=True)
class Localize:
    sites: tuple[str, ...]
    base_version: int


@dataclass(frozen=True, slots=True)
class PublishLocalized:
    update: UpdateArrived
    base_version: int


@dataclass(frozen=True, slots=True)
class Suspend:
    """Stop here, to go on from the ledger when the job is resumed."""

    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """status: finished, failed or cancelled."""

    status: str
    reason: str

    @property
    def finished(self) -> bool:
        return self.status == "finished"


Instruction = (
    Prepare
    | ScanCut
    | ListCutRows
    | DecideCut
    | AskStatistics
    | PublishInitial
    | Train
    | PublishRound
    | Localize
    | DropUpdate
    | PublishLocalized
    | Suspend
    | End
)
