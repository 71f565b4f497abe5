"""What a job's state machine asks for. Values to be logged and replayed; they know nothing.

sites: those that are asked, in the order of their names.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.events import UpdateArrived
from geotrain.tasks.features import Statistics
from geotrain.view.cut import Digests, Fingerprints


@dataclass(frozen=True, slots=True)
class Prepare:
    site: str


@dataclass(frozen=True, slots=True)
class ScanCut:
    sites: tuple[str, ...]
    round: int
    until_ns: int
    base_version: int


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
    """updates: in the order of the sites' names, whatever the order of arrival."""

    round: int
    base_version: int
    updates: tuple[UpdateArrived, ...]
    seconds: float
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
class End:
    finished: bool
    reason: str


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
    | PublishLocalized
    | End
)
