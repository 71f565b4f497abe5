"""A TCP relay between agents and coordinator: one listener a site, all bytes counted, the uplink kept for the wiretap.

Knows no message. Plain for now: it adds no delay and loses nothing, so it stands for the link, not for the distance.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

READ_BYTES = 1 << 16
CONNECT_DEADLINE_S = 5.0
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


class Link:
    """One site's link. Every connection's uplink goes to a file of its own: wire/<site>.<connection>.up."""

    def __init__(self, site: str, *, target: str, folder: Path, max_bytes: int) -> None:
        self.site = site
        self.counts = Counts()
        self._host, port = target.rsplit(":", 1)
        self._port = int(port)
        self._folder = folder
        self._max_bytes = max_bytes
        self._open: dict[asyncio.Event, tuple[StreamWriter, StreamWriter]] = {}

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Relay one connection of the site until both directions have ended."""
        self.counts.connections += 1
        path = self._folder / f"{self.site}.{self.counts.connections}.up"
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            print(f"{self.site}: the coordinator can't be reached: {error}", flush=True)
            writer.close()
            return
        ended = asyncio.Event()
        self._open[ended] = (writer, far_writer)
        with path.open("wb") as capture:

            def up(data: bytes) -> None:
                self.counts.up += len(data)
                self._capture(data, capture)

            def down(data: bytes) -> None:
                self.counts.down += len(data)

            await asyncio.gather(_pump(reader, far_writer, up), _pump(far_reader, writer, down))
        far_writer.close()
        writer.close()
        del self._open[ended]
        ended.set()

    async def hang_up(self) -> None:
        """End every connection."""
        for ended, writers in list(self._open.items()):
            for writer in writers:
                writer.close()
            await ended.wait()

    def _capture(self, data: bytes, capture: BinaryIO) -> None:
        kept = data[: self._max_bytes - self.counts.captured]
        capture.write(kept)
        capture.flush()
        was_whole = self.counts.captured + len(data) == self.counts.up
        self.counts.captured += len(kept)
        if was_whole and len(kept) < len(data):
            print(f"{self.site}: capture stopped at its limit of {self._max_bytes} bytes", flush=True)


async def _pump(reader: StreamReader, writer: StreamWriter, tap: Callable[[bytes], None]) -> None:
    """Copy one direction to its end, showing the tap every byte; a reset by either side ends both directions."""
    try:
        while data := await reader.read(READ_BYTES):
            tap(data)
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except ConnectionError:
        writer.close()


async def relay(target: str, listen: dict[str, str], folder: Path, max_bytes: int) -> None:
    """Relay every site's `host:port` to the target until SIGTERM, and keep folder/counts.json up to date."""
    links = [Link(site, target=target, folder=folder, max_bytes=max_bytes) for site in listen]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with contextlib.AsyncExitStack() as servers:
        for link in links:
            host, port = listen[link.site].rsplit(":", 1)
            server = await asyncio.start_server(link.serve, host, int(port))
            await servers.enter_async_context(server)
            print(f"{link.site} is relayed at {host}:{server.sockets[0].getsockname()[1]}", flush=True)
        while not stop.is_set():
            _write_counts(links, folder)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), WRITE_COUNTS_EVERY_S)
        for link in links:
            await link.hang_up()
        _write_counts(links, folder)


def _write_counts(links: list[Link], folder: Path) -> None:
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
    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(relay(arguments.target, listen, arguments.folder, arguments.max_bytes))
    except OSError as error:
        sys.exit(f"error: the relay can't listen: {error}")


if __name__ == "__main__":
    main()
