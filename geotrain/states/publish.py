"""Publishes a model state: tensors first, then the manifest, then the alias. Whoever stops in between changes nothing.

Knows nothing of how the state was made.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from geotrain.errors import ViewError
from geotrain.states.manifest import (
    ALIASES,
    MANIFESTS,
    TENSORS,
    Manifest,
    TensorEntry,
    check_names,
    head_key,
    reference,
)
from geotrain.states.tensors import to_parts
from geotrain.view.connect import Conflict, View
from geotrain.view.refusals import InDoubt
from geotrain.view.retry import pauses

# The server is at its best with records up to 128 KiB; half of its default limit costs fewer trips over the ocean.
MAX_PART_BYTES = 512 * 1024
# What a record takes beside its part.
RECORD_OVERHEAD_BYTES = 1024
# Writes wait for the farthest replica, so several are under way at once.
NUM_THREADS = 8


@dataclass(frozen=True, slots=True)
class Published:
    """A state that readers can see.

    reference: `flights/site/ewr@3`. bytes_written: of the manifest and of the tensors that the view lacked.
    """

    version: int
    reference: str
    bytes_written: int


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
    written = write_state(view, model=model, scope=scope, tensors=tensors, lineage=lineage, metadata=metadata)
    move_alias(view, model, scope, written.version, alias=alias)
    return written


def write_state(
    view: View,
    *,
    model: str,
    scope: str,
    tensors: Mapping[str, torch.Tensor],
    lineage: Mapping[str, Any],
    metadata: Mapping[str, str],
    resume: Mapping[str, torch.Tensor] | None = None,
) -> Published:
    """Writes the state as the next version of its scope; no reader sees it before an alias points to it.

    resume: tensors for those who train on from here. Parts of tensors that the view holds are not written again. A
    version after the newest that says the same already is taken for this one: who was interrupted may call again.
    """
    check_names(model, scope, "production")
    part_bytes = min(MAX_PART_BYTES, view.max_record_bytes - RECORD_OVERHEAD_BYTES)
    entries, parts = _encode(tensors, part_bytes)
    resume_entries, resume_parts = _encode(resume or {}, part_bytes)
    fields = {
        "model": model,
        "scope": scope,
        "tensors": entries,
        "resume": resume_entries,
        "lineage": lineage,
        "metadata": metadata,
    }
    bytes_written = _write_missing(view, parts | resume_parts)
    version, manifest_bytes = _write_manifest(view, fields)
    return Published(version, reference(model, scope, version), bytes_written + manifest_bytes)


def _encode(tensors: Mapping[str, torch.Tensor], part_bytes: int) -> tuple[dict[str, TensorEntry], dict[str, bytes]]:
    encoded = {name: to_parts(name, tensor, part_bytes) for name, tensor in tensors.items()}
    parts = {part: data for _, of_tensor in encoded.values() for part, data in of_tensor.items()}
    return {name: entry for name, (entry, _) in encoded.items()}, parts


def _write_missing(view: View, parts: Mapping[str, bytes]) -> int:
    held = view.exist(TENSORS, list(parts))
    missing = {part: data for (part, data), exists in zip(parts.items(), held, strict=True) if not exists}
    pool = ThreadPoolExecutor(NUM_THREADS)
    try:
        for write in [pool.submit(view.put, TENSORS, part, {"data": data}) for part, data in missing.items()]:
            write.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after a failure the others would only wait for it again
    return sum(map(len, missing.values()))


def _write_manifest(view: View, fields: dict[str, Any]) -> tuple[int, int]:
    head = view.get(ALIASES, head_key(fields["model"], fields["scope"]), reads="linearizable")
    version = (head.bins["newest"] if head else 0) + 1
    for pause_s in pauses(view.config.ride_through_s):
        manifest = Manifest(version=version, created_s=time.time(), **fields)
        data = manifest.to_bytes()
        try:
            view.put(MANIFESTS, manifest.reference, {"manifest": data}, generation=0)
            return version, len(data)
        except Conflict as error:
            last: ViewError = error
            found = view.get(MANIFESTS, manifest.reference, reads="linearizable")
            if found and Manifest.from_bytes(found.bins["manifest"]).same_but_for_its_time(manifest):
                return version, 0  # written when no answer came, or before we were interrupted
            version += 1  # of a publisher that stopped before its alias, or is about to move it
        except InDoubt as error:  # the same again: it either creates the record, or finds it
            last = error
            time.sleep(pause_s)
    raise last


def move_alias(view: View, model: str, scope: str, version: int, *, alias: str = "production") -> None:
    """Points the alias to the version.

    A reader of the alias sees the state before or this one, whole. Where it points to a higher version, it stays there.
    """
    key = head_key(model, scope)
    for pause_s in pauses(view.config.ride_through_s):
        head = view.get(ALIASES, key, reads="linearizable")
        newest, aliases = (head.bins["newest"], head.bins["aliases"]) if head else (0, {})
        if aliases.get(alias, 0) >= version:  # by a write of ours that was in doubt, or by a later publisher
            return
        bins = {
            "model": model,
            "scope": scope,
            "newest": max(newest, version),
            "aliases": {**aliases, alias: version},
        }
        try:
            view.put(ALIASES, key, bins, generation=head.generation if head else 0)
            return
        except (Conflict, InDoubt) as error:
            last = error
            time.sleep(pause_s)
    raise last
