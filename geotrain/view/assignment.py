"""Which node is asked for which partitions, and from where on, until each partition was read to its end once.

Pure: asks nobody. Takes the copies of a partition in any number, on any number of racks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geotrain.view.cut import Digests
from geotrain.wire.columnar import Progress
from geotrain.wire.partitions import NUM_PARTITIONS

Partitions = NDArray[np.int64]
Flags = NDArray[np.bool_]  # (4096,), one a partition

NOBODY = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one node says it holds of the namespace.

    regime: of its sub-cluster; what nodes of an older one claim does not count
    copies: the partitions of which it holds copy 0 (the master), copy 1, ...
    rack: None where the edition knows no racks
    """

    regime: int
    copies: Sequence[Sequence[int]]
    rack: int | None = None


@dataclass(frozen=True, slots=True)
class PartitionMap:
    """Who holds each partition.

    nodes, racks: name and rack of each node. holders: (copies, 4096) the position in `nodes` of who holds each copy.
    """

    nodes: list[str]
    racks: NDArray[np.int64]
    holders: NDArray[np.int64]

    @classmethod
    def of(cls, claims: Mapping[str, Claim]) -> "PartitionMap":
        """Returns the map that the claims of all nodes make together."""
        newest = np.full(NUM_PARTITIONS, -1)
        for claim in claims.values():
            for listed in claim.copies:
                newest[listed] = np.maximum(newest[listed], claim.regime)
        num_copies = max((len(claim.copies) for claim in claims.values()), default=0)
        holders = np.full((num_copies, NUM_PARTITIONS), NOBODY)
        for node, claim in enumerate(claims.values()):
            for copy, listed in enumerate(claim.copies):
                pids = np.asarray(listed, np.int64)
                holders[copy, pids[newest[pids] == claim.regime]] = node
        racks = np.array([NOBODY if claim.rack is None else claim.rack for claim in claims.values()], np.int64)
        return cls(list(claims), racks, holders)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What one connection asks one node for.

    fresh: partitions to be read from their beginning. resumed: (n, 20) digests after each of which to go on in its
    partition. partitions: all of them.
    """

    node: str
    partitions: Partitions
    fresh: Partitions
    resumed: Digests


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request, but for its rows.

    refused: partition -> result code, of those that the node could not serve
    failure: why the answer broke off; None where it came to its end
    """

    refused: Mapping[int, int]
    failure: str | None = None


class Assignment:
    """Which partitions are read to their end, and who was asked for the others. `plan` and `take` are called in turn.

    A node that failed or refused a partition is not asked for it again before all others that hold a copy were.
    """

    def __init__(
        self,
        progress: Progress,
        partitions: Sequence[int] | None,
        *,
        rack: int,
        connections_per_node: int,
        num_copies: int | None = None,
    ) -> None:
        """progress: of the streams that answer. partitions: None reads all. rack: whose nodes are asked first.

        num_copies: how many of each partition may be asked for, the master's first; None is all.
        """
        self._progress = progress
        self._rack = rack
        self._connections_per_node = connections_per_node
        self._num_copies = num_copies
        self._is_done = np.zeros(NUM_PARTITIONS, np.bool_)
        if partitions is not None:
            self._is_done[:] = True
            self._is_done[list(partitions)] = False
        self._tried: dict[str, Flags] = {}
        self.failures: dict[str, str] = {}
        """By node, why it was last not read from to the end."""

    @property
    def num_remaining(self) -> int:
        """How many partitions are not yet read to their end."""
        return int(np.count_nonzero(~self._is_done))

    @property
    def distance(self) -> int:
        """How far the scan has got: grows with every row and every partition."""
        return int(self._progress.num_rows.sum()) + int(np.count_nonzero(self._is_done))

    def plan(self, known: PartitionMap) -> list[Request]:
        """Returns what to ask now. Nothing: all who hold what remains were tried in vain, and may be asked again."""
        chosen = self._choose(known)
        requests = []
        for position, node in enumerate(known.nodes):
            pids = np.flatnonzero(chosen == position)
            num_shares = min(self._connections_per_node, len(pids))
            requests += [self._request(node, share) for share in np.array_split(pids, max(1, num_shares)) if len(share)]
        if not requests:
            self._tried.clear()
        return requests

    def take(self, request: Request, answer: Answer) -> None:
        """Note what came of a request."""
        unread = request.partitions
        if answer.failure is None:
            self._is_done[request.partitions] = True
            unread = request.partitions[np.isin(request.partitions, np.array(list(answer.refused), np.int64))]
            self._is_done[unread] = False
        if len(unread):
            self._tried.setdefault(request.node, np.zeros(NUM_PARTITIONS, np.bool_))[unread] = True
            codes = ", ".join(map(str, sorted(set(answer.refused.values()))))
            self.failures[request.node] = answer.failure or f"{len(unread)} partitions refused with code {codes}"

    def _choose(self, known: PartitionMap) -> NDArray[np.int64]:
        """For each partition that remains, the node to ask: of the own rack first, then masters, then other copies."""
        chosen = np.full(NUM_PARTITIONS, NOBODY)
        is_near = known.racks == self._rack
        never = np.zeros(NUM_PARTITIONS, np.bool_)
        tried = np.array([self._tried.get(node, never) for node in known.nodes])
        pids = np.arange(NUM_PARTITIONS)
        for is_eligible in (is_near, ~is_near):
            for holders in known.holders[: self._num_copies]:
                fits = (holders != NOBODY) & is_eligible[holders] & ~tried[holders, pids]
                chosen = np.where((chosen == NOBODY) & ~self._is_done & fits, holders, chosen)
        return chosen

    def _request(self, node: str, pids: Partitions) -> Request:
        begun = self._progress.num_rows[pids] > 0
        return Request(node, pids, pids[~begun], self._progress.last_digests[pids[begun]])
