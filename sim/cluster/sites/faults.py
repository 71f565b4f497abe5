"""Faults of nodes, as orders: kill, start, pause, skew a clock, misbehave; and what has become of the nodes."""

import time

from geotrain.errors import ConfigError
from geotrain.wire.info import encode_parameters
from sim.cluster.cluster import Cluster
from sim.cluster.listeners import Listeners
from sim.cluster.node import Node, State
from sim.cluster.sites.misbehaviour import Kind, Misbehaviour
from sim.control import Command, OrderError, check_names, number, one_of

MAX_COUNT = 1_000_000


class NodeFaults:
    """Orders to the nodes of one running cluster."""

    def __init__(self, cluster: Cluster, listeners: Listeners) -> None:
        self._cluster = cluster
        self._listeners = listeners
        self.commands: dict[str, Command] = {
            "kill": self.kill,
            "start": self.start,
            "pause": self.pause,
            "resume": self.resume,
            "skew": self.skew,
            "misbehave": self.misbehave,
            "behave": self.behave,
            "state": self.state,
        }

    async def kill(self, values: dict[str, str]) -> None:
        """kill:node=N[;memory=lost]: the node's process dies; a lost memory comes back empty."""
        memory = one_of(values, "memory", "kept", "lost")
        for node in self._nodes(values, "memory"):
            node.die(keeps_memory=memory == "kept")
            self._listeners.close(node)
        self._cluster.rebalance()

    async def start(self, values: dict[str, str]) -> None:
        """start:node=N: a killed node comes back, on its old addresses."""
        for node in self._nodes(values):
            if node.state is State.DOWN:
                node.state, node.started_s = State.UP, time.monotonic()
                self._cluster.rebalance()
                try:
                    await self._listeners.open(node)
                except (ConfigError, OSError) as error:
                    node.die(keeps_memory=True)
                    self._listeners.close(node)
                    self._cluster.rebalance()
                    raise OrderError(f"node {node.name} stays dead: {str(error).splitlines()[0]}") from None

    async def pause(self, values: dict[str, str]) -> None:
        """pause:node=N: the node's process stands still; its connections stay, and the others go on without it."""
        for node in self._nodes(values):
            if node.state is State.UP:
                node.state = State.PAUSED
        self._cluster.rebalance()

    async def resume(self, values: dict[str, str]) -> None:
        """resume:node=N: a paused node goes on; it joins the others before it answers what has waited."""
        nodes = [node for node in self._nodes(values) if node.state is State.PAUSED]
        for node in nodes:
            node.state = State.UP
        self._cluster.rebalance()
        for node in nodes:
            for connection in list(node.connections):
                connection.go_on()

    async def skew(self, values: dict[str, str]) -> None:
        """skew:node=N;ms=M: the node's clock is so far ahead (or, negative, behind)."""
        skew_ms = int(number(values, "ms", low=-1e9))
        for node in self._nodes(values, "ms"):
            node.skew_ms = skew_ms
        for node in self._cluster.nodes:
            self._cluster.check_clocks(node.view)

    async def misbehave(self, values: dict[str, str]) -> None:
        """misbehave:node=N;kind=K[;count=C][;delay_ms=D][;code=R]: what the node does wrong with its next C commands.

        Kinds: drop (carry out, don't answer), close (carry out, hang up in mid-answer), late (carry out, answer after
        delay_ms), code (don't carry out, answer result code R).
        """
        kind = Kind(one_of(values, "kind", *Kind))
        code = int(number(values, "code", low=float(kind is Kind.CODE), high=255))
        delay_ms = number(values, "delay_ms")
        count = int(number(values, "count", default=1, high=MAX_COUNT))
        for node in self._nodes(values, "kind", "code", "delay_ms", "count"):
            node.misbehaviours.extend([Misbehaviour(kind, code, delay_ms / 1000)] * count)

    async def behave(self, values: dict[str, str]) -> None:
        """behave:node=N: the node forgets what it was to do wrong."""
        for node in self._nodes(values):
            node.misbehaviours.clear()

    async def state(self, values: dict[str, str]) -> str:
        """state: what has become of each node, one a line: name, state, sub-cluster, regime, partitions not served."""
        lines = []
        for node in self._cluster.nodes:
            view = node.view
            facts: dict[str, object] = {"node": node.name, "id": node.node_id, "site": node.site, "state": node.state}
            if node.state is State.UP:
                facts["members"] = ",".join(member.name for member in view.members)
                facts["regime"] = view.regime
                facts["unavailable"] = len(view.unavailable)
                facts["dead"] = len(view.dead)
            facts["addresses"] = ",".join(f"{site}@{host}:{port}" for site, (host, port) in node.addresses.items())
            lines.append(encode_parameters(facts))
        return "|".join(lines)

    def _nodes(self, values: dict[str, str], *others: str) -> list[Node]:
        """The nodes that an order means. others: what it may say beside them."""
        check_names(values, "node", "site", *others)
        if {"node", "site"} <= values.keys():
            raise OrderError("give either node= or site=")
        nodes = self._cluster.nodes
        found = [node for node in nodes if values.get("node") == node.name or values.get("site") == node.site]
        if not found:
            names = ", ".join(node.name for node in nodes)
            raise OrderError(f"node= must be one of {names}, or site= the site of one")
        return found
