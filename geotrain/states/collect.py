"""Removes the states that nothing needs any more, beside publishers and readers that know nothing of it.

A version that no alias, no pin and no rule of retention needs is first given up in its scope's head, by
compare-and-set: from then on no alias can point to it. Its manifest goes when readers had their grace; parts go that no
manifest names.

No part goes within its grace, as the server counts. Who publishes with parts that exist makes them young again where
half of the grace is over, and looks again where it then took longer than a quarter of it to write the manifest that
names them. The collector stops an eighth after it began to look for manifests. So what it did not see named, and may
still remove, nobody is about to name.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from geotrain.states.aliases import Head, head_of
from geotrain.states.heads import Bins, bins_of, change_head, read_record, removed
from geotrain.states.manifest import ALIASES, GRACE_S, MANIFESTS, TENSORS, Manifest, reference
from geotrain.view.connect import View
from geotrain.view.keyed import Conflict
from geotrain.view.query import read_set
from geotrain.view.removal import MAX_RECORDS, Idle, digest_of, idle_records, remove_idle
from geotrain.view.settle import RECORDS_PER_BATCH

NUM_NEWEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What was kept and removed; or would have been.

    kept: by reference, why. retired: given up now. waiting: given up before, for readers that may still need them.
    removed: manifests. missing: kept, and yet not there. num_parts_kept: that are named by some manifest.
    is_complete: whether it ended because nothing was left to do; otherwise it is to be called again.
    """

    kept: Mapping[str, Sequence[str]]
    retired: Sequence[str]
    waiting: Sequence[str]
    removed: Sequence[str]
    missing: Sequence[str]
    num_parts_kept: int
    num_parts_removed: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A manifest. is_signed: by a coordinator. is_retired: given up. is_idle: not written for the grace."""

    manifest: Manifest
    is_signed: bool
    is_retired: bool
    is_idle: bool

    @property
    def scope(self) -> tuple[str, str]:
        return self.manifest.model, self.manifest.scope


def retention(head: Head, num_newest: int) -> dict[int, list[str]]:
    """Returns the versions of a scope that are kept, and why."""
    why: dict[int, list[str]] = {}
    for alias, version in sorted(head.aliases.items()):
        why.setdefault(version, []).append(f"{alias} points to it")
        before = next((note["from"] for note in reversed(head.history) if note["alias"] == alias), 0)
        if before and before in head.versions:
            why.setdefault(before, []).append(f"{alias} pointed to it before")
    for version, note in sorted(head.pins.items()):
        why.setdefault(version, []).append(f"pinned by {note['who']}" + (f": {note['why']}" if note["why"] else ""))
    for version in head.versions[-num_newest:]:
        why.setdefault(version, []).append(f"of the {num_newest} newest" if num_newest > 1 else "the newest")
    return why


def given_up(bins: Bins, num_newest: int, drafts: Iterable[int] = ()) -> Bins:
    """Returns the bins of a head that change when what is not kept is given up; none where nothing is.

    drafts: versions after the newest that whoever wrote them has abandoned. They are given up where nobody else's are
    between, and the versions go on after them.
    """
    head = head_of(bins)
    kept = sorted(retention(head, num_newest))
    abandoned = set(drafts)
    end = max(abandoned, default=0)
    if not all(version in abandoned for version in range(head.newest + 1, end + 1)):
        end = 0
    if end <= head.newest and set(kept) >= set(head.versions):
        return {}
    end = max(end, head.newest)
    return {"newest": end, "removed_to": end, "kept": kept}


def collect(view: View, *, num_newest: int = NUM_NEWEST, grace_s: float = GRACE_S, dry_run: bool = False) -> Collection:
    """Gives up and removes what nothing needs. dry_run: only says what it would do.

    num_newest: of each scope, so many of its newest versions are kept. grace_s: the same as publishers count on.
    Raises ViewError, also for a manifest of another format: what it needs is not known here.
    """
    if num_newest < 1:
        raise ValueError(f"num_newest must be at least 1, got {num_newest}")
    end_s = time.monotonic() + grace_s / 8
    found, idle = _manifests(view, grace_s)
    heads, retired = _give_up(view, found.values(), num_newest, dry_run)
    gone = [name for name, of in found.items() if removed(heads[of.scope], of.manifest.version)]
    if not dry_run:
        _mark(view, [name for name in gone if not found[name].is_retired])
    ready = [name for name in gone if found[name].is_retired and found[name].is_idle]
    if not dry_run:
        records = [idle[digest_of(view, MANIFESTS, name)] for name in ready]
        if remove_idle(view, MANIFESTS, records, grace_s) < len(ready):
            ready = []  # one was written in between: what they name stays for this time
    kept = {
        reference(*scope, version): why
        for scope, bins in sorted(heads.items())
        for version, why in sorted(retention(head_of(bins), num_newest).items())
    }
    named = {name: of.manifest for name, of in found.items() if name not in ready}
    needed, missing = _read(view, list(kept))
    parts = {part for manifest in [*named.values(), *needed] for part in manifest.parts}
    num_removed, is_complete = _remove_parts(view, parts, grace_s, end_s, dry_run)
    return Collection(
        kept=kept,
        retired=retired,
        waiting=[name for name in gone if name not in ready and name not in retired],
        removed=ready,
        missing=missing,
        num_parts_kept=len(parts),
        num_parts_removed=num_removed,
        is_complete=is_complete,
    )


def _manifests(view: View, grace_s: float) -> tuple[dict[str, Found], dict[bytes, Idle]]:
    """Returns all manifests by reference, in order; and those that were not written for the grace, as records."""
    idle = {record.digest: record for record in idle_records(view, MANIFESTS, grace_s)}
    found = []
    for row in read_set(view, MANIFESTS, ["manifest", "epoch", "retired"]):
        manifest = Manifest.from_bytes(row["manifest"])
        is_idle = digest_of(view, MANIFESTS, manifest.reference) in idle
        found.append(Found(manifest, "epoch" in row, "retired" in row, is_idle))
    found.sort(key=lambda each: (each.scope, each.manifest.version))  # nodes answer in any order
    return {each.manifest.reference: each for each in found}, idle


def _give_up(
    view: View, found: Iterable[Found], num_newest: int, dry_run: bool
) -> tuple[dict[tuple[str, str], Bins], list[str]]:
    """Returns every scope's head as it is when what is not kept is given up, and what was given up now."""
    drafts: dict[tuple[str, str], list[int]] = {
        (row["model"], row["scope"]): [] for row in read_set(view, ALIASES, ["model", "scope"])
    }
    for each in found:
        of_scope = drafts.setdefault(each.scope, [])
        if each.is_idle and not each.is_signed and not each.is_retired:
            of_scope.append(each.manifest.version)
    heads, retired = {}, []
    for (model, scope), abandoned in sorted(drafts.items()):
        before: Bins = {}

        def change(bins: Bins, before: Bins = before, abandoned: list[int] = abandoned) -> Bins:
            before.clear()
            before.update(bins)
            return given_up(bins, num_newest, [version for version in abandoned if version > bins["newest"]])

        if dry_run:
            known = bins_of(read_record(view, model, scope), model, scope)
            after = known | change(known)
        else:
            after = change_head(view, model, scope, change)
        heads[model, scope] = after
        versions = range(head_of(before).removed_to + 1, after["newest"] + 1)
        newly = {*head_of(before).kept, *versions}
        retired += [reference(model, scope, version) for version in sorted(newly) if removed(after, version)]
    return heads, retired


