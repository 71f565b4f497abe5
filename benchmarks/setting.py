"""The view that a benchmark reads and writes: of a running cluster, or of a simulated one that is started for it."""

import argparse
import contextlib
from collections.abc import Iterator

from benchmarks.cluster import SET, TRUNCATE_TIMEOUT_MS, simulated_cluster
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect


def new_parser(description: str | None, *, num_rows: int) -> argparse.ArgumentParser:
    """The arguments that benchmarks of the view share. num_rows: by default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cluster", metavar="HOST:PORT", help="a running cluster; else a simulated one is started")
    parser.add_argument("--namespace", default="geotrain")
    parser.add_argument("--rack", type=int, default=1, help="whose nodes are read, as an agent of a site reads its own")
    parser.add_argument("--rows", type=int, default=num_rows)
    return parser


@contextlib.contextmanager
def open_view(arguments: argparse.Namespace) -> Iterator[View]:
    """The view that the arguments name; what was written to the benchmarks' set is removed at the end."""
    with contextlib.ExitStack() as stack:
        address = arguments.cluster or stack.enter_context(simulated_cluster())[0]
        config = ViewConfig(
            hosts=[address], namespace=arguments.namespace, rack=arguments.rack, require_strong_consistency=False
        )
        view = stack.enter_context(connect(config))
        stack.callback(view.client.truncate, arguments.namespace, SET, 0, {"timeout": TRUNCATE_TIMEOUT_MS})
        yield view
