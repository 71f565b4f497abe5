"""The view of a simulation: linearizable records behind the official client's interface. Knows no record's meaning.

Each operation takes effect at one moment between its call and its answer; one that is not answered may have taken
effect, or take effect only later. The real `View` stands above this client, with all its retries.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import aerospike
from aerospike import exception

from geotrain.view.config import ViewConfig
from geotrain.view.connect import View
from geotrain.view.verify import NodeFacts
from tests.simulation.rounds.processes import PROCESS, WORLD, Process, block

DELAY_S = (0.001, 0.008)  # of a request, and of an answer
MAX_LATE_S = 12.0  # of a write that takes effect when nobody waits for its answer any more: longer than a lease
RACKS = 3
NOT_FOUND, FILTERED_OUT, UNAVAILABLE, TIMEOUT = 2, 27, 11, 9
SINCE_UPDATE_TIME = 71  # as expressions are compiled
GREATER_OR_EQUAL, GREATER = 4, 3

Key = tuple[str, Any]  # set and key


@dataclass
class Record:
    bins: dict[str, Any]
    generation: int
    updated_s: float


@dataclass
class Trouble:
    """What is wrong between one process and the store. unanswered: what becomes of the next compare-and-sets, which get
    no answer: lost, applied or late. Other writes may be sent twice, and are until they are answered."""

    is_away: bool = False
    slow_s: float = 0.0
    unanswered: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Write:
    """A write that took effect."""

    process: Process
    set_name: str
    key: Any
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]


class Store:
    """The records. on_write: told of every write that takes effect."""

    def __init__(self, random: Random, on_write: Callable[[Write], None]) -> None:
        self.records: dict[Key, Record] = {}
        self.troubles: dict[str, Trouble] = {}
        self.on_write = on_write
        self._random = random

    def view(self, config: ViewConfig) -> View:
        return View(Client(self), config, FACTS)

    def call(self, act: Callable[[], Any], *, is_write: bool, is_conditional: bool, timeout_s: float) -> Any:
        """Have the store do it, as seen from the calling process's thread."""
        process = PROCESS.get()
        assert process is not None
        trouble = self.troubles.get(process.name, Trouble())
        there_s, back_s = (self._random.uniform(*DELAY_S) + self._random.random() * trouble.slow_s for _ in range(2))
        if trouble.is_away:
            block(min(there_s, timeout_s))
            raise _error(exception.ClusterError, UNAVAILABLE, "partition unavailable")
        fate = trouble.unanswered.pop() if is_conditional and trouble.unanswered else "answered"
        box: list[Any] = []
        if fate == "late":
            there_s = timeout_s + MAX_LATE_S * self._random.random()
        if fate != "lost":
            loop = _loop()
            loop.call_later(there_s, lambda: box.append(_outcome(act)), context=WORLD)
        if fate != "answered" or there_s + back_s > timeout_s:
            block(timeout_s)
            raise _error(exception.TimeoutError, TIMEOUT, "no answer", in_doubt=is_write)
        block(there_s + back_s)
        result, error = box[0]
        if error is not None:
            raise error
        return result

    def put(self, key: Key, bins: Mapping[str, Any], process: Process, policy: Mapping[str, Any], gen: int) -> None:
        """Raises what the client would."""
        record = self.records.get(key)
        if policy.get("exists") == aerospike.POLICY_EXISTS_CREATE and record:
            raise _error(exception.RecordExistsError, 5, "exists")
        if policy.get("gen") == aerospike.POLICY_GEN_EQ and (record.generation if record else 0) != gen:
            raise _error(exception.RecordGenerationError, 3, "generation")
        if record and not _holds(policy.get("expressions"), _loop().time() - record.updated_s):
            raise _error(exception.FilteredOut, FILTERED_OUT, "filtered out")
        before = dict(record.bins) if record else None
        after = {**(before or {}), **bins}
        generation = record.generation + 1 if record else 1
        self.records[key] = Record(after, generation, _loop().time())
        self.on_write(Write(process, *key, before, after))

    def touch(self, key: Key, policy: Mapping[str, Any]) -> int:
        """Returns the result code."""
        record = self.records.get(key)
        if record is None:
            return NOT_FOUND
        if not _holds(policy["expressions"], _loop().time() - record.updated_s):
            return FILTERED_OUT
        self.records[key] = Record(record.bins, record.generation + 1, _loop().time())
        return 0


