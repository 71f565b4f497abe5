"""What goes wrong in a run, and when: drawn from a seed, or left over when a history is shrunk. Pure."""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from tests.simulation.rounds.site import SITES

COORDINATORS = ("coordinator-ewr", "coordinator-jfk")
"""The first starts first, and leads."""
AGENTS = tuple(f"agent-{site}" for site in SITES)
DESK = "desk"
"""Whoever launches, follows and controls jobs."""
MODELS = ("tiny", "small")  # of each a job
FIRST_S, LATEST_S = 0.3, 9.0
"""Between these faults begin that wait for a time: everybody has started, and a job that nothing delays ends then."""
LAST_S = 20.0
"""When clocks that were never put right are."""


WRITES, MESSAGES = 60, 200
"""About how many writes and messages a leader has in a run: faults that wait for one lie among them."""


@dataclass(frozen=True)
class Fault:
    """kind: what goes wrong. who: at which process. at_s: when; where `after` is writes or messages, rather when the
    process has had `count` of them. length_s: until it is mended. other: the far end of a link. detail: of the kind."""

    kind: str
    who: str
    at_s: float = 0.0
    after: str = ""
    count: int = 0
    length_s: float = 0.0
    other: str = ""
    detail: str = ""

    @property
    def touches_sites(self) -> bool:
        """Whether a site may lose its part in a round by it."""
        return self.who in AGENTS

    def __str__(self) -> str:
        when = f"at {self.count} of its {self.after}" if self.after else f"at {self.at_s:.3f} s"
        link = f" to {self.other}" if self.other else ""
        what = f" {self.detail}" if self.detail else ""
        return f"{self.kind}{what}: {self.who}{link}, {when}, for {self.length_s:.3f} s"


def draw(seed: int) -> tuple[Fault, ...]:
    """The faults of a seed. Every other seed spares the sites: then nothing may be lost, not a single update."""
    random = Random(f"faults of {seed}")
    faults = [_fault(random, spares_sites=seed % 2 == 0) for _ in range(random.randint(1, 5))]
    return tuple(sorted(faults, key=lambda fault: (fault.at_s, fault.count)))


def models_of(seed: int) -> tuple[str, ...]:
    """The models whose jobs run at once in a seed."""
    return MODELS if seed % 5 == 4 else MODELS[:1]


def places_of(seed: int) -> dict[str, int]:
    """At which sites a seed has fewer places than jobs (`site.max_jobs`), and how many."""
    random = Random(f"places of {seed}")
    return dict.fromkeys(random.sample(SITES, random.randint(1, len(SITES))), 1) if seed % 20 == 9 else {}


def _fault(random: Random, *, spares_sites: bool) -> Fault:
    coordinator, agent = random.choices(COORDINATORS, (3, 1))[0], random.choice(AGENTS)
    who = coordinator if spares_sites or random.random() < 0.5 else agent
    kinds = [
        "crash",
        "crash",
        "stop",
        "pause",
        "pause",
        "last words",
        "unanswered",
        "slow store",
        "no store",
        "skew",
        "order",
        "desk",
    ]
    kind = random.choice(kinds + ([] if spares_sites else ["break", "break", "cut", "slow link"]))
    fault = Fault(kind, who, **_when(random, who), length_s=_length_s(random))
    match kind:
        case "unanswered":
            fates = [random.choice(["lost", "applied", "late"]) for _ in range(random.randint(1, 3))]
            return replace(fault, who=coordinator, detail=",".join(fates), length_s=0.0)
        case "last words":
            return replace(fault, who=coordinator, after="writes", count=random.randint(1, WRITES))
        case "slow store":
            return replace(fault, detail=str(random.choice([0.1, 0.5, 1.5])))
        case "no store":
            return replace(fault, length_s=min(fault.length_s, 5.0))
        case "skew":
            # Set wrong before the jobs run or in their midst, and right again later.
            at_s = random.choice([FIRST_S, round(random.uniform(FIRST_S, LATEST_S), 3)])
            detail = str(random.choice([-3600.0, -30.0, -5.0, 5.0, 30.0, 3600.0]))
            return Fault("skew", who, at_s=at_s, length_s=random.choice([fault.length_s, LAST_S - at_s]), detail=detail)
        case "order":
            return replace(fault, who=DESK, kind=random.choice(["pause the jobs"] * 5 + ["cancel the jobs"]))
        case "desk":
            return Fault("break", DESK, after="messages", count=random.randint(1, 60))
        case "break":
            return replace(fault, who=agent, length_s=0.0)
        case "cut" | "slow link":
            return replace(fault, who=agent, other=coordinator, detail="1.0" if kind == "slow link" else "")
    return fault


def _when(random: Random, who: str) -> dict[str, Any]:
    after = random.choice(["", "messages", "writes"] if who in COORDINATORS else ["", "messages"])
    if not after:
        return {"at_s": round(random.uniform(FIRST_S, LATEST_S), 3)}
    most = WRITES if after == "writes" else MESSAGES // (1 if who in COORDINATORS else len(AGENTS))
    return {"after": after, "count": random.randint(1, most)}


def _length_s(random: Random) -> float:
    return round(random.choice([0.0, random.uniform(0.1, 3.0), random.uniform(3.0, 14.0)]), 3)
