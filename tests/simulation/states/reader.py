"""A process that reads whatever is in production, all the time, and reports each change of it."""

import time
from multiprocessing.connection import Connection
from typing import Any

from geotrain.errors import ViewError
from geotrain.states.lookup import ModelLookup
from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect
from tests.simulation.states.world import Violation, check_whole

REST, STOP = -1, -2
PAUSE_S = 0.002  # there is one machine for all


def read(config: ViewConfig, seed: Any, reports: Connection) -> None:
    """Sends (seed, version, what is wrong), until the seed is STOP; while it is REST, there is nothing to read.

    A reader for which time is made to leap may lose its grace: what it can't read whole, it has not seen.
    """
    with connect(config) as view:
        at, lookup, seen = -1, None, 0
        reports.send((-1, 0, ""))
        while (now := seed.value) != STOP:
            time.sleep(PAUSE_S)
            if now == REST:
                continue
            if lookup is None or now != at:
                at, lookup, seen = now, ModelLookup(view, f"m{now}"), 0
            try:
                state = lookup.latest()
                if state.manifest.version != seen:
                    seen = state.manifest.version
                    check_whole(state)
                    reports.send((at, seen, ""))
            except Violation as violation:
                reports.send((at, seen, str(violation)))
            except ViewError as error:
                if "damaged" in error.what:
                    reports.send((at, seen, error.what))
