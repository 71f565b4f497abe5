"""Starts and stops the coordinator: view, gRPC server, job queue. Knows no round."""

import asyncio
import contextlib
import logging
import signal

from coordinator.config import CoordinatorConfig
from coordinator.service import CoordinatorService
from geotrain.errors import ConfigError
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import new_server
from geotrain.view.connect import View, connect

logger = logging.getLogger(__name__)

GRACE_S = 5.0


def serve(config: CoordinatorConfig) -> None:
    """Answer until SIGTERM or SIGINT. Raises ViewError or ConfigError when it can't start."""
    with connect(config.view) as view:
        asyncio.run(_serve(config, view))


async def _serve(config: CoordinatorConfig, view: View) -> None:
    service = CoordinatorService(config, view)
    server = new_server()
    rpc.add_CoordinatorServicer_to_server(service, server)
    try:
        port = server.add_insecure_port(config.listen)
    except RuntimeError:
        port = 0
    if port == 0:
        raise ConfigError(
            f"listen: {config.listen} can't be bound, another process has the port or the address is not ours",
            "Stop that process, or choose another with listen=HOST:PORT.",
        )
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await service.recover()  # before anyone is answered: a follower of an unfinished job must find it
    await server.start()
    host = config.listen.rpartition(":")[0]
    logger.info("coordinator ready at %s:%d, view %s (%s)", host, port, config.view.namespace, view.consistency)
    jobs = asyncio.create_task(service.run_jobs())
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait([jobs, stopping], return_when=asyncio.FIRST_COMPLETED)
    if jobs.done():
        jobs.result()  # it runs until it is cancelled: a bug of ours, which must not leave a deaf daemon
    jobs.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await jobs
    await server.stop(GRACE_S)
    logger.info("coordinator stopped; unfinished jobs go on when it starts again")
