"""How fast the simulated cluster is: would it be the bottleneck of what is measured against it?

The driver sends finished bytes and hardly looks at the answers, so that it is the server that is timed.
"""

import argparse
import contextlib
import re
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import aerospike
import psutil
from aerospike_helpers.batch.records import BatchRecords, Write
from aerospike_helpers.operations import operations

from benchmarks.report import Figure, print_report
from geotrain.wire import codes
from geotrain.wire.codes import Field, OpCode
from geotrain.wire.frames import MESSAGE, FrameReader, encode_frame
from geotrain.wire.messages import HEADER_BYTES, Message, encode_message, operation
from geotrain.wire.partitions import NUM_PARTITIONS

SET = "benchmark"
COLUMNS = {
    "id": "int64",
    "count": "int64",
    "price": "float64",
    "ratio": "float64",
    "name": "string",
    "kind": "string",
}
BATCH_ROWS = 3000
NUM_LOADERS = 2
NUM_CONNECTIONS = 16
NUM_SCANNERS = 2
TRUNCATE_TIMEOUT_MS = 60_000


def main() -> None:
    """Measure loading, single-record commands and scans, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cluster", metavar="HOST:PORT", help="a running cluster; otherwise a simulated one is started"
    )
    parser.add_argument("--namespace", default="geotrain")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--commands", type=int, default=50_000)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        address, process = arguments.cluster, None
        if address is None:
            address, process = stack.enter_context(simulated_cluster())
        bench = Bench(address, arguments.namespace, process)
        results = bench.run(arguments.records, arguments.commands)
    per_million = 1_000_000 / arguments.records
    shows = {
        "records/s scanned from one node": Figure(value=results["scan, records/s"], limit=1_000_000),
        "gets/s": Figure(value=results["get, commands/s"], limit=10_000),
        "puts/s": Figure(value=results["put, commands/s"], limit=10_000),
        "s to load 1 M records by batch writes": Figure(
            value=results["load, s"] * per_million, limit=60, better="lower"
        ),
    }
    print_report("cluster", results, shows)


@contextlib.contextmanager
def simulated_cluster(reserved_mb: int = 0) -> Iterator[tuple[str, psutil.Process]]:
    """A simulated cluster of three sites in a process of its own: the address of one node, and the process.

    reserved_mb: memory that it has taken, as a server, before anything is measured.
    """
    with tempfile.TemporaryDirectory() as run_dir:
        ports = [f"nodes.{site}.port=0" for site in ("ewr", "jfk", "lga")]
        command = [
            sys.executable,
            "-m",
            "sim.cluster",
            *ports,
            f"hydra.run.dir={run_dir}",
            f"reserved_mb={reserved_mb}",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                ready = next(line for line in process.stdout if "ready" in line)
                yield re.findall(r"=(\S+:\d+)", ready)[0], psutil.Process(process.pid)
            finally:
                process.terminate()


class Bench:
    """The measurements, against one cluster."""

    def __init__(self, address: str, namespace: str, process: psutil.Process | None) -> None:
        host, _, port = address.rpartition(":")
        self.address = host, int(port)
        self.namespace = namespace
        self.process = process
        self.results: dict[str, float] = {}

    def run(self, num_records: int, num_commands: int) -> dict[str, float]:
        """Measure everything. Returns the figures, with their units in their names."""
        client = aerospike.client({"hosts": [self.address]}).connect()
        with self.timed("load", num_records, "records"):
            load(client, self.namespace, num_records)
        keys = [n * (num_records // 1000) for n in range(1000)]
        digests = [bytes(aerospike.calc_digest(self.namespace, SET, key)) for key in keys]
        for name, request in (("get", get), ("put", put)):
            requests = [request(self.namespace, digest) for digest in digests]
            with self.timed(name, num_commands, "commands"):
                drive(self.address, requests, num_commands)
        # A node puts a partition's records in order when it is first scanned after a write.
        for name in ("scan after writes", "scan"):
            with self.timed(name, num_records, "records"):
                num_bytes = scan(self.address, self.namespace)
        self.results["scan, MB/s"] = num_bytes / self.results["scan, s"] / 1e6
        client.truncate(self.namespace, SET, 0, policy={"timeout": TRUNCATE_TIMEOUT_MS})
        client.close()
        return self.results

    @contextlib.contextmanager
    def timed(self, name: str, count: int, what: str) -> Iterator[None]:
        """Time what is done inside, on the clock and in the server's CPU time."""
        cpu_s, start_s = self._cpu_s(), time.perf_counter()
        yield
        elapsed_s = time.perf_counter() - start_s
        self.results |= {f"{name}, s": elapsed_s, f"{name}, {what}/s": count / elapsed_s}
        if self.process is not None:
            self.results[f"{name}, server CPU us each"] = (self._cpu_s() - cpu_s) / count * 1e6

    def _cpu_s(self) -> float:
        return sum(self.process.cpu_times()[:2]) if self.process is not None else 0.0


