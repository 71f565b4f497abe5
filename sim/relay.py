"""The way between agents and coordinator: one listener a site, all bytes counted, the uplink kept for the wiretap.

Knows no message. Its links add no delay and lose nothing: it stands for the way, not for the distance.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from sim.wan import proxy
from sim.wan.model import Network
from sim.wan.proxy import Observer

COORDINATOR = "coordinator"  # the site where it stands
WRITE_COUNTS_EVERY_S = 0.5


@dataclass(slots=True)
class Counts:
    """What crossed one site's link so far.

    up, down: bytes to and from the coordinator. connections: how often the site dialled.
    captured: bytes of `up` that were kept; less than `up` once the limit was reached.
    """

    up: int = 0
    down: int = 0
    connections: int = 0
    captured: int = 0


class SiteLink:
    """One site's link, watched. Every connection's uplink goes to a file of its own: wire/<site>.<connection>.up."""

    def __init__(self, site: str, *, folder: Path, max_bytes: int) -> None:
        self.site = site
        self.counts = Counts()
        self._folder = folder
        self._max_bytes = max_bytes

    def observer(self) -> Observer:
        """For the site's next connection."""
        self.counts.connections += 1
        path = self._folder / f"{self.site}.{self.counts.connections}.up"

        def up(data: bytes) -> None:
            self.counts.up += len(data)
            self._capture(data, path)

        return Observer(up, self._down)

    def _down(self, data: bytes) -> None:
        self.counts.down += len(data)

    def _capture(self, data: bytes, path: Path) -> None:
        kept = data[: self._max_bytes - self.counts.captured]
        with path.open("ab") as capture:
            capture.write(kept)
        was_whole = self.counts.captured + len(data) == self.counts.up
        self.counts.captured += len(kept)
        if was_whole and len(kept) < len(data):
            print(f"{self.site}: capture stopped at its limit of {self._max_bytes} bytes", flush=True)


async def relay(target: str, listen: dict[str, str], folder: Path, max_bytes: int) -> None:
    """Relay every site's `host:port` to the target until SIGTERM, and keep folder/counts.json up to date."""
    links = [SiteLink(site, folder=folder, max_bytes=max_bytes) for site in listen]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    network = Network((), seed=0)
    for link in links:
        here = _address(listen[link.site])
        server = await proxy.listen(network, link.site, COORDINATOR, here, _address(target), link.observer)
        host, port = server.sockets[0].getsockname()[:2]
        print(f"{link.site} is relayed at {host}:{port}", flush=True)
    while not stop.is_set():
        _write_counts(links, folder)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), WRITE_COUNTS_EVERY_S)
    _write_counts(links, folder)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _write_counts(links: list[SiteLink], folder: Path) -> None:
    """Replace counts.json whole, so that no reader sees half of it."""
    new = folder / "counts.json.new"
    new.write_text(json.dumps({link.site: asdict(link.counts) for link in links}))
    os.replace(new, folder / "counts.json")


def read_counts(folder: Path) -> dict[str, Counts]:
    """The latest counts by site; at most WRITE_COUNTS_EVERY_S old while the relay runs."""
    return {site: Counts(**counts) for site, counts in json.loads((folder / "counts.json").read_text()).items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sim.relay", description=__doc__)
    parser.add_argument("--target", required=True, help="the coordinator, host:port")
    parser.add_argument("--folder", required=True, type=Path, help="where captures and counts go")
    parser.add_argument("--max-bytes", required=True, type=int, help="how much of a site's uplink is kept, in bytes")
    parser.add_argument("listen", nargs="+", metavar="SITE=HOST:PORT", help="one listener a site")
    arguments = parser.parse_args()
    listen = dict(pair.split("=", 1) for pair in arguments.listen)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(relay(arguments.target, listen, arguments.folder, arguments.max_bytes))
    except OSError as error:
        sys.exit(f"error: the relay can't listen: {error}")


if __name__ == "__main__":
    main()
