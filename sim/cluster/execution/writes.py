"""Writes and deletes of one record, checked in a server's order."""

from typing import NamedTuple

from geotrain.wire import codes
from geotrain.wire.codes import TTL_DEFAULT, TTL_DONT_UPDATE, TTL_NEVER, Field, ResultCode
from sim.cluster.cluster import Cluster
from sim.cluster.config import MAX_TTL_S
from sim.cluster.execution.requests import Outcome, Request
from sim.cluster.execution.transactions import (
    MONITORS,
    TRANSACTION_S,
    check_monitor,
    check_size,
    check_version,
    deadline_field,
)
from sim.cluster.expression.expressions import Filter
from sim.cluster.records import Bins, Record, make_record, make_tombstone, since_epoch
from sim.cluster.sites.subclusters import RecordSet
from sim.cluster.values import operations
from sim.cluster.values.drafts import Draft
from sim.cluster.values.refused import Refused

MAX_GENERATION = 0xFFFF
MAX_BINS = 32_767
_REPLACES = codes.INFO3_CREATE_OR_REPLACE | codes.INFO3_REPLACE_ONLY
_MUST_EXIST = codes.INFO3_UPDATE_ONLY | codes.INFO3_REPLACE_ONLY


class Lock(NamedTuple):
    """What transactions have to do with a record that a command may change."""

    transaction: int = 0
    """The transaction that the command is part of, or 0."""
    deadline: int = 0
    """Until when it may last, in seconds since 2010."""
    holder: int = 0
    """The transaction that has written the record and not ended, or 0."""
    committed: Record | None = None
    """The last version outside of all transactions, if it is alive."""

    @property
    def is_own(self) -> bool:
        """Whether the command's transaction has written the record before."""
        return self.holder != 0 and self.holder == self.transaction

    def check(self, request: Request) -> None:
        """Refuse what another transaction keeps from changing, or what the own one has read otherwise."""
        if self.holder and not self.is_own:
            raise Refused(ResultCode.BLOCKED)
        if self.transaction:
            check_version(request.fields, self.committed)


class Target(NamedTuple):
    """A record that a command may change: where it is, and what is there."""

    cluster: Cluster
    owner: RecordSet
    digest: bytes
    now_ms: int
    stored: Record | None
    """The last version, which may be a tombstone or have expired."""
    present: Record | None
    """The last version, if it is alive."""
    lock: Lock

    @property
    def is_monitor(self) -> bool:
        """Whether the record is one with which a client keeps track of a transaction."""
        return self.owner.name.name == MONITORS

    @property
    def next_generation(self) -> int:
        """The generation of the next version. It goes on behind a tombstone, and begins anew where all is gone."""
        if self.stored is None or (self.present is None and not self.stored.is_tombstone):
            return 1
        return self.stored.generation % MAX_GENERATION + 1

    def put(self, record: Record | None) -> None:
        """Make this the record's next version; None leaves nothing. In a transaction it waits for the commit."""
        if self.lock.transaction:
            self.cluster.hold(self.owner, self.digest, record, self.lock.transaction, self.lock.deadline)
        else:
            self.cluster.put(self.owner, self.digest, record)


def write(target: Target, request: Request, matches: Filter | None) -> Outcome:
    """Perform the operations of a write. Raises Refused."""
    replaces = bool(request.info3 & _REPLACES)
    if not request.ops:
        return Outcome(ResultCode.PARAMETER)
    must_exist = operations.check(request.ops, replaces=replaces) or bool(request.info3 & _MUST_EXIST)
    present = target.present
    generation, void_time = (0, 0) if present is None else (present.generation, present.void_time)
    refusal = _refusal(target, request, matches, must_exist=must_exist)
    if refusal is not None:
        return Outcome(refusal, generation, void_time=void_time)
    bins = _draft(target, request, replaces=replaces)
    respond_all = bool(request.info2 & codes.INFO2_RESPOND_ALL_OPS)
    try:
        if target.is_monitor:
            check_monitor(present, request.ops)
        new_void_time = _void_time(target, request.record_ttl)
        answers = operations.apply(bins, request.ops, respond_all=respond_all)
        if not bins:  # a record without bins does not exist
            _remove(target, request)
            return Outcome(ResultCode.OK, 0, len(answers), b"".join(answers))
        written = _store(target, request, bins, new_void_time)
    except Refused as refused:
        return Outcome(refused.code, generation, void_time=void_time)
    outcome = Outcome(ResultCode.OK, written.generation, len(answers), b"".join(answers), written.void_time)
    return outcome._replace(num_fields=1, fields=deadline_field(written)) if target.is_monitor else outcome


