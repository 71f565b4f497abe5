"""Keeps records across restarts: an append-only file of entries with checksums. Knows no node and no client.

An entry is with the operating system before the write that it holds is acknowledged, so a kill of the process at any
byte loses nothing. It is not synced to the disk: a crash of the whole machine may lose the last entries.
"""

import fcntl
import logging
import os
import struct
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from geotrain.errors import ConfigError, DataError
from geotrain.wire.codes import DIGEST_BYTES, INFO2_DELETE, INFO2_DURABLE_DELETE, INFO2_WRITE, Field, ResultCode
from geotrain.wire.messages import HEADER_BYTES, decode_message, pack_header
from sim.cluster.metadata import Metadata, TruncateLuts, decode, encode, truncated_before_ms
from sim.cluster.records import Record, SetName, make_tombstone, set_name_of, shape_of
from sim.cluster.values.refused import Refused

MAGIC = b"geotrain simulated cluster: records, version 1\n"
MIN_COMPACTION_BYTES = 64 * 1024 * 1024
COMPACTION_FACTOR = 4  # the file may grow to this many times what it had after the last compaction
_HEADER = struct.Struct(">III")  # the size of the body, its checksum, and the checksum of these two
_PREFIX = struct.Struct(">QQI")  # the body: last update in ms, transaction and its deadline (or 0), and a message
_TRANSACTION = slice(8, 16)
_TRANSACTION_BYTES = 8
_METADATA = b"{"  # with which the text of the metadata begins, and no record before the year 300,000
_CHECKED_HEADER_BYTES = 8

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """The last version of a record, or what an open transaction has written to it."""

    record: Record
    """It may be a tombstone."""
    transaction: int = 0
    """The transaction that has written it and not ended, or 0."""
    deadline: int = 0
    """Until when the transaction may last, in seconds since 2010."""


