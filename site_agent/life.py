"""How an agent keeps its session with whoever leads: events in, instructions out. Pure: no clock, no store, no stream.

Time is an argument, in seconds of a monotonic clock. A leader that was not tried yet is dialled at once; one that did
not answer, after a pause. A session with a leader that has been replaced is given up, though its stream may still hold.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from geotrain.lease import Lease


class Phase(StrEnum):
    LOOKING = "looking"
    DIALLING = "dialling"
    JOINED = "joined"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class LeaseRead:
    """What the lease says. None: no coordinator has ever led."""

    lease: Lease | None


@dataclass(frozen=True, slots=True)
class LeaseUnread:
    reason: str


@dataclass(frozen=True, slots=True)
class Welcomed:
    pass


@dataclass(frozen=True, slots=True)
class Broken:
    """The stream has ended, or could not be opened."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The coordinator does not want this agent. is_double: since it has another one of this site."""

    reason: str
    is_double: bool


@dataclass(frozen=True, slots=True)
class Tick:
    pass


Event = LeaseRead | LeaseUnread | Welcomed | Broken | Refused | Tick


@dataclass(frozen=True, slots=True)
class ReadLease:
    pass


@dataclass(frozen=True, slots=True)
class Dial:
    address: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the stream, or the attempt at one; `Broken` follows."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


Instruction = ReadLease | Dial | HangUp | GiveUp

# From one's own rack: cheap, and what makes a change of leader quick.
LOOK_EVERY_S = 0.25
WATCH_EVERY_S = 1.0
WELCOME_DEADLINE_S = 5.0


class Life:
    """One agent's session. `handle` is the only thing that changes it.

    address: of the coordinator, where it is configured; empty: the leader's, by the lease. delays_s: makes the pauses
    between tries, from the first on. due_s: when the next Tick is wanted.
    """

    def __init__(self, site: str, address: str, *, now_s: float, delays_s: Callable[[], Iterator[float]]) -> None:
        self.phase = Phase.LOOKING
        self.reason = "looking for the leader"
        self.due_s = now_s
        self.story: deque[str] = deque(maxlen=200)
        self._site = site
        self._address = address
        self._new_delays_s = delays_s
        self._delays_s = delays_s()
        self._epoch = 0
        self._dialled = ""
        self._dial_again_s = now_s
        self._welcome_by_s = now_s
        self._was_welcomed = False
        self._is_reading = False
        self._is_hanging_up = False

    def handle(self, event: Event, *, now_s: float) -> list[Instruction]:
        """Take one event; return what is to be done, in this order."""
        if not isinstance(event, Tick | LeaseRead):
            self.story.append(f"{now_s:.3f} {self.phase} {event}")
        if isinstance(event, LeaseRead | LeaseUnread):
            self._is_reading = False
        match event:
            case LeaseRead(lease):
                return self._take_lease(lease, now_s)
            case LeaseUnread(reason) if self.phase is Phase.LOOKING:
                self.reason = reason
            case Welcomed() if self.phase is Phase.DIALLING:
                self.phase, self.reason, self._was_welcomed = Phase.JOINED, "joined", True
                self._delays_s = self._new_delays_s()
            case Broken(reason):
                self._look(reason, now_s)
            case Refused(reason, is_double):
                # Right after a broken stream the coordinator may still hold our old one.
                if not (is_double and self._was_welcomed):
                    self.phase, self.reason = Phase.ENDED, reason
                    return [GiveUp(reason)]
                self._look(reason, now_s)
            case Tick():
                return self._go_on(now_s)
        return []

    def _take_lease(self, lease: Lease | None, now_s: float) -> list[Instruction]:
        if lease is None or not lease.is_held:
            if self.phase is Phase.LOOKING:
                self.reason = "no coordinator leads"
            return []
        if self.phase is Phase.LOOKING and (lease.epoch > self._epoch or now_s >= self._dial_again_s):
            if lease.epoch > self._epoch:  # it may not be through with taking over
                self._epoch, self._delays_s = lease.epoch, self._new_delays_s()
            return self._dial(lease.address_for(self._site), now_s)
        # The same coordinator under a later epoch has ended the streams of its last term itself.
        is_elsewhere = lease.address_for(self._site) != self._dialled
        if self.phase in (Phase.DIALLING, Phase.JOINED) and lease.epoch > self._epoch and is_elsewhere:
            return self._hang_up(f"epoch {lease.epoch} leads now, at {lease.address_for(self._site)}")
        return []

    def _go_on(self, now_s: float) -> list[Instruction]:
        if now_s < self.due_s:
            return []
        if self.phase is Phase.DIALLING and now_s >= self._welcome_by_s:
            self.due_s = now_s + WATCH_EVERY_S
            return self._hang_up(f"no welcome within {WELCOME_DEADLINE_S:g} s")
        if self._address:
            if self.phase is Phase.LOOKING:
                return self._dial(self._address, now_s)
            self.due_s = now_s + WATCH_EVERY_S
            return []
        self.due_s = now_s + (LOOK_EVERY_S if self.phase is Phase.LOOKING else WATCH_EVERY_S)
        if self._is_reading:
            return []
        self._is_reading = True
        return [ReadLease()]

    def _look(self, reason: str, now_s: float) -> None:
        self.phase, self.reason, self._is_hanging_up = Phase.LOOKING, reason, False
        self._dial_again_s = now_s + next(self._delays_s)
        self.due_s = self._dial_again_s if self._address else now_s

    def _dial(self, address: str, now_s: float) -> list[Instruction]:
        self.phase, self.reason, self._dialled = Phase.DIALLING, f"dialling {address}", address
        self._welcome_by_s = now_s + WELCOME_DEADLINE_S
        self.due_s = now_s + WATCH_EVERY_S
        return [Dial(address)]

    def _hang_up(self, reason: str) -> list[Instruction]:
        if self._is_hanging_up:
            return []
        self.reason, self._is_hanging_up = reason, True
        return [HangUp(reason)]
