"""Program: the simulated wide area between sites, until it is told to stop."""

import asyncio
import logging
import signal

import hydra
from omegaconf import DictConfig

from geotrain.errors import ConfigError
from geotrain.program import run_program
from sim import control
from sim.control import Events, Orders
from sim.wan import proxy
from sim.wan.config import WanConfig, register
from sim.wan.faults import LinkFaults
from sim.wan.model import Network

log = logging.getLogger("sim.wan")
register()


def serve(config: WanConfig) -> None:
    """Carry connections until SIGTERM or SIGINT. Raises ConfigError for a port in use."""
    asyncio.run(_serve(config))


async def _serve(config: WanConfig) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    network = Network(config.links.values(), config.seed)
    sites = {site for route in config.routes.values() for site in (route.site, route.target_site)}
    servers = []
    for name, route in config.routes.items():
        try:
            server = await proxy.listen(
                network, route.site, route.target_site, _address(route.listen), _address(route.target)
            )
        except OSError as error:
            raise ConfigError(
                f"routes.{name}.listen: {route.listen} can't be listened on: {error.strerror}",
                f"Stop what listens there, or set routes.{name}.listen to an address with port 0.",
            ) from None
        servers.append(server)
        host, port = server.sockets[0].getsockname()[:2]
        log.info("route %s: %s:%s, from %s to %s", name, host, port, route.site, route.target_site)
    orders = Orders(LinkFaults(network, sites, lambda: None).commands, Events())
    control_server, control_port = await control.listen(orders, "127.0.0.1", config.control_port)
    log.info("faults are ordered at 127.0.0.1:%d", control_port)
    log.info("simulated wide area ready")
    await stopped.wait()
    for server in (*servers, control_server):
        server.close()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="wan")
def main(cfg: DictConfig) -> None:
    """Compose the configuration and serve."""
    run_program(cfg, serve)


if __name__ == "__main__":
    main()