def _mark(view: View, names: Sequence[str]) -> None:
    """Notes on manifests that they are given up, from when on the grace of their readers counts."""
    for name, record in zip(names, view.get_many(MANIFESTS, names, reads="linearizable"), strict=True):
        if record is None:
            continue
        try:
            view.put(MANIFESTS, name, {"retired": 1}, generation=record.generation)
        except Conflict:
            continue  # by another collector


def _read(view: View, names: Sequence[str]) -> tuple[list[Manifest], list[str]]:
    """Returns the manifests, as the masters have them; and which are not there."""
    records = view.get_many(MANIFESTS, names, reads="linearizable")
    there = [Manifest.from_bytes(record.bins["manifest"]) for record in records if record is not None]
    return there, [name for name, record in zip(names, records, strict=True) if record is None]


def _remove_parts(view: View, named: Iterable[str], grace_s: float, end_s: float, dry_run: bool) -> tuple[int, bool]:
    """Returns how many parts that none needs are removed, and whether that was all."""
    unnamed = idle_records(view, TENSORS, grace_s, but={digest_of(view, TENSORS, part) for part in named})
    if dry_run:
        return len(unnamed), len(unnamed) < MAX_RECORDS
    num_removed = 0
    for at in range(0, len(unnamed), RECORDS_PER_BATCH):
        if time.monotonic() > end_s:
            return num_removed, False
        num_removed += remove_idle(view, TENSORS, unnamed[at : at + RECORDS_PER_BATCH], grace_s)
    return num_removed, len(unnamed) < MAX_RECORDS
