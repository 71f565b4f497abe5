"""What a cut costs: fingerprints while scanning, and finding and dropping the rows that sites did not read alike."""

import socket
import statistics
import time
from operator import sub

import numpy as np
import pyarrow as pa

from benchmarks.cluster import COLUMNS, SET
from benchmarks.report import Figure, print_report
from benchmarks.scan import pieces
from benchmarks.setting import new_parser, open_view
from benchmarks.write import KEY, table
from geotrain.view.columns import arrow_type, particle_of
from geotrain.view.config import ViewConfig
from geotrain.view.cut import Cut, differing, reconcile
from geotrain.view.layout import DIGEST, GENERATION
from geotrain.view.scan import Scan
from geotrain.view.scanned import ScannedSet
from geotrain.wire.columnar import Decoder, Progress
from geotrain.wire.partitions import NUM_PARTITIONS
from geotrain.wire.queries import encode_query

SITES = ("ewr", "jfk", "lga")
NUM_SCANS = 5
NUM_DECODINGS = 30
NUM_MOVED = 100  # rows that were rewritten between the scans of two sites


def main() -> None:
    """Load the view, scan it, fold and compare fingerprints, reconcile, and report."""
    arguments = new_parser(__doc__, num_rows=1_000_000).parse_args()
    with open_view(arguments) as view:
        view.write(table(arguments.rows), SET, KEY)
        results = scans(view.config, arguments.rows) | fingerprinting(view.config) | reconciliation(view.config)
    without = results["scan without fingerprints, CPU s per M rows"]
    cost = results["fingerprints, CPU s per M rows"] / without
    print_report(
        "cut", results, {"client CPU, with / without fingerprints": Figure(value=1 + cost, limit=1.05, better="lower")}
    )


def scans(config: ViewConfig, num_rows: int) -> dict[str, float]:
    """CPU time of this process, the median of some scans."""
    cpu_s = []
    for _ in range(1 + NUM_SCANS):
        scan = Scan(config, SET, COLUMNS, fingerprint=False)
        start_s = time.process_time()
        for _ in scan.reader():
            pass
        cpu_s.append(time.process_time() - start_s)
        if scan.num_rows != num_rows:
            raise RuntimeError(f"{scan.num_rows} rows were scanned, {num_rows} were written")
    return {
        "scan without fingerprints, CPU s per M rows": statistics.median(cpu_s[1:]) / num_rows * 1e6
    }  # the first one compiles


def fingerprinting(config: ViewConfig) -> dict[str, float]:
    """What one node answers, decoded again and again with fingerprints and without.

    Two scans differ by more than fingerprints cost, for reasons of the network and of the neighbours.
    """
    query = encode_query(
        config.namespace,
        SET,
        partitions=range(NUM_PARTITIONS),
        bins=list(COLUMNS),
        task_id=1,
        socket_timeout_ms=10_000,
    )
    with socket.create_connection(config.seeds()[0][:2], timeout=10) as connection:
        connection.sendall(query)
        stream = memoryview(b"".join(map(bytes, pieces(connection))))
    with_s, without_s, num_rows = [], [], 0
    for _ in range(NUM_DECODINGS):
        seconds, num_rows = decode(stream, Progress())
        with_s.append(seconds)
        without_s.append(decode(stream, Progress(fingerprints=np.empty(0, np.uint64)))[0])
    return {
        "fingerprints, CPU s per M rows": statistics.median(map(sub, with_s, without_s)) / num_rows * 1e6,
        "decoding without fingerprints, CPU s per M rows": statistics.median(without_s) / num_rows * 1e6,
    }


def decode(stream: memoryview, progress: Progress) -> tuple[float, int]:
    """CPU time and number of rows."""
    decoder = Decoder({name: particle_of(arrow_type(word)) for name, word in COLUMNS.items()}, progress)
    decoder.begin(range(NUM_PARTITIONS))
    start_s = time.process_time()
    while not decoder.ended:
        space = decoder.space()
        piece, stream = stream[: len(space)], stream[len(space) :]
        space[: len(piece)] = piece
        decoder.received(len(piece))
    seconds, num_rows = time.process_time() - start_s, int(progress.num_rows.sum())
    if decoder.result_code or not num_rows:
        raise RuntimeError(f"a node answered {num_rows} rows and result code {decoder.result_code}")
    return seconds, num_rows


def reconciliation(config: ViewConfig) -> dict[str, float]:
    """Sites read the set; at one of them some rows had been rewritten when it came to them. All keep the same rows."""
    cut = Cut.before(time.time(), 0)
    first = ScannedSet.read(Scan(config, SET, COLUMNS, cut=cut, metadata=(DIGEST, GENERATION)))
    generations = first.generations.copy()
    generations[np.random.default_rng(7).choice(len(generations), NUM_MOVED, replace=False)] += 1
    place = first.table.column_names.index(GENERATION)
    moved = ScannedSet(first.table.set_column(place, GENERATION, pa.array(generations)))
    sites = dict(zip(SITES, (moved, first, first), strict=True))

    start_s = time.perf_counter()
    listed = differing({site: {SET: read.fingerprints()} for site, read in sites.items()})[SET]
    compared_s = time.perf_counter()
    exchanged = {site: {SET: read.rows_in(listed)} for site, read in sites.items()}
    dropped = reconcile(exchanged)[SET]
    kept = [read.without(dropped) for read in sites.values()]
    end_s = time.perf_counter()
    if len(dropped) != NUM_MOVED or not np.array_equal(kept[0].digests, kept[1].digests):
        raise RuntimeError(f"{len(dropped)} rows were dropped, {NUM_MOVED} had moved")
    return {
        "fingerprints of three sites made again and compared, s": compared_s - start_s,
        "rows that differ found and dropped at three sites, s": end_s - compared_s,
        "partitions that differ": len(listed),
        "rows dropped": len(dropped),
        "rows exchanged, % of the set": 100 * len(exchanged[SITES[0]][SET].generations) / len(generations),
    }


if __name__ == "__main__":
    main()
