"""The head of a scope: its newest version, and where its aliases point. It moves by compare-and-set, and never back.

A manifest counts from when the head's `newest` reaches it. What a coordinator writes says under which epoch it leads; a
head that has seen a later epoch takes nothing of an earlier one. Who is no coordinator has no epoch, and is not fenced.
"""

import time
from collections.abc import Callable
from typing import Any

from geotrain.errors import Fenced, ViewError
from geotrain.states.manifest import ALIASES, MANIFESTS, Manifest, UnknownState, head_key, reference
from geotrain.view.connect import View
from geotrain.view.keyed import Conflict, Record
from geotrain.view.refusals import InDoubt
from geotrain.view.retry import pauses

Bins = dict[str, Any]

MAX_HISTORY = 20  # moves of aliases that a head remembers


def move_alias(
    view: View,
    model: str,
    scope: str,
    version: int,
    *,
    alias: str = "production",
    epoch: int | None = None,
    who: str = "",
    why: str = "",
    seen: Record | None = None,
) -> None:
    """Points the alias to the version, and notes who did it and why.

    A reader of the alias sees the state before or this one, whole. Where it points to a higher version, or was rolled
    back from one, it stays where it is. seen: the head as it was read before; it need not be read then, unless someone
    has changed it since. Raises Fenced where a coordinator of a later epoch was here, UnknownState where the version
    was removed.
    """

    def moved(head: Bins) -> Bins:
        check_counts(head, version)
        reached = head.get("reached", {}).get(alias, 0)
        if version <= max(head["aliases"].get(alias, 0), reached):  # by a write of ours in doubt, or by someone later
            return {"newest": max(head["newest"], version)}
        return {"newest": max(head["newest"], version)} | pointed(head, alias, version, who, why)

    change_head(view, model, scope, moved, epoch=epoch, seen=seen)


def pointed(head: Bins, alias: str, version: int, who: str, why: str) -> Bins:
    """Returns the bins of a head whose alias points to the version now."""
    before = head["aliases"].get(alias, 0)
    note = {"alias": alias, "from": before, "to": version, "at_s": time.time(), "who": who, "why": why}
    return {"aliases": {**head["aliases"], alias: version}, "history": [*head.get("history", []), note][-MAX_HISTORY:]}


def removed(head: Bins, version: int) -> bool:
    """Whether the version was given up by `collect`: it is gone, or will be as soon as readers had their grace."""
    return bool(0 < version <= head.get("removed_to", 0) and version not in head.get("kept", []))


def check_counts(head: Bins, version: int) -> None:
    """Raises UnknownState for a version that was removed."""
    if removed(head, version):
        raise UnknownState(
            f"{reference(head['model'], head['scope'], version)} was removed: no alias and no pin needed it",
            "publish it again, or import it from a file",
        )


def fence(view: View, model: str, scope: str, *, epoch: int) -> None:
    """Keeps coordinators of an earlier epoch from publishing in the scope, from here on. Raises Fenced for a later."""
    change_head(view, model, scope, lambda _: {}, epoch=epoch)


def read_record(view: View, model: str, scope: str) -> Record | None:
    """Returns the record of a head as it is now; None where the scope has none."""
    return view.get(ALIASES, head_key(model, scope), reads="linearizable")


def bins_of(head: Record | None, model: str, scope: str) -> Bins:
    """Returns what a head says; of a scope without one, that it has nothing."""
    return head.bins if head else {"model": model, "scope": scope, "newest": 0, "aliases": {}}


def write_manifest(view: View, fields: dict[str, Any], epoch: int | None, head: Record | None) -> tuple[int, int]:
    """Writes a manifest of these fields as the next version. Returns the version, and how many bytes were written.

    head: of its scope, read at any moment before. What stands there under an earlier epoch, or of the same job, was
    left by who was stopped, and is written over; the same of this epoch is taken for ours. Raises Fenced where a
    coordinator of a later epoch was here.
    """
    model, scope = fields["model"], fields["scope"]
    _check_epoch(head, epoch, f"{model}/{scope}")
    version, generation = _newest(head) + 1, 0
    for pause_s in pauses(view.config.ride_through_s):
        manifest = Manifest(version=version, created_s=time.time(), **fields)
        data = manifest.to_bytes()
        try:
            view.put(MANIFESTS, manifest.reference, {"manifest": data} | _signed(epoch), generation=generation)
            return version, len(data)
        except InDoubt as error:  # the same again: it either writes the record, or finds it
            last: ViewError = error
            time.sleep(pause_s)
        except Conflict as error:
            last = error
            found = view.get(MANIFESTS, manifest.reference, reads="linearizable")
            head = read_record(view, model, scope)
            for record, what in ((found, manifest.reference), (head, f"{model}/{scope}")):
                _check_epoch(record, epoch, what)
            if found and _is_same(found, manifest, epoch):
                return version, 0  # written when no answer came, or before we were interrupted
            if _newest(head) >= version:  # it counts by now
                version, generation = _newest(head) + 1, 0
            elif found and _was_left(found, manifest, epoch):
                generation = found.generation
            elif found:  # of a publisher that is about to move its alias
                version, generation = version + 1, 0
    raise last


def _newest(head: Record | None) -> int:
    return int(head.bins["newest"]) if head else 0


def _is_same(found: Record, manifest: Manifest, epoch: int | None) -> bool:
    said = Manifest.from_bytes(found.bins["manifest"])
    return found.bins.get("epoch") == epoch and said.same_but_for_its_time(manifest)


def _was_left(found: Record, manifest: Manifest, epoch: int | None) -> bool:
    """Whether nobody is about to make the manifest that was found count any more."""
    if epoch is None or "epoch" not in found.bins:
        return False
    left = Manifest.from_bytes(found.bins["manifest"])
    return bool(found.bins["epoch"] < epoch) or left.lineage.get("job", "") == manifest.lineage.get("job")


def change_head(
    view: View,
    model: str,
    scope: str,
    change: Callable[[Bins], Bins],
    *,
    epoch: int | None = None,
    seen: Record | None = None,
) -> Bins:
    """Changes bins of a head by compare-and-set, over and over until nobody came between. Returns the head.

    seen: as it was read before, instead of reading it first. Who changes nothing, writes nothing. Raises Fenced where
    a coordinator of a later epoch was here, and what `change` raises.
    """
    key = head_key(model, scope)
    for pause_s in pauses(view.config.ride_through_s):
        head, seen = seen or read_record(view, model, scope), None
        _check_epoch(head, epoch, key)
        known = bins_of(head, model, scope)
        bins = known | change(known) | _signed(epoch)
        if bins == known:
            return known
        bins["changes"] = known.get("changes", 0) + 1  # a reader knows by it a copy that lags
        try:
            view.put(ALIASES, key, bins, generation=head.generation if head else 0)
            return bins
        except (Conflict, InDoubt) as error:
            last = error
            time.sleep(pause_s)
    raise last


def _signed(epoch: int | None) -> Bins:
    return {} if epoch is None else {"epoch": epoch}


def _check_epoch(record: Record | None, epoch: int | None, what: str) -> None:
    found = record.bins.get("epoch", 0) if record else 0
    if epoch is not None and found > epoch:
        raise Fenced(f"{what} is of epoch {found}: a leader after epoch {epoch} publishes there")
