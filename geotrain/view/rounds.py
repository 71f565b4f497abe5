"""Reads partitions to their end: where nodes fail, others are asked for the rest. Knows neither sockets nor rows."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pyarrow as pa

from geotrain.errors import ViewError
from geotrain.view.assignment import Assignment, PartitionMap, Request
from geotrain.view.retry import pauses
from geotrain.view.streams import Outcome, Streams

log = logging.getLogger(__name__)

MAX_ROUNDS = 1000  # a round that gets no further than the last is paused after, and ends with the budget


def read_rounds(
    streams: Streams,
    assignment: Assignment,
    known: PartitionMap,
    budget_s: float,
    note: Callable[[Outcome], None] = lambda _: None,
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of all that is assigned, and gives `note` what else came of each stream.

    known: who holds what; asked for anew after each round that left something. budget_s: for how long it is tried
    again without getting any further. Raises ViewError where partitions can't be read; rows that came are valid.
    """

    def take(request: Request, outcome: Outcome) -> None:
        before = assignment.failures.get(request.node)
        assignment.take(request, outcome.answer)
        note(outcome)
        if (why := assignment.failures.get(request.node)) != before:
            log.warning("%s: not all came from node %s: %s", streams.doing, request.node, why)

    attempts = pauses(budget_s)
    for _ in range(MAX_ROUNDS):
        distance = assignment.distance
        requests = assignment.plan(known)
        if requests:
            yield from streams.read(requests, take)
        if not assignment.num_remaining:
            return
        if assignment.distance > distance:
            attempts = pauses(budget_s)
        elif (pause_s := next(attempts, None)) is None:
            break
        elif not requests:
            time.sleep(pause_s)
        with suppress(ViewError):  # while no node answers, those are asked that once did
            known = streams.nodes.partition_map()
    failures = "; ".join(f"node {node}: {why}" for node, why in assignment.failures.items())
    raise ViewError(
        f"{streams.doing}: {assignment.num_remaining} partitions can't be read to their end within {budget_s:g} s"
        f" ({failures or 'no node says that it holds them'})",
        "bring back the missing nodes of the roster; what was read so far is not the whole of it",
    )
