"""Looks model states up in the view, whole or not at all. Knows nothing of how they were made."""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

import torch

from geotrain.dtypes import DTYPES
from geotrain.errors import ViewError
from geotrain.states.cache import StateCache
from geotrain.states.manifest import (
    ALIASES,
    MANIFESTS,
    TENSORS,
    Bytes,
    Manifest,
    TensorEntry,
    UnknownState,
    check_names,
    head_key,
    part_name,
    reference,
)
from geotrain.states.tensors import from_parts, in_trips
from geotrain.view.connect import View
from geotrain.view.keyed import Record
from geotrain.view.query import read_set

logger = logging.getLogger(__name__)

TRIPS_AT_ONCE = 3  # some are on their way while another is verified
HEAD_BINS = ("newest", "aliases", "changes")


@dataclass(frozen=True, slots=True)
class State:
    """A model state, whole. Its tensors are shared between states: copy one before changing it.

    bytes_read: what was fetched from the view for it this time.
    """

    manifest: Manifest
    tensors: Mapping[str, torch.Tensor]
    bytes_read: int


class ModelLookup:
    """The states of one scope, by alias or version. Threads may share it: they see a version or the next, whole.

    fall_back: the scope whose state is taken where there is none yet. cache: what it holds is not fetched again, and
    what is fetched is kept there; None: states are held in memory only.
    """

    def __init__(
        self,
        view: View,
        model: str,
        scope: str = "global",
        alias: str = "production",
        *,
        fall_back: str | None = None,
        cache: StateCache | None = None,
    ) -> None:
        self._scopes = [scope] if fall_back is None else [scope, fall_back]
        for name in self._scopes:
            check_names(model, name, alias)
        self._view = view
        self._model = model
        self._alias = alias
        self._cache = cache
        self._held: WeakValueDictionary[TensorEntry, torch.Tensor] = WeakValueDictionary()
        self._heads: dict[str, dict[str, Any]] = {}
        self._heads_lock = Lock()
        self._current: State | None = None
        self._lock = Lock()

    def latest(self) -> State:
        """Returns the state that the alias points to now: one small read where it has not moved since the last call.

        It never goes back to an earlier version but by a rollback. Raises UnknownState where there is none.
        """
        current, newest = self._current, self._newest()
        if current is not None and newest == (current.manifest.scope, current.manifest.version):
            return current
        with self._lock:
            return self._follow()

    def _follow(self) -> State:
        """Go where the alias points."""
        while True:
            newest = self._newest()  # again: while this thread waited, another may have gone further
            if self._current is not None and newest == (self._current.manifest.scope, self._current.manifest.version):
                return self._current
            try:
                state = self._state(*newest)
            except ViewError:
                if newest == self._newest():
                    raise
                continue  # it was replaced and collected while we read it
            self._keep(state)
            self._current = replace(state, bytes_read=0)
            return state

    def _keep(self, state: State) -> None:
        if self._cache is not None:
            try:
                self._cache.keep(state.manifest, self._scopes[0], self._alias)
            except OSError as error:
                logger.warning("the state %s can't be kept on disk: %s", state.manifest.reference, error)

    def at(self, version: int) -> State:
        """Returns one version. Raises UnknownState where there is none, or none yet that counts."""
        scope = self._scopes[0]
        head = self._head(scope)
        if head is None or version > head["newest"]:  # what stands there may still be written over
            raise self._unknown(scope, version)
        return self._state(scope, version)

    def _state(self, scope: str, version: int) -> State:
        key = reference(self._model, scope, version)
        # The rack's own copy may lag while nodes come and go.
        record = self._view.get(MANIFESTS, key) or self._view.get(MANIFESTS, key, reads="linearizable")
        if record is None:
            raise self._unknown(scope, version)
        data = record.bins["manifest"]
        manifest = Manifest.from_bytes(data, key)
        if unknown := {entry.dtype for entry in manifest.tensors.values()} - DTYPES.keys():
            raise ViewError(f"{key} has tensors of the types {', '.join(sorted(unknown))}", "upgrade geotrain here")
        tensors, bytes_read = self._tensors(manifest.tensors)
        return State(manifest, MappingProxyType(tensors), len(data) + bytes_read)

    def resume(self, manifest: Manifest) -> Mapping[str, torch.Tensor]:
        """Returns the tensors of a manifest that only those need who train on from there."""
        return MappingProxyType(self._tensors(manifest.resume)[0])

    def _tensors(self, named: Mapping[str, TensorEntry]) -> tuple[dict[str, torch.Tensor], int]:
        """Returns the tensors, and how many bytes had to be read for them."""
        entries = dict.fromkeys(named.values())
        tensors = {entry: held for entry in entries if (held := self._here(entry)) is not None}
        missing = [entry for entry in entries if entry not in tensors]
        source = _Parts(self._view, self._similar(entries))
        try:
            tensors |= self._fetched(missing, source, self._cache)
        except OSError as error:
            logger.warning("tensors can't be kept on disk, and are held in memory: %s", error)
            tensors |= self._fetched(missing, source, None)
        self._held.update(tensors)
        return {name: tensors[entry] for name, entry in named.items()}, source.bytes_read

    def _here(self, entry: TensorEntry) -> torch.Tensor | None:
        held = self._held.get(entry)
        return self._cache.tensor(entry) if held is None and self._cache is not None else held

    def _similar(self, entries: Mapping[TensorEntry, None]) -> Mapping[str, memoryview]:
        """The parts of the current state's tensors that are about to be replaced: few of them may have changed."""
        if self._cache is None or self._current is None:
            return {}
        return self._cache.parts(entry for entry in self._current.manifest.tensors.values() if entry not in entries)

    @staticmethod
    def _fetched(
        missing: Sequence[TensorEntry], source: "_Parts", cache: StateCache | None
    ) -> dict[TensorEntry, torch.Tensor]:
        keep = from_parts if cache is None else cache.write
        stream = source.read(missing)
        return {entry: keep(entry, islice(stream, len(entry.parts))) for entry in missing}

    def _newest(self) -> tuple[str, int]:
        """Returns the scope and the version that the alias points to."""
        for scope in self._scopes:
            head = self._head(scope)
            if head is not None and self._alias in head["aliases"]:
                return scope, int(head["aliases"][self._alias])
        raise self._no_state(head)

    def _head(self, scope: str) -> dict[str, Any] | None:
        record = self._view.get(ALIASES, head_key(self._model, scope), HEAD_BINS)
        if record is None:
            return None
        with self._heads_lock:
            known = self._heads.get(scope)
            if known is not None and record.bins.get("changes", 0) < known.get("changes", 0):
                return known  # this one is from a copy that lags
            self._heads[scope] = record.bins
            return record.bins

    def _no_state(self, head: dict[str, Any] | None) -> UnknownState:
        if head is None or not head["newest"]:
            scopes = " or ".join(self._scopes)
            return UnknownState(f"model {self._model} has no state in scope {scopes}", self._known())
        aliases = ", ".join(sorted(head["aliases"]))
        return UnknownState(f"{self._model}/{self._scopes[-1]} has no alias {self._alias}", f"use one of: {aliases}")

    def _unknown(self, scope: str, version: int) -> UnknownState:
        return UnknownState(f"there is no model state {reference(self._model, scope, version)}", self._known())

    def _known(self) -> str:
        """What there is instead, for whoever asked for something that there is not."""
        rows = read_set(self._view, ALIASES, ["model", "scope", "newest"])
        states = sorted(reference(row["model"], row["scope"], row["newest"]) for row in rows if row["newest"])
        return f"the newest of each scope: {', '.join(states)}" if states else "publish one first"


