"""How fast a set becomes Arrow columns: beside the official client, and beside taking the same bytes and no more."""

import argparse
import contextlib
import gc
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aerospike
import pyarrow as pa

from benchmarks.cluster import COLUMNS, SET
from benchmarks.report import Figure, medians, print_report
from benchmarks.setting import new_parser, open_view
from benchmarks.write import KEY, table
from geotrain.view.assignment import Assignment, Request
from geotrain.view.config import ViewConfig
from geotrain.view.nodes import Nodes
from geotrain.view.scan import Scan
from geotrain.wire.codes import INFO3_LAST
from geotrain.wire.columnar import INPUT_BYTES, Progress
from geotrain.wire.frames import HEADER_BYTES, INFO, FrameReader, encode_frame
from geotrain.wire.info import decode_reply, encode_reply
from geotrain.wire.messages import HEADER_BYTES as MESSAGE_BYTES
from geotrain.wire.partitions import NUM_PARTITIONS
from geotrain.wire.queries import encode_query

NUM_RUNS = 8
NUM_CONNECTIONS = 2
NUM_SLICES = 16  # in which the official client reads the set: a record is a dozen Python objects
TIMES_LARGER = 5
LAST_BYTES = HEADER_BYTES + MESSAGE_BYTES  # the frame that ends a stream


def main() -> None:
    """Load a set, read it in every way, and report."""
    parser = new_parser(__doc__, num_rows=1_000_000)
    parser.add_argument("--peak-memory", action="store_true", help=argparse.SUPPRESS)  # what this one asks of another
    arguments = parser.parse_args()
    if arguments.peak_memory:
        print(json.dumps(peak_memory(arguments.cluster, arguments.namespace)))
        return
    with open_view(arguments) as view:
        view.write(table(arguments.rows), SET, KEY)
        results = run(view.config, view.client, arguments.rows) | memory(view.config)
    shows = {
        "client CPU, official / ours": Figure(
            value=results["official client, CPU s per M rows"] / results["scan, CPU s per M rows"], limit=25
        ),
        "wall time, ours / draining the same bytes": Figure(
            value=results["scan / drain of the same run"], limit=1.15, better="lower"
        ),
        f"peak memory, {TIMES_LARGER} times the rows / once": Figure(
            value=results[f"peak memory, {TIMES_LARGER} x the rows, MB"] / results["peak memory, 1 x the rows, MB"],
            limit=1.1,
            better="lower",
        ),
    }
    print_report("scan", results, shows)


def run(config: ViewConfig, client: aerospike.Client, num_rows: int) -> dict[str, float]:
    """Medians over some runs, one way after the other in each, so that a busy machine is unfair to none."""
    ways: dict[str, Callable[[], int]] = {
        "drain": lambda: drain(config),
        "scan": lambda: sum(batch.num_rows for batch in Scan(config, SET, COLUMNS).reader()),
        "official client": lambda: official(client, config.namespace),
    }
    ways["scan"]()  # compiles
    runs: list[dict[str, float]] = []
    for attempt in range(NUM_RUNS):
        figures: dict[str, float] = {}
        for name, way in ways.items():
            if name == "official client" and attempt:
                continue  # takes so long that the neighbours don't matter
            gc.collect()
            cpu_s, start_s = time.process_time(), time.perf_counter()
            found = way()
            figures[f"{name}, s"] = time.perf_counter() - start_s
            figures[f"{name}, CPU s per M rows"] = (time.process_time() - cpu_s) / num_rows * 1e6
            if name != "drain" and found != num_rows:
                raise RuntimeError(f"{name}: {found} rows were read, {num_rows} were written")
        figures["scan / drain of the same run"] = figures["scan, s"] / figures["drain, s"]
        runs.append(figures)
    results = medians(runs)
    return results | {"MB in all": drain(config) / 1e6, "scan, rows/s": num_rows / results["scan, s"]}


def official(client: aerospike.Client, namespace: str) -> int:
    """What one would write without this library: the client's records, and columns of them."""
    num_rows = 0
    size = NUM_PARTITIONS // NUM_SLICES
    for begin in range(0, NUM_PARTITIONS, size):
        query = client.query(namespace, SET)
        query.select(*COLUMNS)
        records = query.results({"partition_filter": {"begin": begin, "count": size}})
        bins = [record[2] for record in records]
        num_rows += pa.table({name: [row.get(name) for row in bins] for name in COLUMNS}).num_rows
    return num_rows


