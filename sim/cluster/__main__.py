"""Program: the simulated cluster, until it is told to stop."""

import asyncio
import logging
import signal

import hydra
from omegaconf import DictConfig

from geotrain.program import run_program
from sim.cluster import server
from sim.cluster.cluster import Cluster
from sim.cluster.config import ClusterConfig, register

log = logging.getLogger("sim.cluster")
register()


def serve(config: ClusterConfig) -> None:
    """Run the cluster until SIGTERM or SIGINT. Raises ConfigError for a port in use."""
    asyncio.run(_serve(config))


async def _serve(config: ClusterConfig) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    cluster = Cluster(config)
    servers = await server.start(cluster)
    addresses = " ".join(f"{node.name}={node.host}:{node.port}" for node in cluster.nodes)
    log.info("simulated cluster ready, namespace %s: %s", config.namespace, addresses)
    await stopped.wait()
    for listener in servers:
        listener.close()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="simulated_cluster")
def main(cfg: DictConfig) -> None:
    """Compose the configuration and serve."""
    run_program(cfg, serve)


if __name__ == "__main__":
    main()
