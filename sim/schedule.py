"""What goes wrong in a simulation, and when: orders with their times, drawn from a seed or read from a script. Pure."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

_PAUSE_S = (4.0, 12.0)  # from the beginning of a fault to that of the next
_LENGTH_S = (5.0, 15.0)  # of a fault


class Order(NamedTuple):
    """at_s: seconds from the start. text: what is ordered, as a control port takes it."""

    at_s: float
    text: str

    def __str__(self) -> str:
        """A line of a script."""
        return f"{self.at_s:.3f} {self.text}"


def parse(script: str) -> list[Order]:
    """The orders of a script, by their times: a line each, `SECONDS ORDER`; `#` begins a line that is no order.

    Raises ValueError that names the line.
    """
    orders = []
    for number, line in enumerate(script.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        seconds, _, text = line.strip().partition(" ")
        try:
            at_s = float(seconds)
        except ValueError:
            at_s = -1.0
        if not 0 <= at_s < float("inf") or not text.strip():
            raise ValueError(f"line {number} must be seconds from the start and an order, got {line!r}")
        orders.append(Order(at_s, text.strip()))
    return sorted(orders, key=lambda order: order.at_s)


def draw(seed: int, sites: Sequence[str], duration_s: float, nodes: Sequence[str] = ()) -> list[Order]:
    """Faults of any kind at any site, each overlapping the next; at the end of the duration all is whole again.

    One site only may lose its memory, so that no acknowledged write is lost for good. nodes: those that share a site,
    and so may fail alone.
    """
    if len(sites) < 2:
        raise ValueError(f"sites must be two or more, got {', '.join(sites) or 'none'}")
    if not 0 < duration_s < float("inf"):
        raise ValueError(f"duration_s must be positive, got {duration_s:g}")
    random = Random(seed)
    forgetful = random.choice(sites)
    orders = []
    at_s = random.uniform(0, min(_PAUSE_S[0], duration_s / 2))
    while at_s < duration_s:
        begin, end = _fault(random, sites, nodes, forgetful)
        orders.append(Order(round(at_s, 3), begin))
        orders.append(Order(round(min(at_s + random.uniform(*_LENGTH_S), duration_s), 3), end))
        at_s += random.uniform(*_PAUSE_S)
    orders += [Order(round(duration_s, 3), text) for text in healing(sites)]
    return sorted(orders, key=lambda order: order.at_s)


def _fault(random: Random, sites: Sequence[str], nodes: Sequence[str], forgetful: str) -> tuple[str, str]:
    """The orders that begin and end a fault."""
    site, other = random.sample(sites, 2)
    where = f"node={random.choice(nodes)}" if nodes and random.random() < 0.5 else f"site={site}"
    link = f"from={site};to={other}"
    skew_ms = random.choice([-25_000, -10_000, 10_000, 25_000])
    delay_ms = random.choice([3, 30, 200])
    kind = random.choice(["drop", "close", "late;delay_ms=400", "code;code=18"])
    return random.choice(
        [
            (f"kill:{where}", f"start:{where}"),
            (f"kill:site={forgetful};memory=lost", f"start:site={forgetful}"),
            (f"pause:{where}", f"resume:{where}"),
            (f"cut:site={site}", f"heal:site={site}"),
            (f"cut:{link}", f"heal:{link}"),
            (f"slow:site={site};delay_ms={delay_ms};jitter_ms=3", f"heal:site={site}"),
            (f"skew:{where};ms={skew_ms}", f"skew:{where};ms=0"),
            (f"misbehave:{where};kind={kind};count=5", f"behave:{where}"),
        ]
    )


def healing(sites: Sequence[str]) -> list[str]:
    """The orders that end all faults there are."""
    ends = ("start:site={}", "resume:site={}", "behave:site={}", "skew:site={};ms=0")
    return ["heal", *(end.format(site) for site in sites for end in ends)]
