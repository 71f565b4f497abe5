"""What tests wait for: facts, never moments. Their own deadlines end what never holds."""

import asyncio
from collections.abc import Callable
from typing import Any

POLL_S = 0.01


async def until(holds: Callable[[], Any]) -> None:
    while not holds():  # noqa: ASYNC110 - only tests wait for it
        await asyncio.sleep(POLL_S)