def _draft(target: Target, request: Request, *, replaces: bool) -> Draft:
    """The bins that a write begins with."""
    present, now_ms = target.present, target.now_ms
    key, set_name = request.fields.get(Field.KEY, b""), target.owner.name.name
    if present is None:
        return Draft({}, digest=target.digest, set_name=set_name, key=key, last_update_ms=now_ms, now_ms=now_ms)
    return Draft(
        {} if replaces else present.bins(),
        digest=target.digest,
        set_name=set_name,
        key=key or present.key,
        last_update_ms=now_ms,
        void_time=present.void_time,
        row=present.row,
        now_ms=now_ms,
    )


def _store(target: Target, request: Request, bins: Bins, void_time: int) -> Record:
    """Put the record's next version in its place. Raises Refused."""
    if len(bins) > MAX_BINS:
        raise Refused(ResultCode.PARAMETER)
    key = request.fields.get(Field.KEY) or (b"" if target.present is None else target.present.key)
    owner, generation = target.owner.name, target.next_generation
    record = make_record(owner, target.digest, key, generation, target.now_ms, bins, void_time)
    if target.is_monitor:
        check_size(bins)
    if len(record.row) > target.cluster.config.max_record_bytes:
        raise Refused(ResultCode.TOO_BIG)
    target.put(record)
    return record


def _void_time(target: Target, ttl: int) -> int:
    """When the record that is written expires. Raises Refused for a time to live that can't be had."""
    config, present = target.cluster.config, target.present
    if target.is_monitor:
        return since_epoch(target.now_ms) + (ttl or TRANSACTION_S) if present is None else present.void_time
    if ttl == TTL_NEVER:
        return 0
    if ttl == TTL_DONT_UPDATE:
        if present is not None:
            return present.void_time
        ttl = TTL_DEFAULT
    if ttl > MAX_TTL_S:
        raise Refused(ResultCode.PARAMETER)
    ttl = ttl or config.default_ttl_s
    if ttl and not config.nsup_period_s and not config.allow_ttl_without_nsup:
        raise Refused(ResultCode.FORBIDDEN)
    return since_epoch(target.now_ms) + ttl if ttl else 0


def delete(target: Target, request: Request, matches: Filter | None) -> Outcome:
    """Delete a record, with a tombstone where that is asked for. Raises Refused."""
    if request.info2 & codes.INFO2_DURABLE_DELETE and not target.cluster.is_enterprise:
        return Outcome(ResultCode.ENTERPRISE_ONLY)
    refusal = _refusal(target, request, matches, must_exist=True)
    if refusal is not None:
        return Outcome(refusal)
    _remove(target, request)
    return Outcome(ResultCode.OK)


def _remove(target: Target, request: Request) -> None:
    if target.present is None:
        raise Refused(ResultCode.NOT_FOUND)
    if request.info2 & codes.INFO2_DURABLE_DELETE:
        target.put(make_tombstone(target.owner.name, target.digest, target.next_generation, target.now_ms))
    elif target.cluster.config.strong_consistency:
        raise Refused(ResultCode.FORBIDDEN)  # a delete that leaves no tombstone could be undone by an old copy
    else:
        target.put(None)


def _refusal(target: Target, request: Request, matches: Filter | None, *, must_exist: bool) -> ResultCode | None:
    """Why a record can't be written or deleted as asked, or None; in a server's order of checks. Raises Refused."""
    present = target.present
    if present is None and must_exist:
        return ResultCode.NOT_FOUND
    target.lock.check(request)
    if present is not None and request.info2 & codes.INFO2_CREATE_ONLY:
        return ResultCode.EXISTS
    if target.lock.is_own and request.info4 & codes.INFO4_ON_LOCKING_ONLY:
        return ResultCode.ALREADY_LOCKED
    if not _generation_fits(request, 0 if present is None else present.generation):
        return ResultCode.GENERATION
    if present is None:
        return None
    if matches is not None and not matches(present, target.now_ms):
        return ResultCode.FILTERED_OUT
    key = request.fields.get(Field.KEY)
    if key and present.key and key != present.key:
        return ResultCode.KEY_MISMATCH
    return None


def _generation_fits(request: Request, current: int) -> bool:
    """Whether the generation is the one that the writer expects; an absent record has generation 0."""
    if request.info2 & codes.INFO2_GENERATION_EQUAL:
        return request.generation == current
    if request.info2 & codes.INFO2_GENERATION_GREATER:
        return request.generation > current
    return True
