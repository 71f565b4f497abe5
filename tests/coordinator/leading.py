"""A coordinator's service that leads for as long as its test wants, without a lease in the view."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from coordinator.config import CoordinatorConfig
from coordinator.leadership import Leadership, Taken
from coordinator.service import CoordinatorService
from geotrain.lease import Lease
from geotrain.view.connect import View
from tests.until import until

LONG_S = 1e6

# Each later than all before, also than those of an earlier run of the tests on the same cluster.
EPOCHS = count(time.time_ns() // 1_000_000)


def new_leader(config: CoordinatorConfig, view: View) -> CoordinatorService:
    """A service whose machine leads, and that has taken up nothing yet."""
    now_s = time.monotonic()
    leadership = Leadership("test", LONG_S, now_s=now_s)
    lease = Lease(owner="test", epoch=next(EPOCHS), lease_s=LONG_S, address="127.0.0.1:1")
    leadership.handle(Taken(lease, now_s), now_s=now_s)
    return CoordinatorService(config, view, leadership)


@asynccontextmanager
async def term_of(service: CoordinatorService) -> AsyncIterator["asyncio.Task[None]"]:
    """The term of a leader, from when it has taken up its jobs; the task ends when it dies."""
    leading = asyncio.create_task(service.lead(service.leadership.epoch))
    try:
        await until(lambda: service.term is not None or leading.done())
        yield leading
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
