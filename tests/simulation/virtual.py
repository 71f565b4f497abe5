"""Concurrent histories on a simulated cluster in this process, in virtual time. Knows no verdict.

The cluster, its connections, its faults and the links are those of the program; only the sockets between the links and
the clock are not: time jumps to whatever is due next, so that a minute takes milliseconds, and a seed says it all.
"""

import asyncio
import selectors
from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any

from geotrain.wire import codes
from geotrain.wire.codes import Field, OpCode, ResultCode
from geotrain.wire.frames import MESSAGE, Frame, FrameReader, encode_frame
from geotrain.wire.messages import Message, decode_message, encode_message, operation
from sim.cluster.cluster import Cluster
from sim.cluster.config import ClusterConfig, NodeConfig
from sim.cluster.listeners import Listeners
from sim.cluster.node import Node, State
from sim.cluster.server import Connection
from sim.cluster.sites.faults import NodeFaults
from sim.control import Orders
from sim.schedule import draw
from sim.wan.faults import LinkFaults
from sim.wan.model import LinkConfig
from sim.wan.proxy import Channel
from tests.simulation.linearizability import ABSENT, Kind, Operation, Version

SITES = ("ewr", "jfk", "lga")
LINKS = {
    "near": LinkConfig(sites=["ewr", "jfk"], delay_ms=5, jitter_ms=2),
    "far": LinkConfig(sites=["ewr", "lga"], delay_ms=20, jitter_ms=5, bytes_per_s=1_000_000),
    "farther": LinkConfig(sites=["jfk", "lga"], delay_ms=40, jitter_ms=10),
}
DURATION_S = 30.0
NUM_RECORDS = 4
MAX_THOUGHT_S = 0.5  # of a client, between two operations
TIMEOUT_S = 1.0

READ_MODE = codes.INFO3_SC_READ_TYPE
"""Linearizable."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to what is due next. Nothing comes from outside."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_Nothing(self._pass))

    def time(self) -> float:
        return self._now_s

    def _pass(self, seconds: float) -> None:
        self._now_s += seconds


class _Nothing(selectors.SelectSelector):
    """A selector on which nothing ever happens, and no time is spent."""

    def __init__(self, pass_: Callable[[float], None]) -> None:
        super().__init__()
        self._pass = pass_

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits for something that never comes"
        self._pass(max(0.0, timeout))
        return []


class _Wire(asyncio.Transport):
    """A client's connection to a node: the node's transport, the links, and the client's end."""

    def __init__(self, cluster: Cluster, node: Node, site: str) -> None:
        super().__init__()
        self.is_usable = True
        """As far as the client knows."""
        self._is_lost = False
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader()
        self._answer: asyncio.Future[Frame] = self._loop.create_future()
        self._connection = Connection(cluster, node, site)
        self._there = Channel(cluster.network.link(site, node.site), self._connection.data_received, lambda: None)
        self._back = Channel(cluster.network.link(node.site, site), self._arrive, lambda: None)
        self._connection.connection_made(self)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def write(self, data: Any) -> None:
        if data:
            self._back.send(bytes(data))

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        """The node hangs up; what it has sent before still arrives."""
        if not self._is_lost:
            self._is_lost = True
            self._back.send(b"")
            self._there.drop()
            self._loop.call_soon(self._connection.connection_lost, None)

    async def ask(self, request: Message) -> Message:
        """The node's answer. Raises EOFError where it hangs up, TimeoutError."""
        self._answer = self._loop.create_future()
        if not self._is_lost:
            self._there.send(encode_frame(MESSAGE, encode_message(request)))
        try:
            frame = await asyncio.wait_for(self._answer, TIMEOUT_S)
        except TimeoutError:
            self.is_usable = False
            raise
        return decode_message(frame.body)[0]

    def _arrive(self, data: bytes) -> None:
        frames = self._frames.feed(data)
        self.is_usable = self.is_usable and bool(data)
        if self._answer.done():
            return
        if frames:
            self._answer.set_result(frames[0])
        elif not data:
            self._answer.set_exception(EOFError())


class _NoSockets(Listeners):
    """Kills connections as the program does, and listens nowhere."""

    def __init__(self) -> None:
        self._open = {}

    async def open(self, node: Node) -> None:
        pass