def _outcome(act: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return act(), None
    except exception.AerospikeError as error:
        return None, error


def _holds(expression: Any, idle_s: float) -> bool:
    if expression is None:
        return True
    (compare, *_), (what, *_), (_, _, limit, _) = expression
    assert what == SINCE_UPDATE_TIME, "the simulated store knows no other expression"
    idle_ms = idle_s * 1000
    return bool(idle_ms >= limit["val"] if compare == GREATER_OR_EQUAL else idle_ms > limit["val"])


def _error(kind: type[Exception], code: int, message: str, in_doubt: bool = False) -> Exception:
    error: Any = kind(code, message)
    error.code, error.msg, error.in_doubt = code, message, in_doubt
    return error  # type: ignore[no-any-return]


def _loop() -> asyncio.AbstractEventLoop:
    process = PROCESS.get()
    if process is not None:
        return process.loop
    return asyncio.get_running_loop()


class Client:
    """The official client, as far as the view needs it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def close(self) -> None:
        pass

    def get(self, key: tuple[str, str, Any], policy: Mapping[str, Any] | None = None) -> Any:
        record = self._call(lambda: self._read(key), policy)
        if record is None:
            raise _error(exception.RecordNotFound, NOT_FOUND, "not found")
        return key, {"gen": record.generation}, record.bins

    def select(self, key: tuple[str, str, Any], bins: Sequence[str], policy: Mapping[str, Any] | None = None) -> Any:
        _, meta, found = self.get(key, policy)
        return key, meta, {name: value for name, value in found.items() if name in bins}

    def put(self, key: tuple[str, str, Any], bins: Mapping[str, Any], meta: Any = None, policy: Any = None) -> None:
        process = PROCESS.get()
        assert process is not None
        gen = (meta or {}).get("gen", 0)
        written = _copied(bins)
        self._call(lambda: self._store.put(_of(key), written, process, policy or {}, gen), policy, is_write=True)

    def batch_read(self, keys: Sequence[Any], bins: Sequence[str] | None = None, policy: Any = None) -> Any:
        records = self._call(lambda: [self._read(key) for key in keys], policy)
        rows = [
            SimpleNamespace(result=NOT_FOUND, record=None)
            if record is None
            else SimpleNamespace(result=0, record=(key, {"gen": record.generation}, record.bins))
            for key, record in zip(keys, records, strict=True)
        ]
        return SimpleNamespace(result=0, batch_records=rows)

    def batch_write(self, records: Any) -> None:
        """Touches and writes of records: the batches that states are published with."""
        process = PROCESS.get()
        assert process is not None

        def apply() -> list[int]:
            return [self._apply(write, process) for write in records.batch_records]

        results = self._call(apply, None, is_write=True)
        for write, result in zip(records.batch_records, results, strict=True):
            write.result = result

    def query(self, _: str, set_name: str) -> Any:
        def read() -> list[Any]:
            return [(None, {}, _copied(found.bins)) for (of, _), found in self._store.records.items() if of == set_name]

        return SimpleNamespace(select=lambda *_: None, results=lambda policy: self._call(read, policy))

    def _apply(self, write: Any, process: Process) -> int:
        if write.ops[0]["op"] == aerospike.OPERATOR_TOUCH:
            return self._store.touch(_of(write.key), write.policy)
        self._store.put(_of(write.key), {op["bin"]: op["val"] for op in write.ops}, process, {}, 0)
        return 0

    def _read(self, key: Any) -> Record | None:
        record = self._store.records.get(_of(key))
        return record and Record(_copied(record.bins), record.generation, record.updated_s)

    def _call(self, act: Callable[[], Any], policy: Mapping[str, Any] | None, *, is_write: bool = False) -> Any:
        timeout_s = (policy or {}).get("total_timeout", 1000 * VIEW.deadline_s) / 1000
        is_conditional = is_write and not {"gen", "exists"}.isdisjoint(policy or {})
        return self._store.call(act, is_write=is_write, is_conditional=is_conditional, timeout_s=timeout_s)


def _copied(bins: Mapping[str, Any]) -> dict[str, Any]:
    """As deep as our bins go: maps of what nobody can change."""
    return {name: dict(value) if isinstance(value, dict) else value for name, value in bins.items()}


def _of(key: tuple[str, str, Any]) -> Key:
    _, set_name, name = key
    return set_name, bytes(name) if isinstance(name, bytearray) else name


VIEW = ViewConfig(deadline_s=2.0, ride_through_s=6.0)
FACTS = {
    f"node{rack}": NodeFacts(
        namespace={"strong-consistency": "true", "effective_replication_factor": "3", "max-record-size": "1048576"},
        known_namespaces=("geotrain",),
        roster=frozenset(),
        observed=frozenset(),
        rack=rack,
    )
    for rack in range(1, RACKS + 1)
}
