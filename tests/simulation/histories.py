"""Concurrent histories of single records, made through the official client from a seed. Knows no verdict."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import aerospike
from aerospike import exception

from tests.simulation.linearizability import ABSENT, Kind, Operation, Version

Key = tuple[str, str, int]

PAUSE_S = 0.03  # after an operation that failed: time for the client to look for the cluster's new shape
SETTLE_DEADLINE_S = 20.0
_ONCE = {"max_retries": 0, "total_timeout": 100}
_READ = _ONCE | {"read_mode_sc": aerospike.POLICY_READ_MODE_SC_LINEARIZE}
_COMPARE_AND_SET = _ONCE | {"gen": aerospike.POLICY_GEN_EQ}


def record_histories(
    clients: Sequence[Any],
    keys: Sequence[Key],
    seed: int,
    num_steps: int,
    before_step: Callable[[int], None] = lambda step: None,
) -> list[list[Operation]]:
    """Let the clients work on the records at the same time, and return what each record's callers saw.

    before_step: called before each step of the first client, while the others go on.
    """
    histories: list[list[Operation]] = [[] for _ in keys]

    def work(number: int) -> None:
        random = Random(f"{seed}/{number}")
        seen = [0] * len(keys)  # the generation that this client read last
        for step in range(num_steps):
            if number == 0:
                before_step(step)
            at = random.randrange(len(keys))
            kind = random.choice(list(Kind))
            operation = _perform(clients[number], number, keys[at], kind, step * len(clients) + number, seen[at])
            if operation is not None:
                histories[at].append(operation)
                if kind == Kind.READ and not operation.is_in_doubt:
                    seen[at] = operation.read.generation
            if operation is None or operation.is_in_doubt:
                time.sleep(PAUSE_S)

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(work, range(len(clients))))
    return histories


def read_finally(client: Any, number: int, key: Key) -> Operation:
    """What the record holds when all is over. Raises AssertionError where nobody can tell."""
    deadline_s = time.monotonic() + SETTLE_DEADLINE_S
    while time.monotonic() < deadline_s:
        operation = _perform(client, number, key, Kind.READ, 0, 0)
        if operation is not None and not operation.is_in_doubt:
            return operation
        time.sleep(PAUSE_S)
    raise AssertionError(f"record {key} could not be read for {SETTLE_DEADLINE_S} s after the last fault")


def _perform(client: Any, number: int, key: Key, kind: Kind, value: int, generation: int) -> Operation | None:
    """One operation as its caller saw it, or None where the client says that it never took effect."""
    seen: dict[str, Any] = {"client": number, "kind": kind, "called": time.monotonic(), "written": value}
    try:
        match kind:
            case Kind.READ:
                seen["read"] = _read(client, key)
            case Kind.WRITE:
                client.put(key, {"value": value}, policy=_ONCE)
            case Kind.COMPARE_AND_SET:
                seen["expected_generation"] = generation
                client.put(key, {"value": value}, {"gen": generation}, _COMPARE_AND_SET)
    except exception.RecordGenerationError:
        seen["refused"] = True
    except exception.AerospikeError as error:
        return Operation(**seen) if error.in_doubt else None
    return Operation(**seen, returned=time.monotonic())


def _read(client: Any, key: Key) -> Version:
    try:
        _, meta, bins = client.get(key, _READ)
    except exception.RecordNotFound:
        return ABSENT
    return Version(meta["gen"], bins["value"])
