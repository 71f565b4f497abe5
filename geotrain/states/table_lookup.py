"""Looks rows of a published table up by key, straight into one NumPy array. Loads neither torch nor Arrow."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotrain.errors import DataError, ViewError
from geotrain.states.manifest import ALIASES, MANIFESTS, Manifest, UnknownState, check_names, head_key, reference
from geotrain.states.rows import ROW, TABLE, Layout, damaged, set_of
from geotrain.view.connect import View
from geotrain.view.keyed import ClientRecord

logger = logging.getLogger(__name__)

MAX_KEYS = 5000  # in one look-up
BINS = [ROW, "aliases", "changes"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one version of a table, in the order of the keys.

    values: (n,), a field a column: `values["vector"]` is (n, length) and shares its memory. Where there is no row for a
    key, is_found (n,) is false, and values is zero.
    """

    values: NDArray[np.void]
    is_found: NDArray[np.bool_]
    version: int


@dataclass(frozen=True, slots=True)
class _Version:
    """Where the alias points, and what is there. changes: of the head, when it was seen to."""

    number: int
    changes: int
    layout: Layout
    dtype: np.dtype[np.void]


class TableLookup:
    """The rows of a table in one scope, by alias. Threads may share it: each look-up is of one version, whole."""

    def __init__(self, view: View, name: str, scope: str = "global", alias: str = "production") -> None:
        check_names(name, scope, alias)
        self._view = view
        self._name = name
        self._scope = scope
        self._alias = alias
        self._head = (ALIASES, head_key(name, scope))
        self._set = set_of(name)
        self._held: _Version | None = None
        self._lock = Lock()

    def get(self, keys: Sequence[str] | Sequence[int]) -> Rows:
        """Returns the rows of the version that the alias points to now.

        The alias is read in one batch with the rows; a second one is needed only where it has moved since the last
        look-up. Read where `view.reads` says, and tried again for `deadline_s`. Raises UnknownState where there is no
        such table, DataError for too many keys or keys of another type than the table's, ViewError.
        """
        if len(keys) > MAX_KEYS:
            raise DataError(f"table {self._name}: {len(keys)} keys are asked for", f"ask for {MAX_KEYS} at a time")
        held = self._held or self._follow(self._view.read_places([self._head], BINS)[0])
        while True:
            layout = held.layout
            if not layout.takes(keys):
                raise DataError(f"table {self._name}: its keys are {layout.key_type}, others were given", "cast them")
            set_name, prefix = self._set, layout.prefix
            places = [self._head, *[(set_name, f"{prefix}{key}") for key in keys]]
            head, *rows = self._view.read_places(places, BINS)
            held = self._follow(head)
            if held.layout.content == layout.content:
                return self._rows(held, keys, rows)

    def _rows(self, version: _Version, keys: Sequence[Any], rows: Sequence[ClientRecord | None]) -> Rows:
        found = [None if row is None else row[2][ROW] for row in rows]
        nothing = bytes(version.dtype.itemsize)
        if places := damaged(found, len(nothing)):
            self._read_again(version, keys, found, places)
        data = bytearray().join([nothing if row is None else row for row in found])
        is_found = np.array([row is not None for row in found], np.bool_)
        return Rows(np.frombuffer(data, version.dtype), is_found, version.number)

    def _read_again(
        self, version: _Version, keys: Sequence[Any], found: list[bytes | None], places: Sequence[int]
    ) -> None:
        """Reads rows where they were written, whose copies here are damaged."""
        logger.warning(
            "%d rows of the table %s are damaged in this rack, and are read where they were written",
            len(places),
            self._name,
        )
        asked = [f"{version.layout.prefix}{keys[place]}" for place in places]
        again = self._view.read_many(self._set, asked, [ROW], reads="linearizable")
        for place, row in zip(places, again, strict=True):
            found[place] = None if row is None else row[2][ROW]
        if left := damaged(found, version.dtype.itemsize):
            raise ViewError(f"table {self._name}: the row {keys[left[0]]!r} is damaged", "publish the table again")

    def _follow(self, head: ClientRecord | None) -> _Version:
        """Returns the version to which the alias points."""
        aliases: Mapping[str, int] = head[2]["aliases"] if head else {}
        if head is None or self._alias not in aliases:
            known = f"use one of: {', '.join(sorted(aliases))}" if aliases else "publish it first"
            raise UnknownState(f"table {self._name}/{self._scope} has no alias {self._alias}", known)
        held, number, changes = self._held, aliases[self._alias], head[2].get("changes", 0)
        if held is not None and changes <= held.changes:
            return held  # as it was, or from a copy that lags
        layout = held.layout if held is not None and number == held.number else self._layout(number)
        with self._lock:  # another thread may have seen it go further
            if self._held is None or self._held.changes < changes:
                self._held = _Version(number, changes, layout, layout.dtype)
            return self._held

    def _layout(self, number: int) -> Layout:
        key = reference(self._name, self._scope, number)
        # The rack's own copy may lag while nodes come and go.
        record = self._view.get(MANIFESTS, key) or self._view.get(MANIFESTS, key, reads="linearizable")
        if record is None:
            raise UnknownState(f"there is no table {key}", "publish it again")
        metadata = Manifest.from_bytes(record.bins["manifest"]).metadata
        if TABLE not in metadata:
            raise UnknownState(f"{key} is a model's state, and no table", "look it up as a model")
        return Layout.from_json(metadata[TABLE])
