"""Starts and stops the site agent: view, Ray, session. Knows no job."""

import asyncio
import logging
import signal
from pathlib import Path

from geotrain.errors import DataError
from geotrain.rpc import tls
from geotrain.rpc.memory import reuse_freed_memory
from geotrain.view.connect import connect
from site_agent.compute import Compute
from site_agent.config import SiteAgentConfig
from site_agent.jobs import SiteJobs
from site_agent.session import Session

logger = logging.getLogger(__name__)


def serve(config: SiteAgentConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises GeotrainError when the site can't start or is refused."""
    data_dir = Path(config.site.data_dir)
    if not data_dir.is_dir():
        raise DataError(
            f"site.data_dir: {data_dir} is not a folder",
            "Name the folder of the site's local datasets with site.data_dir=FOLDER.",
        )
    identity = tls.load(config.tls, tls.site_name(config.site.name))
    logger.info("%s", tls.described(config.tls))
    reuse_freed_memory(32 << 20, 256 << 20)
    with connect(config.view) as view:
        compute = Compute(config.site)
        try:
            asyncio.run(_serve(Session(config, SiteJobs(config, view, compute), view, identity), compute))
        finally:
            compute.close()
    logger.info("site agent %s stopped", config.site.name)


async def _serve(session: Session, compute: Compute) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    serving = asyncio.create_task(session.run())
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    # Before asyncio waits for its threads: one may be waiting for Ray.
    compute.close()
    if serving.done():
        serving.result()
    serving.cancel()
