"""Commands given straight to a cluster in this process, at whatever time a test chooses. No sockets, no clock."""

from geotrain.wire import codes
from geotrain.wire.codes import TTL_NEVER, Field, OpCode
from geotrain.wire.messages import Message, decode_message, operation
from geotrain.wire.particles import Value
from sim.cluster.cluster import Cluster
from sim.cluster.config import ClusterConfig, NodeConfig
from sim.cluster.execution.commands import execute
from sim.cluster.execution.query import query
from sim.cluster.execution.requests import Outcome

START_MS = 1_800_000_000_000
DIGEST = bytes(range(20))
NAMESPACE = "test"
NODES = {"ewr": NodeConfig(rack=1), "jfk": NodeConfig(rack=2), "lga": NodeConfig(rack=3)}


class Commands:
    """One cluster of three nodes, a clock that only tests move, and short ways to say the usual commands."""

    def __init__(self, **config: object) -> None:
        self.cluster = Cluster(ClusterConfig(nodes=NODES, namespace=NAMESPACE, **config))  # type: ignore[arg-type]
        self.now_ms = START_MS

    def pass_s(self, seconds: float) -> None:
        """Let time go by."""
        self.now_ms += int(seconds * 1000)

    def drop_all(self) -> None:
        """Let truncations and the like come to their end."""
        for _ in self.cluster.drop_all():
            pass

    def do(self, message: Message, digest: bytes = DIGEST, node: int = 0) -> Outcome:
        """Have a node perform a command on a record of the set `s`."""
        message.fields = {Field.NAMESPACE: NAMESPACE.encode(), Field.SET: b"s"} | message.fields
        filter_ = message.fields.get(Field.FILTER)
        return execute(self.cluster, self.cluster.nodes[node], "client", message, digest, filter_, self.now_ms)

    def put(self, bins: dict[str, Value], *, ttl: int = 0, digest: bytes = DIGEST, **header: int) -> Outcome:
        """Write bins."""
        ops = [operation(OpCode.WRITE, name, value) for name, value in bins.items()]
        info2 = header.pop("info2", 0) | codes.INFO2_WRITE
        return self.do(Message(info2=info2, record_ttl=ttl, ops=ops, **header), digest)  # type: ignore[arg-type]

    def get(self, *, touch_percent: int = TTL_NEVER, digest: bytes = DIGEST, node: int = 0) -> Outcome:
        """Read all bins."""
        return self.do(Message(info1=codes.INFO1_READ | codes.INFO1_GET_ALL, record_ttl=touch_percent), digest, node)

    def remove(self, *, durable: bool = False, digest: bytes = DIGEST) -> Outcome:
        """Delete."""
        durably = codes.INFO2_DURABLE_DELETE if durable else 0
        return self.do(Message(info2=codes.INFO2_WRITE | codes.INFO2_DELETE | durably), digest)

    def scan(self, node: int = 0, info1: int = codes.INFO1_READ) -> list[Message]:
        """The records of the set, as a node streams them."""
        pids = b"".join(pid.to_bytes(2, "little") for pid in range(4096))
        fields = {Field.NAMESPACE: NAMESPACE.encode(), Field.SET: b"s", Field.PARTITION_IDS: pids}
        request = Message(info1=info1, info3=codes.INFO3_PARTITION_DONE, fields=fields)
        data = b"".join(chunk.frames for chunk in query(self.cluster, self.cluster.nodes[node], request, self.now_ms))
        found, at = [], 0
        while at < len(data):
            end = at + 8 + int.from_bytes(data[at + 2 : at + 8], "big")
            at += 8
            while at < end:
                message, at = decode_message(data, at)
                if message.fields:
                    found.append(message)
        return found
