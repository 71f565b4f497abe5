"""Records of the view by key, in and out, through the official client. Knows nothing of what the records mean."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import aerospike
from aerospike import exception as aerospike_errors
from aerospike_helpers import expressions
from aerospike_helpers.batch.records import BatchRecords  # not left to the client: see _read_batch

from geotrain.errors import ViewError
from geotrain.view import verify
from geotrain.view.config import ViewConfig
from geotrain.view.refusals import refusal
from geotrain.view.retry import RETRYABLE, pauses

if TYPE_CHECKING:
    from geotrain.view.nodes import Nodes

Answer = TypeVar("Answer")
Key = str | int | bytes
ClientRecord = tuple[Any, dict[str, Any], dict[str, Any]]  # key, metadata, bins
AerospikeError = aerospike_errors.AerospikeError

# A compare-and-set that lost.
LOST = (aerospike_errors.RecordGenerationError, aerospike_errors.RecordExistsError, aerospike_errors.FilteredOut)

MAX_KEYS_PER_BATCH = 5000
DEFAULT_RECORD_BYTES = 1024 * 1024

# Writes wait for the farthest replica, so several are under way at once.
NUM_THREADS = 8

CLIENT_ERROR = -1
NOT_FOUND = 2
FILTERED_OUT = 27
READ = (0, NOT_FOUND, FILTERED_OUT)


class Conflict(ViewError):
    """A compare-and-set that lost: the record is not in the generation that the writer saw, or not idle for so long."""


class Record(NamedTuple):
    """The bins of a record, and its generation: how often it was written. Short, and wraps around."""

    bins: dict[str, Any]
    generation: int


class _Row(NamedTuple):
    """A record that was read alone, as the client has one of a batch."""

    result: int
    record: ClientRecord | None


class Records:
    """One connection to the view, by key. Threads may share it; processes may not.

    consistency: `strong` or `eventual`, as the cluster says. num_racks: that have a node; 0 where the edition has none.
    num_copies: of each record, when it connected.
    client: the official client, for the other modules of this package. threads: for calls that wait for it; what runs
    there may not wait for another of them.
    """

    def __init__(self, client: Any, config: ViewConfig, facts: Mapping[str, verify.NodeFacts]) -> None:
        self.client = client
        self.config = config
        self.threads = ThreadPoolExecutor(NUM_THREADS)
        self.consistency = verify.consistency(facts.values())
        self.num_racks = len(verify.racks(facts.values()))
        self.num_copies = min(int(node.namespace.get("effective_replication_factor", 1)) for node in facts.values())
        # Servers before 7.1 may say 0, and mean a block of storage.
        limits = [int(node.namespace.get("max-record-size", 0)) for node in facts.values()]
        self.max_record_bytes = min(limits) or DEFAULT_RECORD_BYTES
        self._read_policies: dict[str, dict[str, Any] | None] = {
            "local": None,  # what the client was configured with
            "linearizable": (
                {"read_mode_sc": aerospike.POLICY_READ_MODE_SC_LINEARIZE}
                if self.consistency == "strong"
                else {"replica": aerospike.POLICY_REPLICA_MASTER}
            ),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.threads.shutdown()
        self.client.close()

    def key(self, set_name: str, key: Key) -> tuple[str, str, str | int | bytearray]:
        """Returns the key as the client takes it."""
        return self.config.namespace, set_name, bytearray(key) if isinstance(key, bytes) else key

    def get(
        self,
        set_name: str,
        key: Key,
        bins: Sequence[str] | None = None,
        *,
        reads: str | None = None,
        deadline_s: float | None = None,
    ) -> Record | None:
        """Returns the record; None where there is none.

        bins: only these; None: all. reads: `local` or `linearizable`, for this read; an eventual namespace answers
        `linearizable` from the master, which is the most that it can do. deadline_s: for this read, instead of the
        configuration's.
        """
        policy = self._read_policies[reads or self.config.reads]
        if deadline_s is not None:
            policy = {**(policy or {}), **_within(deadline_s)}
        try:
            if bins is None:
                _, meta, found = self.client.get(self.key(set_name, key), policy)
            else:
                _, meta, found = self.client.select(self.key(set_name, key), bins, policy)
        except aerospike_errors.RecordNotFound:
            return None
        except AerospikeError as error:
            raise refusal(f"reading {set_name}/{key!r}", error.code, error.msg) from error
        return Record(found, meta["gen"])

    def get_many(self, set_name: str, keys: Sequence[Key], *, reads: str | None = None) -> list[Record | None]:
        """Returns the records in the order of the keys; None where there is none. `reads`: as for `get`."""
        rows = self.read_many(set_name, keys, reads=reads)
        return [None if row is None else Record(row[2], row[1]["gen"]) for row in rows]

    def get_records(self, places: Sequence[tuple[str, Key]], bins: list[str] | None = None) -> list[Record | None]:
        """Returns records of any sets, by set and key, read at once; None where there is none. bins: as for `get`."""
        if len(places) == 1:  # a batch of one costs more than a read
            return [self.get(*places[0], bins)]
        return [None if row is None else Record(row[2], row[1]["gen"]) for row in self.read_places(places, bins)]

    def exist(self, set_name: str, keys: Sequence[Key]) -> list[bool]:
        """Returns for each key whether there is a record."""
        return [row is not None for row in self.read_many(set_name, keys, [])]

    def put(
        self,
        set_name: str,
        key: Key,
        bins: Mapping[str, Any],
        *,
        generation: int | None = None,
        idle_s: float | None = None,
        deadline_s: float | None = None,
    ) -> None:
        """Writes bins of a record, and leaves its others.

        generation: None writes whatever is there, and tries again for `ride_through_s` (the same bins twice do no
        harm); 0 only creates; else the generation that the record must have. idle_s: for so long the record must not
        have been written, by the server's clock; one that is not there is created. deadline_s: for this write, instead
        of the configuration's `deadline_s` and `ride_through_s`. Raises Conflict where the record is not so, InDoubt
        where no answer came.
        """
        meta = None if not generation else {"gen": generation}
        policy: dict[str, Any] = _within(deadline_s)
        if generation is not None:
            policy |= {"gen": aerospike.POLICY_GEN_EQ} if generation else {"exists": aerospike.POLICY_EXISTS_CREATE}
        if idle_s is not None:
            policy["expressions"] = expressions.GE(expressions.SinceUpdateTime(), round(idle_s * 1000)).compile()
        in_doubt = False
        for pause_s in pauses(deadline_s or self.config.ride_through_s):
            try:
                self.client.put(self.key(set_name, key), bins, meta, policy)
                return
            except LOST as error:
                too_soon = f", or less than {idle_s:g} s ago" if idle_s else ""
                what = f"{set_name}/{key!r} was written by someone else{too_soon}"
                raise Conflict(what, "read it again, then decide") from error
            except AerospikeError as error:
                last = error
                in_doubt |= bool(error.in_doubt)
                if error.code not in RETRYABLE or (in_doubt and generation is not None):
                    break
            time.sleep(pause_s)
        raise refusal(f"writing {set_name}/{key!r}", last.code, last.msg, in_doubt) from last

    def persist(self, doing: str, read: Callable[[], Answer]) -> Answer:
        """Returns what a read by the client gives, tried again for `ride_through_s` where its failure may pass.

        doing: in words, for the ViewError that is raised where it does not.
        """
        for pause_s in pauses(self.config.ride_through_s):
            try:
                return read()
            except AerospikeError as error:
                last = error
                if error.code not in RETRYABLE:
                    break
            time.sleep(pause_s)
        raise refusal(doing, last.code, last.msg) from last

    @cached_property
    def nodes(self) -> "Nodes":
        """Own connections to the nodes, for the other modules of this package: they load Arrow, and a compiler."""
        from geotrain.view.nodes import Nodes

        return Nodes(self.config)

    def read_many(
        self,
        set_name: str,
        keys: Sequence[Key],
        bins: list[str] | None = None,
        *,
        reads: str | None = None,
    ) -> list[ClientRecord | None]:
        """Returns the records as the client has them, in the order of the keys; None where there is none.

        bins: only these; None: all.
        """
        return self.read_places([(set_name, key) for key in keys], bins, reads=reads)

    def read_places(
        self,
        places: Sequence[tuple[str, Key]],
        bins: list[str] | None = None,
        *,
        reads: str | None = None,
    ) -> list[ClientRecord | None]:
        """`read_many` for records of any sets, each by its set and key."""
        policy = self._read_policies[reads or self.config.reads]
        rows: list[ClientRecord | None] = [None] * len(places)
        left: Sequence[int] = range(len(places))
        for pause_s in pauses(self.config.deadline_s):
            unread: list[int] = []
            code = 0
            for at in range(0, len(left), MAX_KEYS_PER_BATCH):
                some = left[at : at + MAX_KEYS_PER_BATCH]
                failed, found = self._read_batch([places[i] for i in some], bins, policy)
                for i, row in zip(some, found, strict=True):
                    if row is not None and row.result == 0:
                        rows[i] = row.record
                    elif row is None or row.result not in READ:
                        unread.append(i)
                        failed = failed or row.result
                code = failed or code
            if not unread:
                return rows
            left = unread
            if code not in RETRYABLE:
                break
            time.sleep(pause_s)
        sets = ", ".join(sorted({places[i][0] for i in left}))
        raise refusal(f"reading {len(left)} records of {sets}", code)

    def _read_batch(
        self, places: Sequence[tuple[str, Key]], bins: list[str] | None, policy: dict[str, Any] | None
    ) -> tuple[int, Sequence[Any]]:
        """Returns 0 and what came for each place; or why nothing came, and None for each.

        One alone is read without a batch, which costs half as much more.

        The client imports the class of its results in its first batch, and ends the process with SIGSEGV where another
        thread has that import half done: here it was imported before.
        """
        nothing = [None] * len(places)
        try:
            if len(places) == 1 and bins != []:
                return 0, [self._read_one(self.key(*places[0]), bins, policy)]
            namespace = self.config.namespace  # as `key` does it, for thousands of keys
            keys = [(namespace, name, bytearray(key) if isinstance(key, bytes) else key) for name, key in places]
            read: BatchRecords = self.client.batch_read(keys, bins, policy)
        except AerospikeError as error:
            return error.code or CLIENT_ERROR, nothing
        if len(read.batch_records) < len(places):  # a batch that failed as a whole is not always raised
            return int(read.result) or CLIENT_ERROR, nothing
        return 0, read.batch_records

    def _read_one(self, key: tuple[Any, ...], bins: list[str] | None, policy: dict[str, Any] | None) -> _Row:
        try:
            return _Row(0, self.client.get(key, policy) if bins is None else self.client.select(key, bins, policy))
        except aerospike_errors.RecordNotFound:
            return _Row(NOT_FOUND, None)


def _within(deadline_s: float | None) -> dict[str, int]:
    """The policy of a call that has another deadline than the configuration's."""
    return {} if deadline_s is None else dict.fromkeys(("total_timeout", "socket_timeout"), round(deadline_s * 1000))
