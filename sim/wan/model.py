"""The wide area between sites: how long bytes take from one to another, or that none get through. Knows no sockets."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random


@dataclass(slots=True, kw_only=True)
class LinkQuality:
    """What a link does to bytes, in one direction.

    delay_ms: how long a byte takes at least.
    jitter_ms: by how much more, as the standard deviation of a normal distribution of which the positive half counts.
    bytes_per_s: the bandwidth that all connections share; 0 is unlimited.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_s: int = 0

    def __post_init__(self) -> None:
        for name in ("delay_ms", "jitter_ms", "bytes_per_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")


@dataclass(slots=True, kw_only=True)
class LinkConfig(LinkQuality):
    """What lies between two sites.

    sites: from the first to the second; the other direction is the same where no link is given for it.
    delay_ms: how long a byte takes at least, one way.
    jitter_ms: by how much more, as the standard deviation of a normal distribution of which the positive half counts.
    bytes_per_s: the bandwidth of each direction, which all connections share; 0 is unlimited.
    """

    sites: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        LinkQuality.__post_init__(self)
        if len(set(self.sites)) != 2 or len(self.sites) != 2 or not all(self.sites):
            raise ValueError(f"sites must name two sites, got {self.sites}")


class Link:
    """One direction between two sites."""

    def __init__(self, quality: LinkQuality, random: Random) -> None:
        self.quality = self._configured = quality
        self.is_up = True
        self._random = random
        self._is_free_at_s = 0.0
        self._waiting: list[Callable[[], None]] = []

    def delay_s(self) -> float:
        """How long a byte takes now."""
        jitter_ms = abs(self._random.gauss(0.0, self.quality.jitter_ms)) if self.quality.jitter_ms else 0.0
        return (self.quality.delay_ms + jitter_ms) / 1000

    def arrival_s(self, at_s: float, num_bytes: int, now_s: float | None = None) -> float:
        """When bytes that are sent at at_s have all arrived. Bytes sent before them, on any connection, go first.

        now_s: where that is earlier: they are told of in advance. Until at_s the link is not kept free for them, but
        their time on it is counted from now on; else answers to answers would put each other off ever further.
        """
        if self.quality.bytes_per_s:
            takes_s = num_bytes / self.quality.bytes_per_s
            free_at_s = max(at_s if now_s is None else now_s, self._is_free_at_s) + takes_s
            if num_bytes:
                self._is_free_at_s = free_at_s
            at_s = max(at_s + takes_s, free_at_s)
        return at_s + self.delay_s()

    @property
    def is_slowed(self) -> bool:
        """Whether the link is not as it was configured."""
        return self.quality is not self._configured

    def when_healed(self, resume: Callable[[], None]) -> None:
        """Call `resume` once the link is as it was: what was sent meanwhile is late, not lost, as TCP has it."""
        self._waiting.append(resume)

    def cut(self) -> None:
        """Let nothing through."""
        self.is_up = False

    def heal(self) -> None:
        """Let everything through again, as fast as it is configured."""
        self.is_up, self.quality, self._is_free_at_s = True, self._configured, 0.0
        waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume()


class Network:
    """All links between sites, each direction its own. Within a site, and where nothing is configured, no delay."""

    def __init__(self, links: Iterable[LinkConfig], seed: int) -> None:
        self._qualities: dict[tuple[str, ...], LinkQuality] = {tuple(link.sites): link for link in links}
        self._links: dict[tuple[str, str], Link] = {}
        self._seed = seed
        self.has_delays = bool(self._qualities)

    def links(self) -> list[Link]:
        """All links in use so far."""
        return list(self._links.values())

    def link(self, here: str, there: str) -> Link:
        """The direction from one site to another."""
        found = self._links.get((here, there))
        if found is None:
            quality = self._qualities.get((here, there)) or self._qualities.get((there, here)) or LinkQuality()
            found = self._links[here, there] = Link(quality, Random(f"{self._seed} {here} {there}"))
        return found

    def is_up(self, a: str, b: str) -> bool:
        """Whether two sites reach each other, both ways."""
        return self.link(a, b).is_up and self.link(b, a).is_up

    def arrival_s(self, a: str, b: str, at_s: float, num_bytes: int = 0, now_s: float | None = None) -> float:
        """When a message has arrived at b that leaves a at at_s; now_s: where that is earlier."""
        return at_s if a == b else self.link(a, b).arrival_s(at_s, num_bytes, now_s)

    def round_trip_s(self, a: str, b: str) -> float:
        """How long a question and its answer take now, where both are short."""
        return 0.0 if a == b else self.link(a, b).delay_s() + self.link(b, a).delay_s()
