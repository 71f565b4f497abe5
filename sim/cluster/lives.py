"""Nodes that others stand for, a container each: such a node lives as long as who stands for it is heard."""

import asyncio
import logging

from geotrain.errors import ConfigError
from sim.control import Orders

log = logging.getLogger(__name__)

LIVES = b"ok\n"
BEAT_S = 0.5
# A container that is killed may take the end of its connections with it.
SILENCE_S = 5.0


async def listen(orders: Orders, host: str, port: int) -> asyncio.Server:
    """Who connects and names a node in a line starts it, and is told so; when it hangs up or falls silent, the node is
    killed. A byte each BEAT_S will do. Who comes for a node that somebody stands for takes that one's place.

    Raises ConfigError for a port in use.
    """
    standing: dict[str, asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            name = (await asyncio.wait_for(reader.readline(), SILENCE_S)).decode(errors="replace").strip()
        except (OSError, ValueError):  # silent, gone, or a line without an end
            writer.close()
            return
        answer = await orders.order(f"start:node={name}")
        if answer != LIVES.decode().strip():
            log.warning("nobody can stand for node %r: %s", name, answer)
            writer.close()
            return
        standing[name] = writer
        try:
            writer.write(LIVES)
            while await asyncio.wait_for(reader.read(1024), SILENCE_S):
                pass
        except (ConnectionError, TimeoutError):
            pass
        finally:
            if standing[name] is writer:  # else another container came before this one's silence was noticed
                await orders.order(f"kill:node={name}")
            writer.close()

    try:
        return await asyncio.start_server(serve, host, port)
    except OSError as error:
        raise ConfigError(
            f"life_port: {host}:{port} can't be listened on: {error.strerror}", "Choose another, or 0 for none."
        ) from None
