"""A job's events in their order, in bounded memory, for those who follow. Knows nothing of what happens in a job."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from heapq import merge

from geotrain.rpc import coordinator_pb2 as pb

MAX_EVENTS = 10_000
# Whoever follows a job of which nothing is to be told hears this often that it is still told.
SIGN_OF_LIFE_S = 2.0


class EventLog:
    """Events numbered from 1. What passes (where a site or a phase stands) and what stays (cuts, rounds, states, the
    job's end) are kept apart, the newest `max_events` of each: no number of heartbeats drives out what was reached.

    ended: the job's end is among them; nothing comes after it.
    """

    def __init__(self, job_id: str, max_events: int = MAX_EVENTS) -> None:
        self.num_events = 0
        self.ended = False
        self._job_id = job_id
        self._happened = asyncio.Event()
        self._passing: deque[tuple[int, pb.JobEvent]] = deque(maxlen=max_events)
        self._lasting: deque[tuple[int, pb.JobEvent]] = deque(maxlen=max_events)

    def add(self, event: pb.JobEvent) -> None:
        event.job = self._job_id
        self.num_events += 1
        kept = self._passing if event.WhichOneof("body") in ("site", "phase") else self._lasting
        kept.append((self.num_events, event))
        self.ended = self.ended or event.HasField("ended")
        happened, self._happened = self._happened, asyncio.Event()
        happened.set()

    async def follow(self) -> AsyncIterator[pb.JobEvent]:
        """Everything that happened so far, then what happens next, until the job's end.

        Events without a body are signs of life.
        """
        told = 0
        while True:
            happened = self._happened
            for number, event in self.after(told):
                yield event
                told = number
            if self.num_events > told:
                continue  # something happened while the last one was on its way
            if self.ended:
                return
            try:
                async with asyncio.timeout(SIGN_OF_LIFE_S):
                    await happened.wait()
            except TimeoutError:
                yield pb.JobEvent(job=self._job_id)

    def after(self, number: int) -> list[tuple[int, pb.JobEvent]]:
        """Returns the events that are kept of those after the one with this number, with their numbers."""
        return list(merge(_after(self._lasting, number), _after(self._passing, number), key=lambda one: one[0]))


def _after(kept: deque[tuple[int, pb.JobEvent]], number: int) -> list[tuple[int, pb.JobEvent]]:
    newer = []
    for one in reversed(kept):  # who follows wants the last few
        if one[0] <= number:
            break
        newer.append(one)
    return newer[::-1]
