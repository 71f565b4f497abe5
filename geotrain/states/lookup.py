"""Looks model states up in the view, whole or not at all. Knows nothing of how they were made."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice, zip_longest
from threading import Lock
from types import MappingProxyType
from weakref import WeakValueDictionary

import torch

from geotrain.errors import ViewError
from geotrain.states.manifest import (
    ALIASES,
    MANIFESTS,
    TENSORS,
    Manifest,
    TensorEntry,
    UnknownState,
    check_names,
    head_key,
    reference,
)
from geotrain.states.tensors import from_parts
from geotrain.view.connect import Record, View
from geotrain.view.query import read_set

PARTS_PER_BATCH = 16  # of half a MiB at most


def _verified(part: str, record: Record | None) -> bytes:
    data: bytes = record.bins["data"] if record else b""
    if sha256(data).hexdigest() != part:
        raise ViewError(
            f"record {TENSORS}/{part} is {'damaged' if record else 'missing'}",
            "delete that record where it exists, then publish the state again",
        )
    return data


@dataclass(frozen=True, slots=True)
class State:
    """A model state, whole. Its tensors are shared between states: copy one before changing it.

    bytes_read: what was fetched from the view for it this time.
    """

    manifest: Manifest
    tensors: Mapping[str, torch.Tensor]
    bytes_read: int


class ModelLookup:
    """The states of one scope, by alias or version. Threads may share it: they see a version or the next, whole."""

    def __init__(self, view: View, model: str, scope: str = "global", alias: str = "production") -> None:
        check_names(model, scope, alias)
        self._view = view
        self._model = model
        self._scope = scope
        self._alias = alias
        self._held: WeakValueDictionary[TensorEntry, torch.Tensor] = WeakValueDictionary()
        self._current: State | None = None
        self._lock = Lock()

    def latest(self) -> State:
        """Returns the state that the alias points to now: one small read where it has not moved since the last call.

        Raises UnknownState where there is none.
        """
        current, version = self._current, self._version()
        if current is not None and current.manifest.version == version:
            return current
        with self._lock:
            version = self._version()  # again: while this thread waited, another may have gone further
            if self._current is not None and self._current.manifest.version == version:
                return self._current
            state = self._state(version)
            self._current = replace(state, bytes_read=0)
            return state

    def at(self, version: int) -> State:
        """Returns one version. Raises UnknownState where there is none, or none yet that counts."""
        head = self._head()
        if version > (head.bins["newest"] if head else 0):  # what stands there may still be written over
            raise self._unknown(version)
        return self._state(version)

    def _state(self, version: int) -> State:
        record = self._view.get(MANIFESTS, reference(self._model, self._scope, version))
        if record is None:
            raise self._unknown(version)
        data = record.bins["manifest"]
        manifest = Manifest.from_bytes(data)
        tensors, bytes_read = self._tensors(manifest.tensors)
        return State(manifest, MappingProxyType(tensors), len(data) + bytes_read)

    def resume(self, manifest: Manifest) -> Mapping[str, torch.Tensor]:
        """Returns the tensors of a manifest that only those need who train on from there."""
        return MappingProxyType(self._tensors(manifest.resume)[0])

    def _tensors(self, named: Mapping[str, TensorEntry]) -> tuple[dict[str, torch.Tensor], int]:
        """Returns the tensors, and how many bytes had to be read for them."""
        entries = dict.fromkeys(named.values())
        tensors = {entry: held for entry in entries if (held := self._held.get(entry)) is not None}
        missing = [entry for entry in entries if entry not in tensors]
        stream = self._fetch([part for entry in missing for part in entry.parts])
        tensors |= {entry: from_parts(entry, islice(stream, len(entry.parts))) for entry in missing}
        self._held.update(tensors)
        bytes_read = sum(tensors[entry].nbytes for entry in missing)
        return {name: tensors[entry] for name, entry in named.items()}, bytes_read

    def _head(self) -> Record | None:
        return self._view.get(ALIASES, head_key(self._model, self._scope))

    def _unknown(self, version: int) -> UnknownState:
        return UnknownState(f"there is no model state {reference(self._model, self._scope, version)}", self._known())

    def _version(self) -> int:
        head = self._head()
        if head is None or not head.bins["newest"]:
            raise UnknownState(f"model {self._model} has no state in scope {self._scope}", self._known())
        aliases = head.bins["aliases"]
        if self._alias not in aliases:
            raise UnknownState(
                f"{self._model}/{self._scope} has no alias {self._alias}", f"use one of: {', '.join(sorted(aliases))}"
            )
        return int(aliases[self._alias])

    def _fetch(self, parts: Sequence[str]) -> Iterator[bytes]:
        """Yields each part, verified; a batch is read while the one before is used, and only these are in memory."""
        batches = [parts[at : at + PARTS_PER_BATCH] for at in range(0, len(parts), PARTS_PER_BATCH)]
        with ThreadPoolExecutor(1) as pool:  # it has no thread until there is a second batch
            ahead = None
            for batch, following in zip_longest(batches, batches[1:]):
                records = ahead.result() if ahead else self._read(batch)
                ahead = pool.submit(self._read, following) if following else None
                for part in batch:
                    yield _verified(part, records[part])

    def _read(self, parts: Sequence[str]) -> dict[str, Record | None]:
        keys = list(dict.fromkeys(parts))
        return dict(zip(keys, self._view.get_many(TENSORS, keys), strict=True))

    def _known(self) -> str:
        """What there is instead, for whoever asked for something that there is not."""
        rows = read_set(self._view, ALIASES, ["model", "scope", "newest"])
        states = sorted(reference(row["model"], row["scope"], row["newest"]) for row in rows if row["newest"])
        return f"the newest of each scope: {', '.join(states)}" if states else "publish one first"
