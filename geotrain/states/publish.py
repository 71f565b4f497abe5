"""Publishes a model state: tensors first, then the manifest, then the alias. Whoever stops in between changes nothing.

Knows nothing of how the state was made.
"""

import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock
from typing import Any

import torch

from geotrain.errors import ViewError
from geotrain.states.heads import move_alias, read_record, write_manifest
from geotrain.states.manifest import GRACE_S, TENSORS, TensorEntry, check_names, check_noted, part_name, reference
from geotrain.states.tensors import MAX_PART_BYTES, in_trips, split
from geotrain.view.connect import View
from geotrain.view.keyed import NUM_THREADS, Record
from geotrain.view.removal import renew

# What a record takes beside its part.
RECORD_OVERHEAD_BYTES = 1024
# Parts are named, and looked for in the view, so many together: so a large one costs one trip, and not two.
CHECKED_PARTS = 256
CHECKED_BYTES = 4 << 20
MAX_UNDER_WAY = NUM_THREADS

Tensors = Iterable[tuple[str, torch.Tensor]]
Taken = tuple[TensorEntry, int]  # without the names of its parts; how many it has


@dataclass(frozen=True, slots=True)
class Published:
    """A state that readers can see.

    reference: `flights/site/ewr@3`. bytes_written: of the manifest and of the tensors that the view lacked. head: of
    the scope, as it was before the manifest.
    """

    version: int
    reference: str
    bytes_written: int
    head: Record | None


def publish(
    view: View,
    *,
    model: str,
    scope: str,
    tensors: Mapping[str, torch.Tensor],
    lineage: Mapping[str, Any],
    metadata: Mapping[str, str],
    alias: str = "production",
) -> Published:
    """Writes the state as the next version of its scope, and moves the alias to it: `write_state`, `move_alias`."""
    check_names(model, scope, alias)
    written = write_state(view, model=model, scope=scope, tensors=tensors.items(), lineage=lineage, metadata=metadata)
    move_alias(view, model, scope, written.version, alias=alias, seen=written.head)
    return written


def write_state(
    view: View,
    *,
    model: str,
    scope: str,
    tensors: Tensors,
    lineage: Mapping[str, Any],
    metadata: Mapping[str, str],
    resume: Tensors = (),
    epoch: int | None = None,
) -> Published:
    """Writes the state as the next version of its scope; no reader sees it before an alias points to it.

    tensors, resume: names and tensors, in this order, each asked for when its turn has come, and left as it is until
    the call returns; resume: for those who train on from here. Parts that the view holds are not written again. A
    version after the newest that says the same already is taken for this one: who was interrupted may call again.
    epoch: of the coordinator that publishes; Fenced is raised where a later one has published.
    """
    check_names(model, scope, "production")
    check_noted(lineage, metadata)
    writer = _PartWriter(view)
    try:
        taken, taken_to_resume = writer.take(tensors), writer.take(resume)
        reading = view.threads.submit(read_record, view, model, scope)  # while the last parts are on their way
        names = writer.finish()
        head = reading.result()
    finally:
        writer.stop()
    fields = {
        "model": model,
        "scope": scope,
        "tensors": _named(taken, names),
        "resume": _named(taken_to_resume, names),
        "lineage": lineage,
        "metadata": metadata,
    }
    version, manifest_bytes = write_manifest(view, fields, epoch, head)
    writer.check_grace()
    return Published(version, reference(model, scope, version), writer.bytes_written + manifest_bytes, head)


class _PartWriter:
    """Names parts, and writes those that the view lacks, several at once: only those are in memory twice."""

    def __init__(self, view: View) -> None:
        self.bytes_written = 0
        self._began_s = time.monotonic()
        self._view = view
        self._part_bytes = min(MAX_PART_BYTES, view.max_record_bytes - RECORD_OVERHEAD_BYTES)
        self._names: list[str] = []
        self._next: list[memoryview] = []
        self._num_next_bytes = 0
        self._under_way: deque[Future[tuple[list[str], int]]] = deque()
        self._seen: set[str] = set()
        self._seen_lock = Lock()

    def take(self, tensors: Tensors) -> dict[str, Taken]:
        """The tensors' entries, and how many parts of `finish` are theirs, in this order."""
        taken = {}
        for name, tensor in tensors:
            entry, parts = split(name, tensor, self._part_bytes)
            taken[name] = entry, len(parts)
            for part in parts:
                self._add(part)
        return taken

    def finish(self) -> Iterator[str]:
        """Wait until every part is written. Returns their names. Raises ViewError for the first that is not."""
        self._write_next()
        self._wait_for(0)
        return iter(self._names)

    def stop(self) -> None:
        """Write no more. After a failure, the others would only wait for the same again."""
        for batch in self._under_way:
            batch.cancel()
        wait(self._under_way)

    def check_grace(self) -> None:
        """Makes sure, once the manifest is written, that no part was removed before. Raises ViewError where one was."""
        if time.monotonic() - self._began_s > GRACE_S / 4 and self._gone(self._seen):
            raise ViewError(
                "parts of the state were removed while it was written, which took too long", "publish it again"
            )

    def _gone(self, parts: Collection[str]) -> set[str]:
        """Those that the view has no more; the others stay for half of the grace at least."""
        names = list(parts)
        is_there = renew(self._view, TENSORS, names, GRACE_S / 2)
        return {part for part, there in zip(names, is_there, strict=True) if not there}

    def _add(self, part: memoryview) -> None:
        if len(self._next) == CHECKED_PARTS or self._num_next_bytes + len(part) > CHECKED_BYTES:
            self._write_next()
        self._next.append(part)
        self._num_next_bytes += len(part)

    def _write_next(self) -> None:
        if not self._next:
            return
        self._wait_for(MAX_UNDER_WAY - 1)
        self._under_way.append(self._view.threads.submit(self._write, self._next))
        self._next, self._num_next_bytes = [], 0

    def _write(self, parts: Sequence[memoryview]) -> tuple[list[str], int]:
        """Returns the parts' names, and how many bytes the view lacked."""
        names = [part_name(part) for part in parts]
        with self._seen_lock:
            new = {name: part for name, part in zip(names, parts, strict=True) if name not in self._seen}
            self._seen.update(new)
        there = self._view.exist(TENSORS, list(new))
        held = {name for name, exists in zip(new, there, strict=True) if exists}
        if held:
            held -= self._gone(held)
        lacking = {name: part for name, part in new.items() if name not in held}
        for trip in in_trips((name, len(part)) for name, part in lacking.items()):
            self._view.put_many(TENSORS, {name: {"data": bytes(lacking[name])} for name in trip})
        return names, sum(len(part) for part in lacking.values())

    def _wait_for(self, num_under_way: int) -> None:
        while len(self._under_way) > num_under_way:
            names, num_bytes = self._under_way[0].result()
            self._under_way.popleft()
            self._names += names
            self.bytes_written += num_bytes


def _named(taken: Mapping[str, Taken], names: Iterator[str]) -> dict[str, TensorEntry]:
    """The entries, with the names of their parts, which come in turn."""
    return {name: replace(entry, parts=tuple(islice(names, count))) for name, (entry, count) in taken.items()}
