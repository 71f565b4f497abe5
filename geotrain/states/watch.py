"""Keeps the newest state of a scope at hand in a process that serves it. Knows nothing of what it is served for."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from geotrain.errors import GeotrainError, ViewError
from geotrain.states.cache import StateCache
from geotrain.states.lookup import ModelLookup, State
from geotrain.states.manifest import UnknownState
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect

logger = logging.getLogger(__name__)

FROM_VIEW = "view"
FROM_DISK = "cache on disk"


@dataclass(frozen=True, slots=True)
class _Served:
    """What readers get. newest_at_s: when it was last known to be the newest, on the monotonic clock."""

    state: State
    source: str
    newest_at_s: float


class ModelWatcher:
    """The newest state of a scope: whoever takes `state` waits for nothing. Threads may share it; processes may not.

    problem: why the view could not be asked the last time, or what it has could not be taken; None where all is well.
    """

    def __init__(
        self,
        config: ViewConfig,
        model: str,
        scope: str = "global",
        alias: str = "production",
        *,
        fall_back: str | None = None,
        cache: StateCache | None = None,
        interval_s: float | None = 1.0,
    ) -> None:
        """Connects, and reads the state.

        While the view can't be reached, the last good state in the cache is served; raises ViewError where there is
        none, UnknownState where the view has none. fall_back, cache: as for `ModelLookup`. interval_s: how often the
        view is asked for a newer one, in the background; None: only by `check`.
        """
        self.problem: GeotrainError | None = None
        self._config = config
        self._asked = (model, scope, alias)
        self._fall_back = fall_back
        self._cache = cache
        self._view: View | None = None
        self._lookup: ModelLookup | None = None
        self._checking = threading.Lock()
        self._takers: list[Callable[[State], None]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self._served = self._first()
        except GeotrainError:
            self.close()
            raise
        if interval_s is not None:
            self._thread = threading.Thread(target=self._run, args=(interval_s,), name=f"watch-{model}", daemon=True)
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> State:
        """The state that is served: whole, and never older than what was served before, but by a rollback."""
        return self._served.state

    @property
    def version(self) -> int:
        """Of the state that is served."""
        return self._served.state.manifest.version

    @property
    def served_from(self) -> str:
        """`view`, or `cache on disk` until the view has answered for the first time."""
        return self._served.source

    @property
    def age_s(self) -> float:
        """How long ago the view last said that this state is the newest, in seconds."""
        return time.monotonic() - self._served.newest_at_s

    @property
    def view(self) -> View:
        """The connection. Raises ViewError while there is none yet."""
        if self._view is None:
            raise self.problem or ViewError("the view was not reached yet", "try again when it is")
        return self._view

    def subscribe(self, take: Callable[[State], None]) -> None:
        """Calls `take` with the state that is served, and from then on with each new one before it is served.

        A GeotrainError that it raises keeps the state from being served: the one before stays.
        """
        with self._checking:
            take(self.state)
            self._takers.append(take)

    def check(self) -> State:
        """Asks the view now, and serves what it says.

        Raises ViewError where the view can't be asked, or what a subscriber raises; what was served stays so.
        """
        with self._checking:
            try:
                newest = self._newest()
                if newest.state.manifest is not self.state.manifest:
                    for take in self._takers:
                        take(newest.state)
                self._served = newest
            except GeotrainError as error:
                if self.problem is None or error.what != self.problem.what:
                    logger.warning("%s/%s@%s stays as it is: %s", *self._asked, error.what)
                self.problem = error
                raise
            self.problem = None
            return self._served.state

    def close(self) -> None:
        """Ends the thread, after what it is asking for, and the connection. What is served stays so."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._view is not None:
            self._view.close()

    def _run(self, interval_s: float) -> None:
        while not self._stop.wait(interval_s):
            try:
                self.check()
            except GeotrainError:
                continue  # it is noted, and asked again

    def _first(self) -> _Served:
        try:
            return self._newest()
        except ViewError as error:
            found = None if isinstance(error, UnknownState) else self._last_good()
            if found is None:
                raise
            logger.warning("%s is served from disk: %s", found.state.manifest.reference, error.what)
            self.problem = error
            return found

    def _newest(self) -> _Served:
        """What the view says now; on disk it is noted that this was so."""
        if self._lookup is None:
            self._view = self._view or connect(self._config)
            self._lookup = ModelLookup(self._view, *self._asked, fall_back=self._fall_back, cache=self._cache)
        asked_at_s = time.monotonic()
        state = self._lookup.latest()
        if self._cache is not None:
            self._cache.confirm(*self._asked)
        return _Served(state, FROM_VIEW, asked_at_s)

    def _last_good(self) -> _Served | None:
        """The state on disk; None where it is not there whole."""
        found = None if self._cache is None else self._cache.last_good(*self._asked)
        if self._cache is None or found is None:
            return None
        manifest, newest_at_s = found
        tensors = {name: self._cache.tensor(entry) for name, entry in manifest.tensors.items()}
        whole = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        if len(whole) < len(tensors):
            return None
        age_s = max(0.0, time.time() - newest_at_s)
        return _Served(State(manifest, MappingProxyType(whole), 0), FROM_DISK, time.monotonic() - age_s)
