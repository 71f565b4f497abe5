"""Program: the simulated cluster, until it is told to stop."""

import asyncio
import logging
import signal
import time
from itertools import count
from pathlib import Path

import hydra
from omegaconf import DictConfig

from geotrain.program import run_program
from geotrain.rpc.memory import reuse_freed_memory
from sim import control
from sim.cluster import lives
from sim.cluster.cluster import Cluster
from sim.cluster.config import ClusterConfig, register
from sim.cluster.execution.commands import end_overdue_transactions
from sim.cluster.journal import Journal
from sim.cluster.listeners import ANYWHERE, Listeners
from sim.cluster.node import State
from sim.cluster.sites.faults import NodeFaults
from sim.cluster.values.refused import Refused
from sim.control import Orders
from sim.wan.faults import LinkFaults

# Of memory that was freed.
LARGEST_REUSED_BYTES = 8 << 20
KEPT_BYTES = 512 << 20

log = logging.getLogger("sim.cluster")
register()


def serve(config: ClusterConfig) -> None:
    """Run the cluster until SIGTERM or SIGINT. Raises ConfigError for a port or folder in use, DataError for a damaged
    journal."""
    _reserve(config.reserved_mb * 1_000_000)
    asyncio.run(_serve(config))


def _reserve(num_bytes: int) -> None:
    """Take so much memory from the kernel, and keep it for records, as a server does with its `data-size`."""
    reuse_freed_memory(LARGEST_REUSED_BYTES, max(num_bytes, KEPT_BYTES))
    pieces = [bytearray(LARGEST_REUSED_BYTES // 2) for _ in range(2 * num_bytes // LARGEST_REUSED_BYTES)]
    del pieces  # to the heap, which keeps them


async def _serve(config: ClusterConfig) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    cluster = Cluster(config)
    if config.data_dir:
        cluster.keep_in(Journal(Path(config.data_dir), config.namespace))
    listeners = Listeners(cluster)
    await listeners.open_all()
    links = LinkFaults(cluster.network, cluster.sites, cluster.rebalance)
    orders = Orders({**NodeFaults(cluster, listeners).commands, **links.commands}, cluster.events)
    control_server, control_port = await control.listen(orders, config.host, config.control_port)
    cluster.control_address = f"{config.host}:{control_port}"
    life_server = await lives.listen(orders, ANYWHERE, config.life_port) if config.life_port else None
    for site in config.client_sites:
        reached = (f"{node.name}={':'.join(map(str, node.addresses[site]))}" for node in cluster.nodes)
        log.info("from site %s: %s", site, " ".join(reached))
    addresses = " ".join(f"{node.name}={node.host}:{node.port}" for node in cluster.nodes)
    log.info(
        "simulated cluster ready, namespace %s: %s, faults at %s", config.namespace, addresses, cluster.control_address
    )
    housekeeping = asyncio.create_task(_keep_house(cluster))
    await stopped.wait()
    housekeeping.cancel()
    control_server.close()
    if life_server:
        life_server.close()
    listeners.close_all()


async def _keep_house(cluster: Cluster) -> None:
    """Every second end the transactions whose time is over; remove expired records as often as is configured."""
    for second in count(1):
        await asyncio.sleep(1)
        try:
            _clean(cluster, second)
        except Refused as refusal:
            log.warning("housekeeping was refused with result code %d and goes on in a second", refusal.code)
        for _ in cluster.drop_all():
            await asyncio.sleep(0)


def _clean(cluster: Cluster, second: int) -> None:
    for node in cluster.nodes:
        if node.state is State.UP and not node.view.unavailable:
            end_overdue_transactions(cluster, node, node.now_ms())
    if cluster.config.nsup_period_s and second % cluster.config.nsup_period_s == 0:
        cluster.remove_expired(time.time_ns() // 1_000_000)


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="simulated_cluster")
def main(cfg: DictConfig) -> None:
    """Compose the configuration and serve."""
    run_program(cfg, serve)


if __name__ == "__main__":
    main()
