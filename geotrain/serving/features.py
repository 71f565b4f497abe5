"""Features that live: what a step of a task's join gives at a moment, from a record that is kept for each key.

A `latest` or `window` step is the one declaration. A join executes it over history; here it is executed over the rows
of the source that can still count, which lie in the view by key. Pure: knows no store, and nothing that joins.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import isfinite
from operator import itemgetter
from typing import Any

from geotrain.errors import ConfigError
from geotrain.tasks.config import JoinStep, TaskConfig

EVENTS = "events"  # the one bin of a record: key of a row of the source -> [known at, its values]
MICROSECONDS = 1_000_000
# So many rows known before the bound stay, where the newest of them may count however old it is: if several became
# known in the same microsecond, their values decide which counts.
NUM_SPARE = 4
MAX_NAME_CHARS = 40  # of the source, in the name of the set

Event = list[Any]  # known at (microseconds since the Unix epoch), then the values of the columns
Events = Mapping[Any, Event]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStep:
    """One step, and where its columns are in an event.

    within_us: None where old rows count however old they are. is_ordered: whether the order of the events that became
    known at the same moment matters: it decides how a sum of floats is rounded.
    """

    step: JoinStep
    places: tuple[int, ...]
    within_us: int | None
    is_ordered: bool

    def values(self, known: Sequence[Event], times: Sequence[int], time_us: int) -> dict[str, Any]:
        """What the step gives at a time. known: events up to then, oldest first; times: when each became known."""
        if self.step.kind == "latest":
            return self._latest(known, times, time_us)
        assert self.within_us is not None  # the task's checks saw to it
        seen = known[bisect_right(times, time_us - self.within_us) :]
        if self.is_ordered:
            seen = sorted(seen, key=self._order)
        return {
            new: aggregate(self.step.aggregate, [event[place] for event in seen])
            for new, place in zip(self.step.columns, self.places, strict=True)
        }

    def _latest(self, known: Sequence[Event], times: Sequence[int], time_us: int) -> dict[str, Any]:
        if not known or (self.within_us is not None and times[-1] < time_us - self.within_us):
            return dict.fromkeys(self.step.new_columns())
        newest = max(known[bisect_left(times, times[-1]) :], key=self._order)
        found = {new: newest[place] for new, place in zip(self.step.columns, self.places, strict=True)}
        return found | ({self.step.age_s: (time_us - times[-1]) / MICROSECONDS} if self.step.age_s else {})

    def _order(self, event: Event) -> tuple[Any, ...]:
        """As a join orders rows: by time, then by value; null is the least, NaN the greatest."""
        values = [event[place] for place in self.places]
        return event[0], *((value is not None, value != value, value) for value in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFeatures:
    """Steps that take from one source by the same keys, and the records that serve them: a set of the view.

    by: column of the rows -> column of the source. columns: of the source, in the order of an event's values.
    keep_us: how old a row may be and count. num_spare: how many older ones are kept, for steps where the newest counts
    however old it is.
    set_name: says what the records hold, so steps that were declared otherwise have other records.
    """

    source: str
    by: tuple[tuple[str, str], ...]
    known_at: str
    columns: tuple[str, ...]
    keep_us: int
    num_spare: int
    steps: tuple[LiveStep, ...]
    set_name: str

    def key(self, row: Mapping[str, Any]) -> str | None:
        """The key of the record that a row of the samples asks for; None where one of its keys is null."""
        return key_of([row[ours] for ours, _ in self.by])

    def new_columns(self) -> list[str]:
        """The names that the steps give."""
        return [name for step in self.steps for name in step.step.new_columns()]

    def values(self, bins: Mapping[str, Any] | None, time_us: int) -> dict[str, Any]:
        """What the steps give at a time, from the bins of the row's record; None where there is none."""
        events: Events = bins[EVENTS] if bins else {}
        known = sorted((event for event in events.values() if event[0] <= time_us), key=itemgetter(0))
        times = [event[0] for event in known]
        found: dict[str, Any] = {}
        for step in self.steps:
            found |= step.values(known, times, time_us)
        return found

    def changes(self, rows: Iterable[tuple[Any, Mapping[str, Any]]], late_us: int) -> "dict[str, Change]":
        """What rows of the source, given with their keys, change: by the key of the record."""
        by_record: dict[str, dict[Any, Event]] = {}
        for row_key, row in rows:
            record = key_of([row[theirs] for _, theirs in self.by])
            if record is not None and row[self.known_at] is not None:
                event = [row[self.known_at], *(row[column] for column in self.columns)]
                by_record.setdefault(record, {})[row_key] = event
        return {record: self._change(events, late_us) for record, events in by_record.items()}

    def _change(self, events: Events, late_us: int) -> "Change":
        newest = max(event[0] for event in events.values())
        change = Change(events, newest - late_us - self.keep_us, self.num_spare)
        return replace(change, events=change.apply({}))


@dataclass(frozen=True, slots=True)
class Change:
    """What one write does to a record: it puts events, then removes what can no longer count.

    keep_from_us: what became known earlier goes, but for the newest num_spare.
    """

    events: Events
    keep_from_us: int
    num_spare: int

    def apply(self, held: Events) -> dict[Any, Event]:
        """The events that a record holds after the write; `geotrain.serving.live` has the server do the same."""
        events = {**held, **self.events}
        old = [key for key, event in events.items() if event[0] < self.keep_from_us]
        if self.num_spare:
            old = sorted(old, key=lambda key: rank(events[key]))[: -self.num_spare]
        gone = set(old)
        return {key: event for key, event in events.items() if key not in gone}


