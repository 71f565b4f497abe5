"""Whether this coordinator leads: events in, instructions out. Pure: no clock, no store, no logging.

Time is an argument, in seconds of this machine's own monotonic clock. The lease gives liveness and no safety: whether
it has run out is the server's to judge, and that no two leaders write is what epochs are for.
"""

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from geotrain.lease import Lease


class Role(StrEnum):
    STANDBY = "standby"
    LEADING = "leading"
    STOPPING = "stopping"
    """No longer leading; the jobs of the term are being stopped."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What the record says. lease: None where no one has ever led."""

    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Taken:
    """The lease is ours. asked_s: when, before the call was sent."""

    lease: Lease
    asked_s: float


@dataclass(frozen=True, slots=True)
class Renewed:
    asked_s: float


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The lease that we held is another's."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A look, a taking or a renewal that came to nothing, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The jobs of the term that ended have stopped."""


@dataclass(frozen=True, slots=True)
class Tick:
    pass


Event = Looked | Taken | Renewed | TakenOver | Unanswered | Stopped | Tick


@dataclass(frozen=True, slots=True)
class Look:
    pass


@dataclass(frozen=True, slots=True)
class Take:
    """seen: the lease that must not have changed."""

    seen: Lease | None


@dataclass(frozen=True, slots=True)
class Renew:
    epoch: int


@dataclass(frozen=True, slots=True)
class Lead:
    epoch: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the jobs of the term; write nothing more."""

    reason: str


Instruction = Look | Take | Renew | Lead | Stop

# Of a lease: how often a standby looks, and a leader renews; and how long before its end a leader stops by itself.
LOOK_SHARE = 1 / 40
RENEW_SHARE = 1 / 5
MARGIN_SHARE = 1 / 5


class Leadership:
    """One coordinator's part in who leads. `handle` is the only thing that changes it.

    owner, lease_s: as this coordinator writes them into a lease. leader: the lease as it was seen last. epoch: of the
    term, while there is one. due_s: when the next Tick is wanted.
    """

    def __init__(self, owner: str, lease_s: float, *, now_s: float) -> None:
        self.role = Role.STANDBY
        self.reason = "looking for the leader"
        self.since_s = now_s
        self.epoch = 0
        self.leader: Lease | None = None
        self.story: deque[str] = deque(maxlen=200)
        self._owner = owner
        self._lease_s = lease_s
        self._is_asking = False
        self._ask_again_s = now_s
        self._same_since_s = now_s
        self._holds_until_s = 0.0

    @property
    def is_leading(self) -> bool:
        return self.role is Role.LEADING

    def holds_at(self, now_s: float) -> bool:
        """Whether the lease can still be relied on."""
        return self.is_leading and now_s < self._holds_until_s

    @property
    def due_s(self) -> float:
        ask_s = math.inf if self._is_asking or self.role is Role.STOPPING else self._ask_again_s
        return min(ask_s, self._holds_until_s) if self.is_leading else ask_s

    def handle(self, event: Event, *, now_s: float) -> list[Instruction]:
        """Take one event; return what is to be done, in this order."""
        if not isinstance(event, Tick):
            self.story.append(f"{now_s:.3f} {self.role} {event}")
        if not isinstance(event, Tick | Stopped):
            self._is_asking = False
        match event:
            case Looked(lease) if self.role is Role.STANDBY:
                return self._look_at(lease, now_s)
            case Taken(lease, asked_s) if self.role is Role.STANDBY:
                self.leader, self._holds_until_s = lease, asked_s + self._own_share_s()
                if now_s < self._holds_until_s:
                    return self._lead(lease, now_s)
                self.reason = "the lease was taken too slowly to be of use"
            case Renewed(asked_s) if self.is_leading:
                self._holds_until_s = asked_s + self._own_share_s()
                self._ask_again_s = asked_s + self._lease_s * RENEW_SHARE
                self.reason = f"leads under epoch {self.epoch}"
            case TakenOver(reason) if self.is_leading:
                return self._stop(reason, now_s)
            case Unanswered(reason):
                self._ask_again_s = now_s + self._lease_s * LOOK_SHARE
                self.reason = reason
            case Stopped() if self.role is Role.STOPPING:
                self._enter(Role.STANDBY, self.reason, now_s)
        return self._go_on(now_s)

    def _own_share_s(self) -> float:
        """How long a leader relies on its lease after it has asked for it."""
        return self._lease_s * (1 - MARGIN_SHARE)

    def _look_at(self, lease: Lease | None, now_s: float) -> list[Instruction]:
        self._ask_again_s = now_s + self._lease_s * LOOK_SHARE
        if lease != self.leader:
            self.leader, self._same_since_s = lease, now_s
        if lease is None or lease.owner in ("", self._owner):  # never held, given back, or of a write in doubt
            return self._ask(Take(lease))
        self.reason = f"epoch {lease.epoch} leads at {lease.address}"
        # It was renewed up to a look before we saw it. The server knows when; it refuses who comes too early.
        if now_s - self._same_since_s >= lease.lease_s - self._lease_s * LOOK_SHARE:
            self.reason += f", silent for {now_s - self._same_since_s:.1f} s"
            return self._ask(Take(lease))
        return []

    def _lead(self, lease: Lease, now_s: float) -> list[Instruction]:
        self.epoch = lease.epoch
        self._ask_again_s = now_s + self._lease_s * RENEW_SHARE
        self._enter(Role.LEADING, f"leads under epoch {lease.epoch}", now_s)
        return [Lead(lease.epoch)]

    def _stop(self, reason: str, now_s: float) -> list[Instruction]:
        self._enter(Role.STOPPING, reason, now_s)
        self.epoch = 0
        return [Stop(reason)]

    def _go_on(self, now_s: float) -> list[Instruction]:
        if self.is_leading and not self.holds_at(now_s):
            return self._stop(f"the lease of epoch {self.epoch} could not be renewed in time: {self.reason}", now_s)
        if self._is_asking or self.role is Role.STOPPING or now_s < self._ask_again_s:
            return []
        return self._ask(Renew(self.epoch) if self.is_leading else Look())

    def _ask(self, instruction: Instruction) -> list[Instruction]:
        """One call at a time."""
        self._is_asking = True
        return [instruction]

    def _enter(self, role: Role, reason: str, now_s: float) -> None:
        self.role, self.reason, self.since_s = role, reason, now_s
        self.story.append(f"{now_s:.3f} {role}: {reason}")
