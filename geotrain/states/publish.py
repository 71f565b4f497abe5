"""Publishes a model state: tensors first, then the manifest, then the alias. Whoever stops in between changes nothing.

Knows nothing of how the state was made.
"""

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

import torch

from geotrain.errors import ViewError
from geotrain.states.heads import move_alias, read_record, write_manifest
from geotrain.states.manifest import GRACE_S, TENSORS, TensorEntry, check_names, check_noted, reference
from geotrain.states.tensors import BATCH_BYTES, PARTS_PER_BATCH, to_parts
from geotrain.view.connect import View
from geotrain.view.keyed import Record
from geotrain.view.removal import renew

# The server is at its best with records up to 128 KiB; half of its default limit costs fewer trips over the ocean.
MAX_PART_BYTES = 512 * 1024
# What a record takes beside its part.
RECORD_OVERHEAD_BYTES = 1024
MAX_UNDER_WAY = 16

Tensors = Iterable[tuple[str, torch.Tensor]]


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
        entries, resume_entries = writer.take(tensors), writer.take(resume)
        reading = view.threads.submit(read_record, view, model, scope)  # while the last parts are on their way
        writer.finish()
        head = reading.result()
    finally:
        writer.stop()
    fields = {
        "model": model,
        "scope": scope,
        "tensors": entries,
        "resume": resume_entries,
        "lineage": lineage,
        "metadata": metadata,
    }
    version, manifest_bytes = write_manifest(view, fields, epoch, head)
    writer.check_grace()
    return Published(version, reference(model, scope, version), writer.bytes_written + manifest_bytes, head)


class _PartWriter:
    """Writes the parts that the view lacks, several batches at once: only those are in memory a second time."""

    def __init__(self, view: View) -> None:
        self.bytes_written = 0
        self._began_s = time.monotonic()
        self._view = view
        self._part_bytes = min(MAX_PART_BYTES, view.max_record_bytes - RECORD_OVERHEAD_BYTES)
        self._seen: set[str] = set()
        self._next: dict[str, memoryview] = {}
        self._num_next_bytes = 0
        self._under_way: deque[Future[int]] = deque()

    def take(self, tensors: Tensors) -> dict[str, TensorEntry]:
        """The entries of the tensors, whose parts are written by when `finish` returns."""
        entries = {}
        for name, tensor in tensors:
            entries[name], parts = to_parts(name, tensor, self._part_bytes)
            for part, data in parts.items():
                if part not in self._seen:
                    self._add(part, data)
        return entries

    def finish(self) -> None:
        """Wait until every part is written. Raises ViewError for the first that is not."""
        self._write_next()
        self._wait_for(0)

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

    def _add(self, part: str, data: memoryview) -> None:
        if len(self._next) == PARTS_PER_BATCH or self._num_next_bytes + len(data) > BATCH_BYTES:
            self._write_next()
        self._seen.add(part)
        self._next[part] = data
        self._num_next_bytes += len(data)

    def _write_next(self) -> None:
        if not self._next:
            return
        self._wait_for(MAX_UNDER_WAY - 1)
        self._under_way.append(self._view.threads.submit(self._write, self._next))
        self._next, self._num_next_bytes = {}, 0

    def _write(self, parts: Mapping[str, memoryview]) -> int:
        """Returns how many bytes the view lacked."""
        held = {part for part, exists in zip(parts, self._view.exist(TENSORS, list(parts)), strict=True) if exists}
        held -= self._gone(held)
        lacking = {part: {"data": bytes(data)} for part, data in parts.items() if part not in held}
        if lacking:
            self._view.put_many(TENSORS, lacking)
        return sum(len(parts[part]) for part in lacking)

    def _wait_for(self, num_under_way: int) -> None:
        while len(self._under_way) > num_under_way:
            self.bytes_written += self._under_way[0].result()
            self._under_way.popleft()