class Region:
    """A strongly consistent cluster of three sites, in a running VirtualLoop."""

    def __init__(self, seed: int, **config: Any) -> None:
        nodes = {site: NodeConfig(rack=rack) for rack, site in enumerate(SITES, start=1)}
        self.cluster = Cluster(ClusterConfig(nodes=nodes, links=LINKS, seed=seed, **config))
        links = LinkFaults(self.cluster.network, SITES, self.cluster.rebalance)
        nodes_ = NodeFaults(self.cluster, _NoSockets())
        self.orders = Orders({**nodes_.commands, **links.commands}, self.cluster.events)

    async def break_down(self, seed: int) -> None:
        """All faults of a seed, at their times. In the end all is whole."""
        for order in draw(seed, SITES, DURATION_S):
            await asyncio.sleep(order.at_s - asyncio.get_running_loop().time())
            assert await self.orders.order(order.text) == "ok"


class Client:
    """A client at a site, which does one thing at a time."""

    def __init__(self, region: Region, number: int) -> None:
        self.number = number
        self._cluster = region.cluster
        self._site = SITES[number % len(SITES)]
        self._wires: dict[str, _Wire] = {}

    async def perform(self, node: Node, digest: bytes, kind: Kind, value: int, generation: int) -> Operation | None:
        """One operation as its caller sees it, or None where it certainly never took effect."""
        clock = asyncio.get_running_loop().time
        seen: dict[str, Any] = {"client": self.number, "kind": kind, "called": clock(), "written": value}
        if kind == Kind.COMPARE_AND_SET:
            seen["expected_generation"] = generation
        try:
            reply = await self._ask(node, _request(self._cluster.namespace, digest, kind, value, generation))
        except ConnectionRefusedError:
            return None
        except (EOFError, TimeoutError):
            return Operation(**seen)
        if reply.result_code == ResultCode.GENERATION:
            seen["refused"] = True
        elif kind == Kind.READ and reply.result_code in (ResultCode.OK, ResultCode.NOT_FOUND):
            is_there = reply.result_code == ResultCode.OK
            seen["read"] = Version(reply.generation, int(str(reply.bins()["value"]))) if is_there else ABSENT
        elif reply.result_code != ResultCode.OK:
            return None
        return Operation(**seen, returned=clock())

    async def _ask(self, node: Node, request: Message) -> Message:
        wire = self._wires.get(node.name)
        if wire is None or not wire.is_usable:
            if node.state is State.DOWN:
                raise ConnectionRefusedError
            wire = self._wires[node.name] = _Wire(self._cluster, node, self._site)
        return await wire.ask(request)


def _request(namespace: bytes, digest: bytes, kind: Kind, value: int, generation: int) -> Message:
    fields = {Field.NAMESPACE: namespace, Field.SET: b"histories", Field.DIGEST: digest}
    if kind == Kind.READ:
        return Message(info1=codes.INFO1_READ | codes.INFO1_GET_ALL, info3=READ_MODE, fields=fields)
    ops = [operation(OpCode.WRITE, "value", value)]
    if kind == Kind.WRITE:
        return Message(info2=codes.INFO2_WRITE, fields=fields, ops=ops)
    info2 = codes.INFO2_WRITE | codes.INFO2_GENERATION_EQUAL
    return Message(info2=info2, generation=generation, fields=fields, ops=ops)


async def record(seed: int, num_clients: int = 6, **config: Any) -> list[list[Operation]]:
    """What clients at all sites saw of some records while the faults of a seed came and went, and what was left."""
    region = Region(seed, **config)
    nodes = region.cluster.nodes
    digests = [blake2b(f"{seed}/{number}".encode(), digest_size=20).digest() for number in range(NUM_RECORDS)]
    histories: list[list[Operation]] = [[] for _ in digests]
    clients = [Client(region, number) for number in range(num_clients)]

    async def work(client: Client) -> None:
        random = Random(f"{seed}/{client.number}")
        seen = [0] * len(digests)  # the generation that this client read last
        loop, value = asyncio.get_running_loop(), client.number
        while loop.time() < DURATION_S:
            at, kind = random.randrange(len(digests)), random.choice(list(Kind))
            operation = await client.perform(random.choice(nodes), digests[at], kind, value, seen[at])
            if operation is not None:
                histories[at].append(operation)
                if kind == Kind.READ and not operation.is_in_doubt:
                    seen[at] = operation.read.generation
            value += num_clients
            await asyncio.sleep(random.uniform(0.0, MAX_THOUGHT_S))

    await asyncio.gather(region.break_down(seed), *map(work, clients))
    await asyncio.sleep(2 * TIMEOUT_S)
    for history, digest in zip(histories, digests, strict=True):
        for client, node in zip(clients, nodes, strict=False):
            operation = await client.perform(node, digest, Kind.READ, 0, 0)
            assert operation is not None, "a record can't be read though all is whole again"
            history.append(operation)
    return histories


def run(seed: int, **config: Any) -> list[list[Operation]]:
    """`record`, from beginning to end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(record(seed, **config))