class Journal:
    """The file of one namespace. Every entry is a version of a record, a tombstone, or a removal; the last one counts.
    Among them are versions of the metadata, as text.

    Rows are kept as the messages that they are; the other two as the message that asks for such a delete. What a
    transaction writes is kept beside the committed version, until it is removed in the name of the transaction.
    """

    def __init__(self, data_dir: Path, namespace: str) -> None:
        """Open the file, or begin it. Raises ConfigError where it can't be used, DataError where it is damaged."""
        self._namespace = namespace
        self._path = data_dir / f"{namespace}.records"
        self._fresh = self._path.with_suffix(".compacted")
        self._is_torn = False
        """Whether a part of an entry may stand at the end of the file, which has to go before the next one."""
        self.metadata: Metadata | None = None
        """As it was when the file was opened."""
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._lock = (data_dir / f"{namespace}.lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._open(self._compacted())
        except BlockingIOError:
            raise ConfigError(
                f"data_dir: {data_dir} is in use by another cluster", "Stop that cluster, or choose another folder."
            ) from None
        except OSError as error:
            raise ConfigError(
                f"data_dir: {error.filename or self._path}: {error.strerror}",
                "Make it writable, make room on its disk, or choose another folder.",
            ) from None

    def entries(self) -> Iterator[Entry]:
        """All records that were kept. For a journal just opened."""
        set_names: dict[bytes, SetName] = {}
        for body in bodies(self._path.read_bytes()):
            if not body.startswith(_METADATA):
                yield _decode(body, self._namespace, set_names)

    def put_metadata(self, metadata: Metadata) -> None:
        """Write down the next version of the metadata. Raises Refused where the disk is full."""
        self._append(encode(metadata))

    def put(
        self, owner: SetName, digest: bytes, record: Record | None, transaction: int = 0, deadline: int = 0
    ) -> None:
        """Write down the next version of a record; None leaves nothing. Raises Refused where the disk is full."""
        if record is not None and record.row:
            self._append(_PREFIX.pack(record.last_update_ms, transaction, deadline) + record.row)
            return
        info2 = INFO2_WRITE | INFO2_DELETE | (INFO2_DURABLE_DELETE if record else 0)
        generation, last_update_ms = (record.generation, record.last_update_ms) if record else (0, 0)
        header = pack_header(HEADER_BYTES, 0, info2, 0, 0, 0, generation, 0, 0, owner.num_fields, 0)
        message = header + owner.before_digest + digest + owner.after_digest
        self._append(_PREFIX.pack(last_update_ms, transaction, deadline) + message)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._lock.close()

    def _append(self, body: bytes) -> None:
        entry = encode_entry(body)
        try:
            if self._is_torn:
                self._file.truncate(self._num_bytes)
            self._is_torn = True
            self._is_torn = self._file.write(entry) != len(entry)
        except OSError as error:
            log.warning("%s can't be written: %s", self._path, error.strerror)
        if self._is_torn:
            raise Refused(ResultCode.OUT_OF_SPACE)
        self._num_bytes += len(entry)
        if self._num_bytes > self._max_bytes:
            self._compact()

    def _compact(self) -> None:
        """Make the file smaller, or go on with it as it is and try again when it has grown as much once more."""
        try:
            file = self._compacted()
        except (OSError, DataError) as error:
            log.warning("%s can't be compacted: %s", self._path, error)
            self._max_bytes += self._num_bytes
            self._fresh.unlink(missing_ok=True)
            return
        self._file.close()
        self._open(file)

    def _open(self, file: FileIO) -> None:
        self._file = file
        self._num_bytes = os.fstat(file.fileno()).st_size
        self._max_bytes = max(MIN_COMPACTION_BYTES, COMPACTION_FACTOR * self._num_bytes)

    def _compacted(self) -> FileIO:
        """Replace the file, in one step, by one that holds the last version of every record only. Returns it, open."""
        latest: dict[bytes, bytes] = {}
        if self._path.exists():
            try:
                latest, self.metadata = _latest(bodies(self._path.read_bytes()))
            except Damaged as damage:
                raise DataError(
                    f"data_dir: {self._path} is damaged at byte {damage.at}",
                    f"Restore the file, or give up what follows: truncate -s {damage.at} {self._path}",
                ) from None
        with self._fresh.open("wb") as file:
            file.write(MAGIC)
            file.writelines(map(encode_entry, latest.values()))
            file.flush()
            os.fsync(file.fileno())
        opened = self._fresh.open("ab", buffering=0)
        self._fresh.replace(self._path)
        return opened


class Damaged(Exception):
    """An entry that is whole but not what was written."""

    def __init__(self, at: int) -> None:
        super().__init__(f"damaged at byte {at}")
        self.at = at


def encode_entry(body: bytes) -> bytes:
    """An entry as it stands in the file."""
    checked = _HEADER.pack(len(body), crc32(body), 0)[:_CHECKED_HEADER_BYTES]
    return checked + crc32(checked).to_bytes(4, "big") + body


def bodies(data: bytes) -> Iterator[bytes]:
    """What the entries of a file hold. One that the end of the file cuts short was never acknowledged, and is left out.

    Raises Damaged.
    """
    if not data.startswith(MAGIC):
        raise Damaged(0)
    at = len(MAGIC)
    while len(data) - at >= _HEADER.size:
        size, checksum, header_checksum = _HEADER.unpack_from(data, at)
        if crc32(data[at : at + _CHECKED_HEADER_BYTES]) != header_checksum:
            raise Damaged(at)
        end = at + _HEADER.size + size
        if end > len(data):
            return
        body = data[at + _HEADER.size : end]
        if crc32(body) != checksum:
            raise Damaged(at)
        yield body
        at = end


def _latest(entries: Iterable[bytes]) -> tuple[dict[bytes, bytes], Metadata | None]:
    """The last entry of every record, by transaction, digest and set, and that of the metadata, by its first byte.

    There is none for what was removed or truncated.
    """
    latest: dict[bytes, bytes] = {}
    for body in entries:
        if body.startswith(_METADATA):
            latest[_METADATA] = body
            continue
        message, _ = decode_message(body, _PREFIX.size)
        name = body[_TRANSACTION] + message.fields[Field.DIGEST] + message.fields.get(Field.SET, b"")
        if message.info2 and not message.info2 & INFO2_DURABLE_DELETE:
            latest.pop(name, None)
        else:
            latest[name] = body
    if _METADATA not in latest:
        return latest, None
    metadata = decode(latest[_METADATA])
    luts = metadata.truncate_luts
    return {name: body for name, body in latest.items() if not _is_truncated(name, body, luts)}, metadata


def _is_truncated(name: bytes, body: bytes, luts: TruncateLuts) -> bool:
    """Whether an entry was truncated: one of a transaction is not, as long as that is open."""
    if name == _METADATA or any(name[:_TRANSACTION_BYTES]):
        return False
    last_update_ms, _, _ = _PREFIX.unpack_from(body)
    return bool(last_update_ms < truncated_before_ms(luts, name[_TRANSACTION_BYTES + DIGEST_BYTES :]))


def _decode(body: bytes, namespace: str, set_names: dict[bytes, SetName]) -> Entry:
    """An entry from its bytes. `set_names` are the sets met so far, which their records share."""
    last_update_ms, transaction, deadline = _PREFIX.unpack_from(body)
    message, _ = decode_message(body, _PREFIX.size)
    name, digest = message.fields.get(Field.SET, b""), message.fields[Field.DIGEST]
    owner = set_names.get(name) or set_names.setdefault(name, set_name_of(namespace, name))
    if message.info2:
        return Entry(make_tombstone(owner, digest, message.generation, last_update_ms), transaction, deadline)
    record = Record(
        digest=digest,
        set_name=owner.name,
        key=message.fields.get(Field.KEY, b""),
        generation=message.generation,
        last_update_ms=last_update_ms,
        shape=shape_of({op.name: op.raw for op in message.ops}),
        row=body[_PREFIX.size :],
        void_time=message.record_ttl,
    )
    return Entry(record, transaction, deadline)
