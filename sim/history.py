"""What happened in a job, folded from its events. Pure: knows no clock, no screen and no network."""

from dataclasses import dataclass, field
from math import nan

from coordinator.history import describe
from geotrain.rpc import coordinator_pb2 as pb

IDLE = "idle"


@dataclass(slots=True, kw_only=True)
class Span:
    """A stretch of time that a site spent in one phase. start_s, end_s: Unix epoch; end_s is None while it lasts."""

    site: str
    phase: str
    round: int
    start_s: float
    end_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Site:
    """Where a site stands. rows: of its training set. bytes_up, bytes_down: of the job so far."""

    phase: str = "waiting"
    round: int = 0
    rows: int = 0
    loss: float = nan
    bytes_up: int = 0
    bytes_down: int = 0


@dataclass(slots=True, kw_only=True)
class Cut:
    """The cut of a round: its rows, those dropped, and whether all sites read the same at once."""

    rows: int
    dropped: int
    equal: bool


@dataclass(slots=True, kw_only=True)
class Round:
    """A committed round. bytes_up, bytes_down: of all sites in this round. loss: by site."""

    round: int
    seconds: float
    version: int
    bytes_up: int
    bytes_down: int
    loss: dict[str, float]
    reason: str
    cut: Cut


@dataclass(slots=True, kw_only=True)
class Localized:
    """A site's own model. metrics: local_only, global and localized, on its test rows."""

    state: str
    rows: int
    metrics: dict[str, float]


@dataclass(slots=True, kw_only=True)
class History:
    """A job as far as its events have told. consistency: as the cluster says, strong or eventual."""

    job: str = ""
    num_rounds: int = 0
    consistency: str = ""
    num_racks: int = 0
    sites: dict[str, Site] = field(default_factory=dict)
    cuts: dict[int, Cut] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    localized: dict[str, Localized] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    finished: bool | None = None
    reason: str = ""

    def apply(self, event: pb.JobEvent) -> str | None:
        """Take the next event. Returns one line for people, where a state changed."""
        self.job = event.job
        match event.WhichOneof("body"):
            case "started":
                self._started(event.started)
            case "site":
                return self._site(event.site.site, event.site.progress, event.time_s)
            case "cut":
                cut = event.cut
                self.cuts[cut.round] = Cut(rows=cut.rows, dropped=cut.dropped, equal=cut.equal)
            case "round":
                self._round(event.round)
            case "localized":
                localized = event.localized
                self.localized[localized.site] = Localized(
                    state=localized.state, rows=localized.rows, metrics=dict(localized.metrics)
                )
            case "ended":
                self.finished, self.reason = event.ended.status == "finished", event.ended.reason
                for site in self.sites:
                    self._end_span(site, event.time_s)
        return describe(event)

    def _started(self, started: pb.JobStarted) -> None:
        self.num_rounds = started.rounds
        self.consistency, self.num_racks = started.consistency, started.racks
        self.sites = {site: Site() for site in started.sites}

    def _site(self, name: str, progress: pb.Progress, time_s: float) -> str | None:
        site = self.sites.setdefault(name, Site())
        changed = (site.phase, site.round) != (progress.phase, progress.round)
        site.phase, site.round = progress.phase, progress.round
        site.rows, site.loss = progress.rows, progress.loss
        site.bytes_up, site.bytes_down = progress.bytes_up, progress.bytes_down
        if not changed:
            return None
        self._end_span(name, time_s)
        if progress.phase == IDLE:
            return None
        self.spans.append(Span(site=name, phase=progress.phase, round=progress.round, start_s=time_s))
        return f"{name}: {progress.phase}" + (f", round {progress.round}" if progress.round else "")

    def _round(self, event: pb.RoundEvent) -> None:
        self.rounds.append(
            Round(
                round=event.round,
                seconds=event.seconds,
                version=event.version,
                bytes_up=event.bytes_up,
                bytes_down=event.bytes_down,
                loss=dict(sorted(event.loss.items())),
                reason=event.reason,
                cut=self.cuts[event.round],
            )
        )

    def _end_span(self, site: str, time_s: float) -> None:
        for span in reversed(self.spans):
            if span.site == site:
                if span.end_s is None:
                    span.end_s = time_s
                return
