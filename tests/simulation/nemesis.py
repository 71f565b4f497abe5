"""What goes wrong in a history, and when: drawn from a seed, ordered of a running simulated cluster. Pure."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple


class Fault(NamedTuple):
    """The orders that begin and end a fault."""

    begin: str
    end: str


def draw(random: Random, sites: Sequence[str]) -> Fault:
    """Any fault, at any site (which is also the name of its one node)."""
    site, other = random.sample(sites, 2)
    link = f"from={site};to={other}"
    skew_ms = random.choice([-25_000, -10_000, 10_000, 25_000])
    kind = random.choice(["drop", "close", "late;delay_ms=400", "code;code=18"])
    return random.choice(
        [
            Fault(f"kill:node={site}", f"start:node={site}"),
            Fault(f"kill:node={site};memory=lost", f"start:node={site}"),
            Fault(f"pause:node={site}", f"resume:node={site}"),
            Fault(f"cut:site={site}", f"heal:site={site}"),
            Fault(f"cut:{link}", f"heal:{link}"),
            Fault(f"slow:site={site};delay_ms=3;jitter_ms=3", f"slow:site={site}"),
            Fault(f"skew:node={site};ms={skew_ms}", f"skew:node={site};ms=0"),
            Fault(f"misbehave:node={site};kind={kind};count=5", f"behave:node={site}"),
        ]
    )


def schedule(seed: int, sites: Sequence[str], num_steps: int) -> dict[int, list[str]]:
    """The orders by step: faults one after the other, each overlapping the next, all over before the last step."""
    random = Random(seed)
    orders: dict[int, list[str]] = {}
    step = random.randrange(1, 6)
    while step < num_steps - 15:
        fault = draw(random, sites)
        orders.setdefault(step, []).append(fault.begin)
        orders.setdefault(step + random.randrange(5, 15), []).append(fault.end)
        step += random.randrange(4, 12)
    return orders
