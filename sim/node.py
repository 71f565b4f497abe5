"""Stands for one node of a simulated cluster, in a container of its own: `python -m sim.node --help`.

Carries what is sent to the node, and its end is the node's. Knows no message, and adds no delay: the cluster does.
"""

import argparse
import asyncio
import logging
import socket
import sys

from sim.cluster.lives import BEAT_S, LIVES
from sim.wan import proxy
from sim.wan.model import Network

log = logging.getLogger("sim.node")

ANYWHERE = "0.0.0.0"
CLIENTS = "clients"
AGAIN_S = 1.0
ANSWER_DEADLINE_S = 10.0

Address = tuple[str, int]


async def stand_for(name: str, life: Address, targets: list[Address]) -> None:
    """Carry connections at each target's port, and keep the node alive, until cancelled. Raises OSError."""
    network = Network((), seed=0)
    for host, port in targets:
        # Once: while containers come and go, an engine may not answer for their names.
        [(*_, (address, *_)), *_] = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        await proxy.listen(network, CLIENTS, name, (ANYWHERE, port), (str(address), port))
    while True:
        try:
            async with asyncio.timeout(ANSWER_DEADLINE_S):
                reader, writer = await asyncio.open_connection(*life)
                writer.write(f"{name}\n".encode())
                answer = await reader.readline()
            if answer == LIVES:
                log.info("node %s lives", name)
                while not reader.at_eof():
                    writer.write(b".")
                    await writer.drain()
                    await asyncio.sleep(BEAT_S)
            log.warning("%s:%d has hung up on node %s", *life, name)
            writer.close()
        except OSError as error:
            log.warning("%s:%d can't be reached: %s", *life, str(error) or "no answer")
        await asyncio.sleep(AGAIN_S)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sim.node", description=__doc__)
    parser.add_argument("--name", required=True, help="of the node, as the cluster has it")
    parser.add_argument("--life", required=True, type=_address, metavar="HOST:PORT", help="the cluster's life_port")
    parser.add_argument("targets", nargs="+", type=_address, metavar="HOST:PORT", help="the node's listeners")
    given = parser.parse_args()
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    try:
        asyncio.run(stand_for(given.name, given.life, given.targets))
    except OSError as error:
        sys.exit(f"error: node {given.name}: {error}")


if __name__ == "__main__":
    main()
