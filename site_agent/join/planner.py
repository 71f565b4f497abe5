"""Chooses how the rows of a join meet each source, and says why in one line. Pure: knows no rows, no Ray, no store."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from geotrain.errors import GeotrainError
from geotrain.tasks.config import JoinStep, TaskConfig


class Plan(StrEnum):
    """How rows and source meet; as the field `plan` of a join step has it."""

    CO_PARTITIONED = "co_partitioned"
    LOOKUP = "lookup"
    BROADCAST = "broadcast"
    SHUFFLE = "shuffle"


WORDS = {
    Plan.CO_PARTITIONED: "co-partitioned",
    Plan.LOOKUP: "look-up",
    Plan.BROADCAST: "broadcast",
    Plan.SHUFFLE: "shuffle",
}


@dataclass(frozen=True, slots=True)
class Rates:
    """Rows a second of the whole site, by what is done: assumed for a small machine; scan and lookup until measured.

    scan: reads records of whole partitions. lookup: reads records by key. build: takes a source's rows into a task's
    memory. bucket: sorts local rows by partition. shuffle: redistributes rows of both sides.
    """

    scan: float = 1e6
    lookup: float = 1e5
    build: float = 1e7
    bucket: float = 1e6
    shuffle: float = 5e5
    measured: frozenset[str] = frozenset()

    def measure(self, name: str, num_rows: int, seconds: float) -> "Rates":
        """Return these rates with what was seen last. Too few rows say more about latency than about a rate."""
        if num_rows < 1000 or seconds <= 0:
            return self
        return replace(self, **{name: num_rows / seconds}, measured=self.measured | {name})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is known of a step's source before it is read.

    num_rows, num_bytes: of one whole copy. num_keys: distinct record keys that the local rows hold; None where they
    hold none. is_local: one of the site's own datasets. must_be_read: whole, for a proof. is_bucketed: the local rows
    lie on disk by partition already.
    """

    num_rows: int
    num_bytes: int
    num_keys: int | None = None
    is_local: bool = False
    must_be_read: bool = False
    is_bucketed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the join runs on: local rows, tasks that run at once, tasks in all, what a task may be given whole."""

    num_rows: int
    num_cpus: int
    num_tasks: int
    max_broadcast_bytes: int
    rates: Rates = field(default_factory=Rates)


@dataclass(frozen=True, slots=True)
class Decision:
    """How a step is done, and why, in one line."""

    plan: Plan
    reason: str


def plan_steps(task: TaskConfig, sources: Mapping[int, Source], site: Site) -> list[Decision]:
    """Decide every step of the task's join, in order.

    sources: by the number of the step. Raises GeotrainError where a plan was asked for, or is needed, and can't be.
    """
    aligned_with: tuple[str, str | None] | None = None  # the set, and the column, by whose partitions the rows lie
    is_shuffled = False
    decisions = []
    for number, step in enumerate(task.join):
        key = (step.source, task.key_column(step))
        is_alignable = not is_shuffled and aligned_with in (None, key)
        decision = _decide(f"task.join[{number}]", step, sources[number], site, is_alignable)
        if decision.plan is Plan.CO_PARTITIONED:
            aligned_with = key
        is_shuffled |= decision.plan is Plan.SHUFFLE
        decisions.append(decision)
    return decisions


def _decide(at: str, step: JoinStep, source: Source, site: Site, is_alignable: bool) -> Decision:
    seconds = _seconds(step, source, site, is_alignable)
    if step.plan != "auto":
        plan = Plan(step.plan)
        if plan not in seconds:
            raise GeotrainError(f"{at}.plan: {step.plan} can't be: {_hindrance(plan, source, site)}", "Use plan: auto.")
        return Decision(plan, f"join {step.source}: {WORDS[plan]}, as {at}.plan says ({_size(plan, source, site)})")
    choice = {plan: s for plan, s in seconds.items() if plan is not Plan.LOOKUP or not source.must_be_read}
    if not choice:
        raise GeotrainError(
            f"{at}: {step.source} is too big to be broadcast ({_bytes(source.num_bytes)}, the limit is "
            f"{_bytes(site.max_broadcast_bytes)}), and the step has no keys by which it could be shuffled",
            "Give the step keys in `by`, or raise site.ray.object_store_bytes.",
        )
    plan = min(choice, key=lambda plan: choice[plan])
    others = {other: s for other, s in seconds.items() if other is not plan}
    return Decision(plan, f"join {step.source}: {WORDS[plan]} ({_why(plan, source, site, choice[plan], others)})")


def _seconds(step: JoinStep, source: Source, site: Site, is_alignable: bool) -> dict[Plan, float]:
    """How long each plan that is possible would take, about."""
    rates = site.rates
    read = 0.0 if source.is_local else source.num_rows / rates.scan
    seconds = {}
    if source.num_keys is not None:
        if is_alignable:
            seconds[Plan.CO_PARTITIONED] = read + (0 if source.is_bucketed else site.num_rows / rates.bucket)
        seconds[Plan.LOOKUP] = source.num_keys / rates.lookup
    if source.num_bytes <= site.max_broadcast_bytes:
        seconds[Plan.BROADCAST] = read + source.num_rows / rates.build * site.num_tasks / site.num_cpus
    if step.by:
        seconds[Plan.SHUFFLE] = read + (site.num_rows + source.num_rows) / rates.shuffle
    return seconds


def _hindrance(plan: Plan, source: Source, site: Site) -> str:
    if plan is Plan.BROADCAST:
        return f"{_bytes(source.num_bytes)} are over the limit of {_bytes(site.max_broadcast_bytes)} for a broadcast"
    return "an earlier step has put the rows in another order"


def _why(plan: Plan, source: Source, site: Site, seconds: float, others: Mapping[Plan, float]) -> str:
    why = _size(plan, source, site)
    if source.is_local:
        return why
    if others:
        other = min(others, key=lambda other: others[other])
        name = (
            "a scan" if plan is Plan.LOOKUP else f"a {WORDS[other]} join" if other is not Plan.LOOKUP else "a look-up"
        )
        verb = "against" if seconds <= others[other] else "though"
        why += f", {_time(seconds)} {verb} {_time(others[other])} for {name}"
        if verb == "though":
            why += ", which proves nothing"
    used = "lookup" if plan is Plan.LOOKUP else "scan"
    return why if used in site.rates.measured else why + ", assumed"


def _size(plan: Plan, source: Source, site: Site) -> str:
    if plan is Plan.LOOKUP:
        return f"{_count(source.num_keys or 0)} of {_count(source.num_rows)} keys"
    if source.is_local:
        return f"{_count(source.num_rows)} rows of the site's own"
    if plan is Plan.BROADCAST:
        return f"{_count(source.num_rows)} records, {_bytes(source.num_bytes)}"
    return f"{_count(site.num_rows)} rows, {_count(source.num_rows)} records"


def _count(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,}"


def _bytes(number: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:,.0f} s"
