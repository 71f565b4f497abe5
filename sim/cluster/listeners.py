"""Where the nodes are reached: a listener each, and one more for each client site, as far away as the links have it."""

import asyncio
import errno
import ssl
from functools import partial

from geotrain.certificates import show, trust
from geotrain.errors import ConfigError
from sim.cluster.cluster import Cluster
from sim.cluster.config import ClusterConfig
from sim.cluster.node import Node
from sim.cluster.server import Connection
from sim.wan import proxy

ANYWHERE = "0.0.0.0"


class Listeners:
    """The listeners of all nodes, opened and closed as nodes start and die."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._open: dict[str, list[asyncio.Server]] = {}
        self._tls = _tls_of(cluster.config)

    async def open_all(self) -> None:
        """Listen for every node. Raises ConfigError for a port in use."""
        for node in self._cluster.nodes:
            await self.open(node)

    async def open(self, node: Node) -> None:
        """Listen for a node, and give it its addresses. Raises ConfigError for a port in use, OSError for a site's."""
        servers = self._open.setdefault(node.name, [])
        server, node.port = await self._listen(node, node.port)
        servers.append(server)
        node.addresses[""] = node.host, node.port
        for site in self._cluster.config.client_sites:
            inner, port = await self._listen(node, 0, site)
            servers.append(inner)
            address, told = self._client_address(node, site)
            outer = await proxy.listen(self._cluster.network, site, node.site, address, (node.host, port))
            node.addresses[site] = told, outer.sockets[0].getsockname()[1]
            servers.append(outer)

    def _client_address(self, node: Node, site: str) -> tuple[tuple[str, int], str]:
        """Where to listen for a site's clients, port 0 being any, and the host at which they are told to find it."""
        told, _, first_port = self._cluster.config.client_addresses.get(site, "").rpartition(":")
        if told:
            port = int(first_port) + self._cluster.nodes.index(node)
            return (ANYWHERE, port), told.replace("{node}", node.name)
        _, port = node.addresses.get(site, ("", 0))
        return (node.host, port), node.host

    def close(self, node: Node) -> None:
        """Listen no more for a node, and break its connections."""
        for server in self._open.pop(node.name, []):
            server.close()
        for connection in list(node.connections):
            connection.abort()

    def close_all(self) -> None:
        """Listen no more."""
        for node in self._cluster.nodes:
            self.close(node)

    async def _listen(self, node: Node, port: int, site: str = "") -> tuple[asyncio.Server, int]:
        loop = asyncio.get_running_loop()
        try:
            factory = partial(Connection, self._cluster, node, site)
            server = await loop.create_server(factory, node.host, port, ssl=self._tls)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"can't be listened on: {error.strerror}"
            raise ConfigError(
                f"nodes.{node.name}.port: {node.host}:{port} {reason}",
                f"Stop what listens there, or choose another port: nodes.{node.name}.port=0 takes any free one.",
            ) from None
        return server, server.sockets[0].getsockname()[1]


def _tls_of(config: ClusterConfig) -> ssl.SSLContext | None:
    """How connections are encrypted, or None. Raises ConfigError for files that don't serve."""
    if not config.tls_name:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    show(context, "tls_certificate", config.tls_certificate, "tls_key", config.tls_key)
    if config.tls_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        trust(context, "tls_ca", config.tls_ca)
    return context
