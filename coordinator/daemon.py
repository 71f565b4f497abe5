"""Starts and stops the coordinator: view, gRPC server, candidacy. Knows no round."""

import asyncio
import contextlib
import gc
import logging
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import torch

from coordinator import http
from coordinator.candidate import Candidate
from coordinator.config import CoordinatorConfig
from coordinator.leadership import Leadership
from coordinator.lease import LeaseHolder
from coordinator.service import CoordinatorService
from geotrain.errors import ConfigError
from geotrain.rpc import tls
from geotrain.rpc.channels import new_server
from geotrain.rpc.memory import reuse_freed_memory
from geotrain.rpc.parts import add_to_server
from geotrain.view.connect import View, connect

logger = logging.getLogger(__name__)

GRACE_S = 5.0
# Calls of the view that wait, for a lost node perhaps, must not keep the lease from being renewed.
MAX_WAITING_CALLS = 64


def serve(config: CoordinatorConfig) -> None:
    """Answer until SIGTERM or SIGINT. Raises ViewError or ConfigError when it can't start."""
    identity = tls.load(config.tls, tls.COORDINATOR)
    reuse_freed_memory(8 << 20, 32 << 20)
    torch.set_num_threads(1)  # small blocks, several at once
    gc.freeze()  # what was imported stays: a collection need not look at it
    with connect(config.view) as view:
        asyncio.run(_serve(config, view, identity))


async def _serve(config: CoordinatorConfig, view: View, identity: tls.Identity | None) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(MAX_WAITING_CALLS))
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = new_server()
    address = _listen(server, config, identity)
    advertised = config.advertise or address
    status = http.bind(config.http_listen)
    holder = LeaseHolder(
        view,
        lease_s=config.lease_s,
        address=advertised,
        addresses=config.advertise_to,
        status=http.found_at(status, advertised),
    )
    leadership = Leadership(holder.owner, config.lease_s, now_s=time.monotonic())
    service = CoordinatorService(config, view, leadership)
    add_to_server(service, server)
    await server.start()
    logger.info("%s", tls.described(config.tls))
    logger.info("coordinator ready at %s, view %s (%s)", address, config.view.namespace, view.consistency)
    async with http.serving(status, http.Pages(config, view, service, advertised)):
        standing = asyncio.create_task(Candidate(leadership, holder, service.lead).run())
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait([standing, stopping], return_when=asyncio.FIRST_COMPLETED)
        if standing.done():
            standing.result()  # it runs until it is cancelled: a bug of ours, which must not leave a deaf daemon
        standing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await standing
    await server.stop(GRACE_S)
    logger.info("coordinator stopped; unfinished jobs go on with the next leader")


def _listen(server: grpc.aio.Server, config: CoordinatorConfig, identity: tls.Identity | None) -> str:
    """Bind the configured address; returns it with the port that it got."""
    try:
        if identity is None:
            port = server.add_insecure_port(config.listen)
        else:
            port = server.add_secure_port(config.listen, identity.to_listen())
    except RuntimeError:
        port = 0
    if port == 0:
        raise ConfigError(
            f"listen: {config.listen} can't be bound, another process has the port or the address is not ours",
            "Stop that process, or choose another with listen=HOST:PORT.",
        )
    return f"{config.listen.rpartition(':')[0]}:{port}"