def live_features(task: TaskConfig, sources: Collection[str]) -> list[LiveFeatures]:
    """The features that live of these sets of the view: of the task's latest and window steps that take from them.

    Raises ConfigError for a set that no step takes from, and for a step whose keys can't be known before the view is
    read, or are floats.
    """
    shared = task.view_columns()
    together: dict[tuple[str, tuple[tuple[str, str], ...], str], list[JoinStep]] = {}
    for number, step in enumerate(task.join):
        if step.source not in sources or step.source not in task.view or step.known_at is None:
            continue
        for ours, theirs in step.by.items():
            if ours in shared:
                raise ConfigError(
                    f"task.join[{number}].by: {ours} comes from the view itself, and a look-up reads the view once",
                    f"join by a column of the site's own, or leave {step.source} out where features are looked up",
                )
            if task.view[step.source].columns[theirs] == "float64":
                raise ConfigError(
                    f"task.join[{number}].by: {theirs} is float64, which no record is kept by", "join by another type"
                )
        by = tuple(sorted(step.by.items(), key=itemgetter(1, 0)))
        together.setdefault((step.source, by, step.known_at), []).append(step)
    if unused := set(sources) - {source for source, *_ in together}:
        raise ConfigError(
            f"no latest or window step of task {task.name} takes from a set {', '.join(sorted(unused))} of the view",
            f"such sets are: {', '.join(sorted(live_sources(task))) or 'none'}",
        )
    return [_features(*declared, steps, task) for declared, steps in together.items()]


def live_sources(task: TaskConfig) -> set[str]:
    """The sets of the view that latest and window steps take from."""
    return {step.source for step in task.join if step.source in task.view and step.known_at is not None}


def _features(
    source: str, by: tuple[tuple[str, str], ...], known_at: str, steps: Sequence[JoinStep], task: TaskConfig
) -> LiveFeatures:
    columns = tuple(sorted({column for step in steps for column in step.columns.values()}))
    limits = [_within_us(step) for step in steps]
    keep_us, num_spare = max(limit or 0 for limit in limits), NUM_SPARE if None in limits else 0
    declared = json.dumps([source, [theirs for _, theirs in by], known_at, columns, keep_us, num_spare])
    return LiveFeatures(
        source=source,
        by=by,
        known_at=known_at,
        columns=columns,
        keep_us=keep_us,
        num_spare=num_spare,
        steps=tuple(_live_step(step, columns, task.view[source].columns) for step in steps),
        set_name=f"gt_live_{source[:MAX_NAME_CHARS]}_{sha256(declared.encode()).hexdigest()[:8]}",
    )


def _live_step(step: JoinStep, columns: Sequence[str], types: Mapping[str, str]) -> LiveStep:
    has_floats = any(types[column] == "float64" for column in step.columns.values())
    return LiveStep(
        step=step,
        places=tuple(1 + columns.index(column) for column in step.columns.values()),
        within_us=_within_us(step),
        is_ordered=has_floats and step.aggregate in ("sum", "mean"),
    )


def _within_us(step: JoinStep) -> int | None:
    return None if step.within_s is None else round(step.within_s * MICROSECONDS)


def key_of(values: Sequence[Any]) -> str | None:
    """The key of a record, for the values of the source's keys; None where one is null, which matches nothing."""
    if any(value is None for value in values):
        return None
    return json.dumps([to_us(value) if isinstance(value, datetime) else value for value in values])


def to_us(moment: datetime) -> int:
    """Microseconds since the Unix epoch; a time without a zone is taken for UTC."""
    return (moment - datetime(1970, 1, 1, tzinfo=moment.tzinfo and UTC)) // timedelta(microseconds=1)


def aggregate(kind: str | None, values: Sequence[float | None]) -> float | None:
    """What a window step gives for the values in its window, in their order: to the bit what a join gives.

    Nulls and numbers that are not finite are left out; an aggregate of nothing is None, a count of nothing is 0.
    """
    finite = [value for value in values if value is not None and isfinite(value)]
    if kind == "count":
        return len(finite)
    if not finite:
        return None
    if kind in ("min", "max"):
        return float(min(finite) if kind == "min" else max(finite))
    if isinstance(finite[0], int):  # the whole column is of integers, whose sum no order changes
        total = float(sum(finite))
    else:
        total = _sum([value if value is not None and isfinite(value) else 0.0 for value in values])
    return total / len(finite) if kind == "mean" else total


def _sum(values: list[float]) -> float:
    """The sum, in the order in which a join adds: sums of 1, 2, 4, ... values, as the bits of their number say."""
    total, at, length = 0.0, 0, 1
    while at < len(values):
        if len(values) & length:
            block = values[at : at + length]
            while len(block) > 1:
                block = [left + right for left, right in zip(block[::2], block[1::2], strict=True)]
            total += block[0]
            at += length
        length *= 2
    return total


def rank(event: Event) -> tuple[Any, ...]:
    """Orders events as the server orders lists: element by element, null before all else."""
    return event[0], *((value is not None, value) for value in event[1:])
