"""Which agents are here, since when, and why others are not: events in, instructions out. Pure: no clock, no stream.

Time is an argument, in seconds of a monotonic clock. An agent's stream is known by a number. A site has one agent: one
that was restarted may call while the stream of the one before it still stands, its other end long dead. Then the old
stream has to prove itself by a sign of life; if it can't, the newcomer takes its place.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

# In heartbeats: how long nothing is heard of an agent until it is called silent, and until it is given up; how long an
# old stream has to prove itself, and which signs of life are too early to be a proof: they were on their way before.
SILENT_AFTER = 2.0
GONE_AFTER = 4.0
PROOF_WITHIN = 1.5
PROOF_FROM = 0.25


class State(StrEnum):
    HERE = "here"
    SILENT = "silent"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A site's agent. since_s: of its state. heard_s: of its last sign of life. reason: of its state.

    instance: tells one process of the site's agent from another; "" says nothing. version: of its geotrain.
    """

    site: str
    state: State
    since_s: float
    heard_s: float
    reason: str
    stream: int
    instance: str
    version: str


@dataclass(frozen=True, slots=True)
class Called:
    """An agent has opened a stream and said who it is."""

    stream: int
    site: str
    instance: str
    version: str


@dataclass(frozen=True, slots=True)
class Heard:
    stream: int


@dataclass(frozen=True, slots=True)
class HungUp:
    stream: int
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    pass


Event = Called | Heard | HungUp | Tick


@dataclass(frozen=True, slots=True)
class Admit:
    """The stream is its site's from now on."""

    stream: int


@dataclass(frozen=True, slots=True)
class Refuse:
    stream: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drop:
    """The stream, admitted before, is its site's no longer: it is to be ended if it still stands."""

    stream: int
    reason: str


Instruction = Admit | Refuse | Drop


class Membership:
    """The agents by site. `handle` is the only thing that changes them."""

    def __init__(self, heartbeat_s: float) -> None:
        self.members: dict[str, Member] = {}
        self._heartbeat_s = heartbeat_s
        # Streams that wait for the proof of the one that their site has, and since when.
        self._callers: dict[str, tuple[Called, float]] = {}
        self._ticked_s: float | None = None

    def handle(self, event: Event, *, now_s: float) -> list[Instruction]:
        """Take one event; return what is to be done, in this order."""
        match event:
            case Called():
                return self._called(event, now_s)
            case Heard(stream):
                return self._heard(stream, now_s)
            case HungUp(stream, reason):
                return self._hung_up(stream, reason, now_s)
        return self._tick(now_s)

    def _called(self, call: Called, now_s: float) -> list[Instruction]:
        member = self.members.get(call.site)
        if member is None or member.state is State.GONE:
            return [self._admit(call, now_s)]
        if call.instance and call.instance == member.instance:
            return [*self._drop(member, "it dialled again", now_s), self._admit(call, now_s)]
        before = self._callers.get(call.site)
        self._callers[call.site] = call, now_s
        return [Refuse(before[0].stream, f"site {call.site} has called again since")] if before else []

    def _heard(self, stream: int, now_s: float) -> list[Instruction]:
        member = self._of(stream)
        if member is None:
            return []
        if member.state is State.SILENT:
            member = replace(member, state=State.HERE, since_s=now_s, reason="it is heard again")
        self.members[member.site] = replace(member, heard_s=now_s)
        waiting = self._callers.get(member.site)
        if waiting is None or now_s - waiting[1] < PROOF_FROM * self._heartbeat_s:
            return []
        del self._callers[member.site]
        return [
            Refuse(
                waiting[0].stream,
                f"another agent is connected as site {member.site!r}, and answers; a site has one agent",
            )
        ]

    def _hung_up(self, stream: int, reason: str, now_s: float) -> list[Instruction]:
        self._callers = {site: caller for site, caller in self._callers.items() if caller[0].stream != stream}
        member = self._of(stream)
        return self._drop(member, reason, now_s) + self._next(member.site, now_s) if member else []

    def _tick(self, now_s: float) -> list[Instruction]:
        last_s, self._ticked_s = self._ticked_s, now_s
        # A clock that stood still was ours: nobody was silent because we did not listen.
        was_away = last_s is not None and now_s - last_s > self._heartbeat_s
        if was_away:
            self._callers = {site: (call, now_s) for site, (call, _) in self._callers.items()}
        done: list[Instruction] = []
        for site, member in list(self.members.items()):
            if member.state is State.GONE:
                continue
            if was_away:
                self.members[site] = replace(member, heard_s=now_s)
                continue
            silent_s = now_s - member.heard_s
            unproven = site in self._callers and now_s - self._callers[site][1] >= PROOF_WITHIN * self._heartbeat_s
            if silent_s >= GONE_AFTER * self._heartbeat_s or unproven:
                done += self._drop(member, f"silent for {silent_s:.1f} s", now_s) + self._next(site, now_s)
            elif member.state is State.HERE and silent_s >= SILENT_AFTER * self._heartbeat_s:
                reason = f"nothing was heard of it for {SILENT_AFTER:g} heartbeats"
                self.members[site] = replace(member, state=State.SILENT, since_s=now_s, reason=reason)
        return done

    def _admit(self, call: Called, now_s: float) -> Instruction:
        self.members[call.site] = Member(
            site=call.site,
            state=State.HERE,
            since_s=now_s,
            heard_s=now_s,
            reason="it has joined",
            stream=call.stream,
            instance=call.instance,
            version=call.version,
        )
        return Admit(call.stream)

    def _drop(self, member: Member, reason: str, now_s: float) -> list[Instruction]:
        self.members[member.site] = replace(member, state=State.GONE, since_s=now_s, reason=reason)
        return [Drop(member.stream, reason)]

    def _next(self, site: str, now_s: float) -> list[Instruction]:
        """Let in who waits for the site's place."""
        waiting = self._callers.pop(site, None)
        return [self._admit(waiting[0], now_s)] if waiting else []

    def _of(self, stream: int) -> Member | None:
        """Whose stream it is; None for one that is not, or no longer, its site's."""
        return next(
            (one for one in self.members.values() if one.stream == stream and one.state is not State.GONE), None
        )
