"""Faults of links, as orders: cut, heal, slow. Knows no sockets."""

from collections.abc import Callable, Collection

from sim.control import Command, OrderError, check_names, number
from sim.wan.model import Link, LinkQuality, Network


class LinkFaults:
    """Orders to the links of a network."""

    def __init__(self, network: Network, sites: Collection[str], when_changed: Callable[[], None]) -> None:
        """when_changed: called when links have been cut or healed, before what has waited goes on its way."""
        self._network = network
        self._sites = sorted(sites)
        self._when_changed = when_changed
        self.commands: dict[str, Command] = {"cut": self.cut, "heal": self.heal, "slow": self.slow}

    async def cut(self, values: dict[str, str]) -> None:
        """cut:site=S from all other sites, or cut:from=S;to=T in this direction only. What is sent waits."""
        for link in self._links(values):
            link.cut()
        self._when_changed()

    async def heal(self, values: dict[str, str]) -> None:
        """heal:site=S, or heal:from=S;to=T, or heal for all links: no longer cut or slow. What has waited arrives."""
        links = self._links(values) if values else self._network.links()
        for link in links:
            link.is_up = True
        self._when_changed()
        for link in links:
            link.heal()

    async def slow(self, values: dict[str, str]) -> None:
        """slow:site=S or slow:from=S;to=T, with delay_ms, jitter_ms, bytes_per_s: what links are until they heal."""
        links = self._links(values, "delay_ms", "jitter_ms", "bytes_per_s")
        quality = LinkQuality(
            delay_ms=number(values, "delay_ms"),
            jitter_ms=number(values, "jitter_ms"),
            bytes_per_s=int(number(values, "bytes_per_s")),
        )
        for link in links:
            link.quality = quality
        self._network.has_delays = True

    def _links(self, values: dict[str, str], *others: str) -> list[Link]:
        """The links that an order means. others: what it may say beside them."""
        check_names(values, "site", "from", "to", *others)
        if "site" in values and values.keys() & {"from", "to"}:
            raise OrderError("give either site=, or from= and to=")
        wanted = [values["site"]] if "site" in values else [values.get("from", ""), values.get("to", "")]
        if unknown := [name for name in wanted if name not in self._sites]:
            raise OrderError(f"no such site: {unknown[0]!r}; give site=, or from= and to=, of {', '.join(self._sites)}")
        if len(wanted) == 2:
            if wanted[0] == wanted[1]:
                raise OrderError(f"from= and to= must be two sites, got {wanted[0]} twice")
            return [self._network.link(*wanted)]
        here, link = wanted[0], self._network.link
        return [each for there in self._sites if there != here for each in (link(here, there), link(there, here))]