def drain(config: ViewConfig) -> int:
    """Ask as a scan does, and let go what comes. Returns the number of bytes."""
    nodes = Nodes(config)
    progress = Progress()
    known = nodes.partition_map()
    requests = Assignment(progress, None, rack=config.rack, connections_per_node=NUM_CONNECTIONS).plan(known)
    with ThreadPoolExecutor(len(requests)) as pool:
        return sum(pool.map(lambda request: drain_one(nodes, config, request), requests))


def drain_one(nodes: Nodes, config: ViewConfig, request: Request) -> int:
    query = encode_query(
        config.namespace,
        SET,
        partitions=request.fresh.tolist(),
        bins=list(COLUMNS),
        task_id=1 + int(request.fresh[0]),
        socket_timeout_ms=10_000,
    )
    with nodes.open(request.node) as connection:
        connection.sendall(query)
        return sum(len(piece) for piece in pieces(connection))


def pieces(connection: socket.socket) -> Iterator[memoryview]:
    """What comes, until the frame that ends a stream; without looking at anything before it."""
    buffer = memoryview(bytearray(INPUT_BYTES))
    tail = b""
    while True:
        num_bytes = connection.recv_into(buffer)
        if not num_bytes:
            raise ConnectionError("the cluster hung up in the middle of a stream")
        yield buffer[:num_bytes]
        tail = (tail + bytes(buffer[max(0, num_bytes - LAST_BYTES) : num_bytes]))[-LAST_BYTES:]
        if is_last(tail):
            return


def is_last(frame: bytes) -> bool:
    """Whether this is the frame that ends a stream."""
    size = int.from_bytes(frame[2:HEADER_BYTES])
    return size == MESSAGE_BYTES and bool(frame[HEADER_BYTES + 3] & INFO3_LAST) and frame[HEADER_BYTES] == MESSAGE_BYTES


def memory(config: ViewConfig) -> dict[str, float]:
    """The largest resident memory of a process that scans, in MB: the set, and one that is some times as large."""
    results: dict[str, float] = {}
    for times in (1, TIMES_LARGER):
        with Repeater(config, times) as repeater:
            command = [sys.executable, "-m", "benchmarks.scan", "--peak-memory", "--cluster", repeater.address]
            done = subprocess.run([*command, "--namespace", config.namespace], capture_output=True, check=True)
        megabytes, num_rows = json.loads(done.stdout)
        results |= {f"peak memory, {times} x the rows, MB": megabytes, f"rows scanned for it, {times} x": num_rows}
    return results


def peak_memory(address: str, namespace: str) -> tuple[float, int]:
    """Scan what one node holds. Returns the largest resident memory of this process in MB, and the number of rows."""
    config = ViewConfig(hosts=[address], namespace=namespace)
    claims = Nodes(config).partition_map().holders
    held = [pid for pid in range(NUM_PARTITIONS) if (claims[:, pid] >= 0).any()]
    num_rows = sum(batch.num_rows for batch in Scan(config, SET, COLUMNS, partitions=held).reader())
    # Not getrusage: its peak counts what this process was before it became another program.
    (peak_kb,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak_kb) / 1e3, num_rows


class Repeater:
    """Stands before a node, and sends each stream of rows several times: a set as large as is wanted, for one that is
    there once. address: where it listens, as host:port."""

    def __init__(self, config: ViewConfig, times: int) -> None:
        self._upstream = config.seeds()[0][:2]
        self._times = times
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Repeater":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # until the listener is closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            request = next(frames(connection))
            if request[1] == INFO:
                with socket.create_connection(self._upstream) as upstream:
                    upstream.sendall(request)
                    answers = dict(decode_reply(next(frames(upstream))[HEADER_BYTES:]))
                answers |= {name: "1,3000,[]" for name in answers if name.startswith("peers-")}
                connection.sendall(encode_frame(INFO, encode_reply(answers.items())))
            else:
                self._repeat(request, connection)

    def _repeat(self, query: bytes, connection: socket.socket) -> None:
        for _ in range(self._times):
            held = b""  # what may be the end of the stream
            with socket.create_connection(self._upstream) as upstream:
                upstream.sendall(query)
                for piece in pieces(upstream):
                    data = held + piece
                    connection.sendall(data[:-LAST_BYTES])
                    held = data[-LAST_BYTES:]
        connection.sendall(held)


def frames(connection: socket.socket) -> Iterator[bytes]:
    """Whole frames, as they come."""
    reader = FrameReader()
    while data := connection.recv(INPUT_BYTES):
        for kind, body in reader.feed(data):
            yield encode_frame(kind, body)


if __name__ == "__main__":
    main()