def load(client: aerospike.Client, namespace: str, num_records: int) -> None:
    """Write the records by batch writes of the official client: six bins each, 186 bytes on the wire."""

    def write(start: int) -> None:
        rows = []
        for n in range(start, min(start + BATCH_ROWS, num_records)):
            bins = {"id": n, "count": n % 97, "price": n * 0.25, "ratio": 0.5, "name": f"name-{n % 1000}", "kind": "a"}
            rows.append(Write((namespace, SET, n), [operations.write(name, value) for name, value in bins.items()]))
        written = client.batch_write(BatchRecords(rows))
        failed = next((row for row in written.batch_records if row.result != 0), None)
        if failed is not None:
            raise RuntimeError(f"the cluster refused a write with result code {failed.result}")

    with ThreadPoolExecutor(NUM_LOADERS) as pool:
        list(pool.map(write, range(0, num_records, BATCH_ROWS)))


def get(namespace: str, digest: bytes) -> bytes:
    """A request for a whole record."""
    fields = {Field.NAMESPACE: namespace.encode(), Field.SET: SET.encode(), Field.DIGEST: digest}
    message = Message(info1=codes.INFO1_READ | codes.INFO1_GET_ALL, fields=fields)
    return encode_frame(MESSAGE, encode_message(message))


def put(namespace: str, digest: bytes) -> bytes:
    """A request to set one bin of a record."""
    fields = {Field.NAMESPACE: namespace.encode(), Field.SET: SET.encode(), Field.DIGEST: digest}
    message = Message(info2=codes.INFO2_WRITE, fields=fields, ops=[operation(OpCode.WRITE, "count", 1)])
    return encode_frame(MESSAGE, encode_message(message))


def drive(address: tuple[str, int], requests: Sequence[bytes], count: int) -> None:
    """Send `count` requests over some connections, on each the next one when the last is answered."""
    pending = cycle(requests)
    num_sent = num_answered = 0
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(NUM_CONNECTIONS):
            connection = stack.enter_context(connect(address))
            selector.register(connection, selectors.EVENT_READ, FrameReader())
            connection.sendall(next(pending))
            num_sent += 1
        while num_answered < count:
            for key, _ in selector.select(timeout=10):
                assert isinstance(key.fileobj, socket.socket)
                for reply in key.data.feed(key.fileobj.recv(65536)):
                    if reply.body[5] != codes.ResultCode.OK:
                        raise RuntimeError(f"the cluster answered with result code {reply.body[5]}")
                    num_answered += 1
                    if num_sent < count:
                        key.fileobj.sendall(next(pending))
                        num_sent += 1


def scan(address: tuple[str, int], namespace: str) -> int:
    """Take all records of one node's copies from the socket and let them go. Returns the number of bytes."""
    share = NUM_PARTITIONS // NUM_SCANNERS
    with ThreadPoolExecutor(NUM_SCANNERS) as pool:
        starts = range(0, NUM_PARTITIONS, share)
        return sum(pool.map(lambda start: drain(address, namespace, range(start, start + share)), starts))


def drain(address: tuple[str, int], namespace: str, partitions: range) -> int:
    """Ask for some partitions and read until the end of the stream."""
    pids = struct.pack(f"<{len(partitions)}H", *partitions)
    fields = {Field.NAMESPACE: namespace.encode(), Field.SET: SET.encode(), Field.PARTITION_IDS: pids}
    request = Message(info1=codes.INFO1_READ, info3=codes.INFO3_PARTITION_DONE, fields=fields)
    reader, num_bytes = FrameReader(), 0
    with connect(address) as connection:
        connection.sendall(encode_frame(MESSAGE, encode_message(request)))
        while True:
            data = connection.recv(1 << 20)
            num_bytes += len(data)
            for frame in reader.feed(data):
                end = frame.body[-HEADER_BYTES:]
                if len(frame.body) == HEADER_BYTES and end[3] & codes.INFO3_LAST:
                    if end[5] != codes.ResultCode.OK:
                        raise RuntimeError(f"the scan ended with result code {end[5]}")
                    return num_bytes


def connect(address: tuple[str, int]) -> socket.socket:
    """A connection without delays."""
    connection = socket.create_connection(address, timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


if __name__ == "__main__":
    main()