class _Parts:
    """Parts of tensors, verified: those at hand, all others from the view. bytes_read: from the view, so far."""

    def __init__(self, view: View, at_hand: Mapping[str, memoryview]) -> None:
        self.bytes_read = 0
        self._view = view
        self._at_hand = at_hand

    def read(self, entries: Sequence[TensorEntry]) -> Iterator[Bytes]:
        """Yields each part of each in turn; only a few trips' are in memory."""
        trips = in_trips((part, entry.num_bytes // len(entry.parts)) for entry in entries for part in entry.parts)
        under_way = deque(self._begin(trip) for trip in islice(trips, TRIPS_AT_ONCE))
        while under_way:
            trip, future = under_way.popleft()
            found = future.result()
            under_way.extend(self._begin(trip) for trip in islice(trips, 1))
            self.bytes_read += sum(len(data) for part, data in found.items() if part not in self._at_hand)
            yield from (found[part] for part in trip)

    def _begin(self, parts: Sequence[str]) -> tuple[Sequence[str], Future[dict[str, Bytes]]]:
        return parts, self._view.threads.submit(self._trip, parts)

    def _trip(self, parts: Sequence[str]) -> dict[str, Bytes]:
        found: dict[str, Bytes] = {part: self._at_hand[part] for part in parts if part in self._at_hand}
        missing = [part for part in dict.fromkeys(parts) if part not in found]
        if missing:
            found |= self._whole(missing, self._view.get_many(TENSORS, missing))
        # The rack's own copies may lag while nodes come and go, or be damaged.
        if missing := [part for part in missing if part not in found]:
            logger.warning(
                "%d records of %s are not whole in this rack, and are read where they were written",
                len(missing),
                TENSORS,
            )
            records = self._view.get_many(TENSORS, missing, reads="linearizable")
            found |= self._whole(missing, records)
            for part, record in zip(missing, records, strict=True):
                if part not in found:
                    raise ViewError(
                        f"record {TENSORS}/{part} is {'damaged' if record else 'missing'}",
                        f"{'delete that record, then ' if record else ''}publish the state again",
                    )
        return found

    @staticmethod
    def _whole(parts: Sequence[str], records: Sequence[Record | None]) -> dict[str, Bytes]:
        """The parts whose bytes are those that their names say."""
        read = {part: record.bins["data"] for part, record in zip(parts, records, strict=True) if record}
        return {part: data for part, data in read.items() if part_name(data) == part}
