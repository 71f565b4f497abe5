"""The agents that are connected now: one link a site, its outgoing messages and its byte counts. Decides nothing."""

import asyncio
from dataclasses import dataclass, field

from geotrain.rpc import coordinator_pb2 as pb

# A slow agent may fall this many messages behind; one more and it is disconnected, to start afresh.
MAX_OUTGOING = 64


@dataclass(slots=True)
class Link:
    """One agent's stream. bytes_up, bytes_down: since it joined, as counted here; messages and updates.

    is_heard: whether anything came since that was last asked. overrun: it does not read what it is sent.
    """

    site: str
    outgoing: asyncio.Queue[pb.ToAgent] = field(default_factory=lambda: asyncio.Queue(MAX_OUTGOING))
    is_heard: bool = False
    overrun: bool = False
    bytes_up: int = 0
    bytes_down: int = 0

    def received(self, num_bytes: int) -> None:
        """Note what came from the agent: by this stream, or as a part of an update, which may fill the whole line."""
        self.bytes_up += num_bytes
        self.is_heard = True

    def send(self, message: pb.ToAgent) -> None:
        """Queue a message for the agent. Never blocks."""
        self.bytes_down += message.ByteSize()
        try:
            self.outgoing.put_nowait(message)
        except asyncio.QueueFull:
            self.overrun = True


class Links(dict[str, Link]):
    """The live links by site."""

    def send(self, sites: tuple[str, ...], message: pb.ToAgent) -> None:
        """Queue a message for each of the sites that is connected; one that is not is told when it is back."""
        for site in sites:
            if site in self:
                self[site].send(message)
