"""What people do with published states: promote one, roll back to one, pin one. Each says who did it, and why.

Knows nothing of how states are made, and decides nothing: `gate` does.
"""

import getpass
import socket
import time
from dataclasses import dataclass
from typing import Any

from geotrain.errors import ConfigError
from geotrain.states.heads import Bins, change_head, check_counts, pointed, read_record
from geotrain.states.manifest import ALIASES, MANIFESTS, Manifest, UnknownState, check_names, head_key, reference
from geotrain.view.connect import View
from geotrain.view.query import read_set

REQUIRED = ("model", "scope", "newest", "aliases")
OPTIONAL = ("pins", "history", "removed_to", "kept")


@dataclass(frozen=True, slots=True)
class Head:
    """A scope as it is now. newest: its newest version. pins: who pinned a version, why and when.

    history: the last moves of its aliases, oldest first: alias, from, to, at_s, who, why.
    removed_to, kept: versions to this one are removed, but for those that are kept.
    """

    model: str
    scope: str
    newest: int
    aliases: dict[str, int]
    pins: dict[int, dict[str, Any]]
    history: list[dict[str, Any]]
    removed_to: int
    kept: list[int]

    @property
    def versions(self) -> list[int]:
        """Those that count and are not removed, oldest first."""
        return [*self.kept, *range(self.removed_to + 1, self.newest + 1)]


@dataclass(frozen=True, slots=True)
class Move:
    """An alias, the version that it pointed to (0: none), and the one that it points to now."""

    alias: str
    before: int
    now: int


def head_of(bins: Bins) -> Head:
    """Returns a scope as its record says."""
    return Head(
        bins["model"],
        bins["scope"],
        bins["newest"],
        dict(bins["aliases"]),
        dict(bins.get("pins", {})),
        list(bins.get("history", [])),
        bins.get("removed_to", 0),
        list(bins.get("kept", [])),
    )


def read_head(view: View, model: str, scope: str) -> Head:
    """Returns a scope as it is now. Raises UnknownState where it has no state."""
    check_names(model, scope, "production")
    record = read_record(view, model, scope)
    if record is None or not record.bins["newest"]:
        raise UnknownState(f"model {model} has no state in scope {scope}", "`geotrain models` lists what there is")
    return head_of(record.bins)


def heads(view: View) -> list[Head]:
    """Returns all scopes that have a state, by their names."""
    rows = read_set(view, ALIASES, [*REQUIRED, *OPTIONAL])
    return sorted((head_of(row) for row in rows if row["newest"]), key=lambda head: (head.model, head.scope))


def version_of(head: Head, wanted: str) -> int:
    """Returns the version that is wanted: a number, or the name of an alias. Raises UnknownState."""
    if wanted in head.aliases:
        return head.aliases[wanted]
    if wanted.isdecimal() and int(wanted) in head.versions:
        return int(wanted)
    known = ", ".join([*sorted(head.aliases), *map(str, head.versions[-5:])])
    raise UnknownState(f"{head_key(head.model, head.scope)} has no version or alias {wanted!r}", f"use one of: {known}")


def read_manifest(view: View, model: str, scope: str, version: int) -> Manifest:
    """Returns what a version that counts is made of. Raises UnknownState where it is not there."""
    name = reference(model, scope, version)
    record = view.get(MANIFESTS, name, reads="linearizable")
    if record is None:
        raise _unknown(name)
    return Manifest.from_bytes(record.bins["manifest"], name)


def promote(
    view: View, model: str, scope: str, version: int, *, alias: str = "production", who: str = "", why: str = ""
) -> Move:
    """Points the alias forward to a version that counts.

    Raises ConfigError for one before where it points: that is `rollback`; UnknownState.
    """
    return _point(view, model, scope, version, alias, who, why, forward=True)


def rollback(
    view: View,
    model: str,
    scope: str,
    version: int | None = None,
    *,
    alias: str = "production",
    who: str = "",
    why: str = "",
) -> Move:
    """Points the alias back to a version; None: to where it pointed before. Publishers move it on with newer ones only.

    Raises ConfigError for one that is not before where it points; UnknownState.
    """
    return _point(view, model, scope, version, alias, who, why, forward=False)


def pin(view: View, model: str, scope: str, version: int, *, who: str = "", why: str = "") -> None:
    """Keeps a version from being removed, whatever aliases do. Raises UnknownState."""

    def pinned(head: Bins) -> Bins:
        _check_known(view, head, version)
        if version in head.get("pins", {}):
            return {}
        note = {"at_s": time.time(), "who": who or whoami(), "why": why}
        return {"pins": head.get("pins", {}) | {version: note}}

    change_head(view, model, scope, pinned)


def unpin(view: View, model: str, scope: str, version: int) -> None:
    """Lets go of a version that was pinned. Raises UnknownState where it was not."""

    def unpinned(head: Bins) -> Bins:
        left = dict(head.get("pins", {}))
        if left.pop(version, None) is None:
            pins = ", ".join(map(str, sorted(left))) or "none"
            raise UnknownState(f"{reference(model, scope, version)} is not pinned", f"pinned are: {pins}")
        return {"pins": left}

    change_head(view, model, scope, unpinned)


def whoami() -> str:
    """Returns who runs this, and where."""
    return f"{getpass.getuser()} at {socket.gethostname()}"


def _point(
    view: View, model: str, scope: str, wanted: int | None, alias: str, who: str, why: str, *, forward: bool
) -> Move:
    check_names(model, scope, alias)
    moves: list[Move] = []

    def moved(head: Bins) -> Bins:
        before = head["aliases"].get(alias, 0)
        if moves and before == moves[-1].now:
            return {}  # by a write of ours whose answer was lost
        if not before and not forward:
            known = ", ".join(sorted(head["aliases"])) or "none"
            raise UnknownState(f"{head_key(model, scope)} has no alias {alias} to roll back", f"aliases are: {known}")
        version = _before(head, alias) if wanted is None else wanted
        _check_known(view, head, version)
        moves.append(Move(alias, before, version))
        if version == before:
            return {}
        if forward != (version > before):
            way, other = ("forward", "roll back") if forward else ("back", "promote")
            raise ConfigError(
                f"{alias} of {head_key(model, scope)} points to {before}: {version} is no way {way}",
                f"{other} instead, if that is what you want",
            )
        reached = head.get("reached", {})
        highest = {alias: max(before, reached.get(alias, 0))}
        return pointed(head, alias, version, who or whoami(), why) | ({} if forward else {"reached": reached | highest})

    change_head(view, model, scope, moved)
    return moves[-1]


def _before(head: Bins, alias: str) -> int:
    """Where the alias came from when it last moved forward."""
    now = head["aliases"].get(alias, 0)
    for note in reversed(head.get("history", [])):
        if note["alias"] == alias and note["to"] == now and 0 < note["from"] < now:
            return int(note["from"])
    raise UnknownState(
        f"where {alias} of {head_key(head['model'], head['scope'])} pointed before {now} is not known",
        "name the version to roll back to",
    )


def _check_known(view: View, head: Bins, version: int) -> None:
    """Raises UnknownState unless the version counts, is not removed, and its manifest can be read."""
    check_counts(head, version)
    if not 0 < version <= head["newest"]:
        raise _unknown(reference(head["model"], head["scope"], version))
    read_manifest(view, head["model"], head["scope"], version)


def _unknown(name: str) -> UnknownState:
    return UnknownState(f"there is no model state {name}", "`geotrain models` lists what there is")
