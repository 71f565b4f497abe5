"""Which refusals of the cluster may pass by themselves, and how long to pause before asking again. Makes no call."""

import random
import time
from collections.abc import Iterator

# Result codes of the client (below 0) and of the server: no response, error rate exceeded, too many retries,
# connection, node not known yet, no free connection; timeout, partition unavailable, key busy, device overload,
# batch queue full.
RETRYABLE = frozenset({-15, -14, -12, -10, -8, -7, 9, 11, 14, 18, 152})

# Those that ask to go slower: error rate exceeded; timeout, device overload, batch queue full.
OVERLOADED = frozenset({-14, 9, 18, 152})

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0


def pauses(budget_s: float) -> Iterator[float]:
    """Yields how long to pause before each further attempt, in seconds, until budget_s have passed since the first.

    Exponential with jitter: writers that failed together don't come back together.
    """
    end_s = time.monotonic() + budget_s
    longest_s = FIRST_PAUSE_S
    while (left_s := end_s - time.monotonic()) > 0:
        yield min(random.uniform(longest_s / 2, longest_s), left_s)
        longest_s = min(2 * longest_s, LONGEST_PAUSE_S)
