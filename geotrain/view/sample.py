"""What the records of a set hold, from a look at some of them. Knows no cut and no columns asked for."""

import logging
import random
import time
from collections.abc import Collection, Iterator

from geotrain.errors import DataError, ViewError
from geotrain.view.assignment import Answer, Assignment, Request
from geotrain.view.columns import infer
from geotrain.view.config import ViewConfig
from geotrain.view.links import READ_BYTES
from geotrain.view.nodes import Nodes, UnknownSet
from geotrain.view.refusals import refusal
from geotrain.view.retry import RETRYABLE
from geotrain.wire.codes import INFO3_PARTITION_DONE, ProtocolError
from geotrain.wire.columnar import Progress
from geotrain.wire.filters import encode_presence
from geotrain.wire.frames import FrameReader
from geotrain.wire.messages import Message, decode_messages
from geotrain.wire.queries import encode_query

log = logging.getLogger(__name__)

SAMPLE_ROWS = 1000


def infer_columns(nodes: Nodes, config: ViewConfig, set_name: str) -> dict[str, str]:
    """Returns bin name -> type word, as the first records that the nodes send say. Warns of it, to be written down.

    Raises DataError where the set is empty or a bin has several types, ViewError where no record can be read.
    """
    try:
        found = infer(message.bins() for message in _sample(nodes, config, set_name))
    except ProtocolError as error:
        raise DataError(f"set {set_name}: a record can't be read: {error}", "declare the columns without it") from None
    except ValueError as error:
        raise DataError(f"set {set_name}: column {error}", "declare the columns and their types") from None
    if not found:
        objects = nodes.objects()
        if set_name not in objects:
            raise UnknownSet(set_name, config.namespace, objects)
        raise DataError(f"set {set_name} is empty: nothing says what columns it has", "declare them, or write rows")
    declared = "\n".join(f"  {name}: {word}" for name, word in found.items())
    # A warning, as programs that say nothing about logging see those: a sample need not know what other records hold.
    log.warning("set %s: columns as a sample of its records has them, to be declared as:\n%s", set_name, declared)
    return found


def sample_particles(nodes: Nodes, config: ViewConfig, set_name: str, names: Collection[str]) -> dict[str, int]:
    """Returns the types on the wire of those of the bins that have one type, as the first records say."""
    found: dict[str, set[int]] = {name: set() for name in names}
    for message in _sample(nodes, config, set_name):
        for op in message.ops:
            found.get(op.name.decode(errors="replace"), set()).add(op.particle)
    return {name: particles.pop() for name, particles in found.items() if len(particles) == 1}


def has_bin(nodes: Nodes, config: ViewConfig, set_name: str, name: str) -> bool:
    """Returns whether any record has a bin: the servers look at all of them where none has. Raises ViewError."""
    return any(True for _ in _sample(nodes, config, set_name, expression=encode_presence(name), max_rows=1))


def _sample(
    nodes: Nodes, config: ViewConfig, set_name: str, *, expression: bytes = b"", max_rows: int = SAMPLE_ROWS
) -> Iterator[Message]:
    assignment = Assignment(Progress(), None, rack=config.rack, connections_per_node=1)
    known = nodes.partition_map()
    num_rows = 0
    while requests := assignment.plan(known):
        for request in requests:
            failure = None
            try:
                for message in _records(nodes, config, set_name, request, expression, max_rows):
                    num_rows += 1
                    yield message
            except OSError as error:
                failure = str(error)
            if num_rows >= max_rows:
                return
            assignment.take(request, Answer({}, failure))
    if not num_rows and assignment.failures:
        failures = "; ".join(f"node {node}: {why}" for node, why in assignment.failures.items())
        raise ViewError(f"set {set_name}: no record can be read ({failures})", "look at the nodes of the cluster")


def _records(
    nodes: Nodes, config: ViewConfig, set_name: str, request: Request, expression: bytes, max_rows: int
) -> Iterator[Message]:
    """Yields records that one node sends. Raises OSError, and ViewError where it refuses."""
    query = encode_query(
        config.namespace,
        set_name,
        partitions=request.fresh.tolist(),
        task_id=random.getrandbits(63),
        socket_timeout_ms=round(config.deadline_s * 1000),
        max_records=max_rows,
        expression=expression,
    )
    reader = FrameReader()
    with nodes.open(request.node) as connection:
        connection.sendall(query)
        moved_s = time.monotonic()
        while data := connection.recv(READ_BYTES):
            frames = reader.feed(data)
            if frames:
                moved_s = time.monotonic()
            elif time.monotonic() > moved_s + config.deadline_s:
                raise TimeoutError(f"it sent no whole frame within {config.deadline_s:g} s")
            for frame in frames:
                for message in decode_messages(frame.body):
                    if message.is_last and message.result_code in RETRYABLE:
                        raise ConnectionError(f"it answered with code {message.result_code}")
                    if message.is_last and message.result_code:
                        raise refusal(f"reading a sample of set {set_name}", message.result_code)
                    if message.is_last:
                        return
                    if not message.info3 & INFO3_PARTITION_DONE:
                        yield message
    raise ConnectionError("it hung up in the middle of its answer")
