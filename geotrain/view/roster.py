"""Program: waits until the view can be relied on, having put the nodes of its cluster on the roster once they are all
there. Does nothing where that has been done. `python -m geotrain.view.roster --help`.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

from geotrain.errors import GeotrainError, ViewError
from geotrain.program import exit_with
from geotrain.view.config import ViewConfig
from geotrain.view.connect import connect, open_client
from geotrain.view.keyed import AerospikeError
from geotrain.view.refusals import refusal
from geotrain.view.retry import pauses
from geotrain.wire.info import decode_entries

logger = logging.getLogger("geotrain.view.roster")

INFO = {"timeout": 5_000}


def settle(config: ViewConfig, racks: Sequence[int], *, num_nodes: int, deadline_s: float) -> None:
    """Have all nodes on the roster, and the view verified for sites on these racks. An eventual one has no roster.

    Raises ViewError with what is still wrong after deadline_s.
    """
    said = ""
    for pause_s in pauses(deadline_s):
        try:
            step = _next_step(config, num_nodes) if config.require_strong_consistency else ""
            if not step:
                connect(config, expected_racks=racks).close()
                return
        except ViewError as error:
            last, step = error, error.what
        else:
            last = ViewError(f"the roster is not settled: {step}", "start the nodes that are missing")
        if step != said:
            logger.info("%s", step)
            said = step
        time.sleep(pause_s)
    raise last


def _next_step(config: ViewConfig, num_nodes: int) -> str:
    """Do what can be done next. Returns what it was, or what is waited for; nothing once the roster is as it should be.

    The roster is told to one node, which tells the others; only when all have it may the cluster take it up.
    """
    client = open_client(config)
    try:
        facts = [decode_entries(reply)[0] for reply in _ask(client, f"roster:namespace={config.namespace}")]
        observed = {one["observed_nodes"] for one in facts}
        [nodes, *others] = observed
        count = 0 if nodes == "null" else len(nodes.split(","))
        if others or not len(facts) == count == num_nodes:
            return (
                f"waiting for {num_nodes} nodes that see each other: {len(facts)} answer, and see {', '.join(observed)}"
            )
        if any(one["pending_roster"] != nodes for one in facts):
            client.info_random_node(f"roster-set:namespace={config.namespace};nodes={nodes}", INFO)
            return f"the roster is to be {nodes}"
        if any(one["roster"] != nodes for one in facts):
            _ask(client, "recluster:")  # of all: none but the principal does it
            return f"the cluster takes the roster up: {nodes}"
        return ""
    except AerospikeError as error:
        raise refusal("asking for the roster", error.code, error.msg) from error
    finally:
        client.close()


def _ask(client: Any, question: str) -> list[str]:
    """The answers of all nodes."""
    return [reply.strip() for _, reply in client.info_all(question, INFO).values()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m geotrain.view.roster", description=__doc__)
    parser.add_argument("--hosts", required=True, nargs="+", metavar="HOST:PORT", help="nodes of the cluster")
    parser.add_argument("--namespace", default="geotrain")
    parser.add_argument("--nodes", required=True, type=int, help="how many there are")
    parser.add_argument("--racks", required=True, nargs="+", type=int, help="of all sites")
    parser.add_argument("--strong", default="true", choices=["true", "false"], help="false takes an eventual view")
    parser.add_argument("--deadline-s", type=float, default=120.0, help="how long to wait for them, in seconds")
    given = parser.parse_args()
    if not given.deadline_s > 0:
        parser.error(f"--deadline-s must be over 0, got {given.deadline_s}")
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    try:
        is_strong = given.strong == "true"
        config = ViewConfig(hosts=given.hosts, namespace=given.namespace, require_strong_consistency=is_strong)
        settle(config, given.racks, num_nodes=given.nodes, deadline_s=given.deadline_s)
    except GeotrainError as error:
        exit_with(error)
    except ValueError as error:
        parser.error(str(error))
    print(f"the view can be relied on: {given.nodes} nodes on racks {', '.join(map(str, given.racks))}", flush=True)


if __name__ == "__main__":
    main()
