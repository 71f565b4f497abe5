"""The compiled loop of scans and look-ups: frames of messages into column buffers. Knows no Arrow and no sockets.

Every length that comes over the wire is compared with the end of what was received before it is used.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geotrain.wire import codes, frames, messages
from geotrain.wire.codes import DIGEST_BYTES, MAX_BIN_NAME_BYTES, Field, Particle
from geotrain.wire.fingerprints import partition_at, row_hash
from geotrain.wire.partitions import NUM_PARTITIONS
from geotrain.wire.words import (
    big_endian_32,
    big_endian_64,
    compiled,
    copy_digest,
    copy_words,
    inlined,
    little_endian_64,
)

# What `decode` returns.
NEEDS_MORE, FULL, GROW, ENDED = 0, 1, 2, 3
BAD_FRAME, BAD_MESSAGE, CUT_SHORT, BAD_FIELD, BAD_OPERATION, BAD_VALUE, TWICE = range(10, 17)
NO_DIGEST, UNASKED, BAD_PARTITION, NO_KEY = range(17, 21)
_FITS = -1

# Where things lie in `Stream.state`.
AT, FRAME_LEFT, NUM_ROWS, ATTEMPT, RESULT_CODE, NEEDED, SLOT, MISMATCHES = range(NUM_STATES := 8)

_HEADER_BYTES = messages.HEADER_BYTES
_INFO3, _RESULT_CODE, _GENERATION, _VOID_TIME, _POSITION, _COUNTS = 3, 5, 6, 10, 14, 18  # where they are in the header
_FRAME_BYTES = frames.HEADER_BYTES
_MAX_BODY_BYTES = frames.MAX_BODY_BYTES
_MESSAGE_FRAME = frames.VERSION << 8 | frames.MESSAGE
_OP_BYTES = messages.OP_OVERHEAD
_FIELD_BYTES = 5
_LAST, _PARTITION_DONE = codes.INFO3_LAST, codes.INFO3_PARTITION_DONE
_DIGEST, _KEY = Field.DIGEST, Field.KEY
_NOT_FOUND, _FILTERED_OUT = codes.ResultCode.NOT_FOUND, codes.ResultCode.FILTERED_OUT
ANSWERED = -1
_NIL, _INTEGER, _FLOAT, _BOOL = Particle.NIL, Particle.INTEGER, Particle.FLOAT, Particle.BOOL

# The words of a name's length and 15 bytes, of which only so many are meant.
_MASKS = np.array([[(1 << 8 * min(8, n + 1)) - 1, (1 << 8 * max(0, n - 7)) - 1] for n in range(16)], np.uint64)


class Columns(NamedTuple):
    """What is read: one entry a column. The stored key, where it is wanted, is the last one and has no name."""

    names: NDArray[np.uint64]  # (columns, 2): the name's length, then its bytes
    particles: NDArray[np.int64]  # (columns,)
    slots: NDArray[np.int64]  # (columns,): its place in `Rows.fixed`, or in `Rows.offsets`
    key: NDArray[np.int64]  # (1,): the column of the stored key, or -1
    stamps: NDArray[np.int64]  # (columns,): the attempt that found it last
    wrong: NDArray[np.int64]  # (columns,): the other particle type that the present record holds
    mismatches: NDArray[np.int64]  # (columns, 2): number of values of another type, and the last such type


class Rows(NamedTuple):
    """The rows of a batch."""

    fixed: NDArray[np.int64]  # (slots, rows): the bits of integers and floats; 0 and 1 for booleans
    offsets: NDArray[np.int32]  # (slots, rows + 1): where values begin and end in their region
    regions: NDArray[np.int64]  # (slots, 2): begin and size of each slot's part of `data`
    data: NDArray[np.uint8]
    validity: NDArray[np.uint8]  # (columns, rows / 8): bits, all set at first
    nulls: NDArray[np.int64]  # (columns,)
    digests: NDArray[np.uint8]  # (rows * 20,), or none
    positions: NDArray[np.uint32]  # (rows,): of their keys, or none
    generations: NDArray[np.uint32]  # (rows,)
    void_times: NDArray[np.uint32]  # (rows,)


class Stream(NamedTuple):
    """Where a stream of replies is, and what it said of partitions; the first three are shared by a whole scan."""

    last_digests: NDArray[np.uint8]  # (4096 * 20,): of the last row decoded
    num_rows: NDArray[np.int64]  # (4096,)
    fingerprints: NDArray[np.uint64]  # (4096,), or none
    asked: NDArray[np.bool_]  # (4096,)
    failures: NDArray[np.uint8]  # (4096,): the result code of partitions that the server could not deliver
    keys: NDArray[np.int64]  # of a batch: the partition of each key, ANSWERED afterwards and of those not asked for
    state: NDArray[np.int64]


@compiled
def decode(data, end, columns, rows, stream):  # type: ignore[no-untyped-def]
    """Decode messages up to `end`, until something must be done. Returns what: NEEDS_MORE, FULL, ... or the damage."""
    state = stream.state
    while True:
        if state[FRAME_LEFT] == 0:
            status = _begin_frame(data, end, state)
            if status != _FITS:
                return status
            continue
        at = state[AT]
        frame_end = at + state[FRAME_LEFT]
        status, next_at = _message(data, at, min(end, frame_end), columns, rows, stream)
        if status == NEEDS_MORE and next_at > frame_end:
            return CUT_SHORT
        if status == NEEDS_MORE:
            state[NEEDED] = next_at - at
        if status != _FITS:
            return status
        state[AT] = next_at
        state[FRAME_LEFT] = frame_end - next_at
        if state[NUM_ROWS] == len(rows.generations):
            return FULL


@inlined
def _begin_frame(data, end, state):  # type: ignore[no-untyped-def]
    at = state[AT]
    if at + _FRAME_BYTES > end:
        state[NEEDED] = _FRAME_BYTES
        return NEEDS_MORE
    header = np.int64(big_endian_64(data, at))
    num_bytes = header & ((1 << 48) - 1)
    if header >> 48 != _MESSAGE_FRAME or num_bytes > _MAX_BODY_BYTES:
        return BAD_FRAME
    state[AT] = at + _FRAME_BYTES
    state[FRAME_LEFT] = num_bytes
    return _FITS


@inlined
def _message(data, at, limit, columns, rows, stream):  # type: ignore[no-untyped-def]
    if at + _HEADER_BYTES > limit:
        return NEEDS_MORE, at + _HEADER_BYTES
    if data[np.uint64(at)] != _HEADER_BYTES:
        return BAD_MESSAGE, at
    info3, result_code = data[np.uint64(at + _INFO3)], data[np.uint64(at + _RESULT_CODE)]
    if len(stream.keys) and not info3 & _LAST:
        return _answer(data, at, limit, result_code, columns, rows, stream)
    if info3 & _LAST or (result_code != 0 and not info3 & _PARTITION_DONE):
        stream.state[RESULT_CODE] = result_code
        return ENDED, at
    if info3 & _PARTITION_DONE:
        partition = big_endian_32(data, at + _GENERATION)
        if partition >= NUM_PARTITIONS:
            return BAD_PARTITION, at
        stream.failures[partition] = result_code
        return _FITS, at + _HEADER_BYTES
    return _record(data, at, limit, columns, rows, stream)


@inlined
def _record(data, header_at, limit, columns, rows, stream):  # type: ignore[no-untyped-def]
    # Leaves no trace where it does not fit: what a second attempt writes, it writes to the same places.
    counts = big_endian_32(data, header_at + _COUNTS)
    row, state, key = stream.state[NUM_ROWS], stream.state, columns.key[0]
    state[ATTEMPT] += 1
    status, at, digest_at, key_at, key_end = _fields(data, header_at + _HEADER_BYTES, counts >> 16, limit)
    if status != _FITS:
        return status, at
    status, at, num_found = _operations(data, at, counts & 0xFFFF, limit, row, columns, rows, state)
    if status != _FITS:
        return status, at
    if key >= 0 and key_at >= 0:
        status = _store(data, key, data[np.uint64(key_at)], key_at + 1, key_end, row, columns, rows, state)
        if status != _FITS:
            return status, at
        num_found += columns.stamps[key] == state[ATTEMPT]
    if digest_at < 0:
        return NO_DIGEST, at
    if not stream.asked[partition_at(data, digest_at)]:
        return UNASKED, at
    if num_found != len(columns.particles):
        _fill(row, columns, rows, state)
    _commit(data, header_at, digest_at, row, rows, stream)
    return _FITS, at


@compiled
def _answer(data, header_at, limit, result_code, columns, rows, stream):  # type: ignore[no-untyped-def]
    # Of a batch: what a record holds, or why there is none. Here, too, what does not fit leaves no trace.
    counts, position = big_endian_32(data, header_at + _COUNTS), big_endian_32(data, header_at + _POSITION)
    row, state = stream.state[NUM_ROWS], stream.state
    state[ATTEMPT] += 1
    if position >= len(stream.keys) or stream.keys[position] == ANSWERED:
        return NO_KEY, header_at
    status, at, _, _, _ = _fields(data, header_at + _HEADER_BYTES, counts >> 16, limit)
    if status != _FITS:
        return status, at
    if result_code == 0:
        status, at, num_found = _operations(data, at, counts & 0xFFFF, limit, row, columns, rows, state)
        if status != _FITS:
            return status, at
        if num_found != len(columns.particles):
            _fill(row, columns, rows, state)
        rows.positions[row] = position
        rows.generations[row] = big_endian_32(data, header_at + _GENERATION)
        rows.void_times[row] = big_endian_32(data, header_at + _VOID_TIME)
        state[NUM_ROWS] = row + 1
    elif counts & 0xFFFF:
        return BAD_OPERATION, at
    elif result_code not in (_NOT_FOUND, _FILTERED_OUT):
        stream.failures[stream.keys[position]] = result_code
    stream.keys[position] = ANSWERED
    return _FITS, at


@inlined
def _fields(data, at, num_fields, limit):  # type: ignore[no-untyped-def]
    digest_at = key_at = key_end = -1
    for _ in range(num_fields):
        if at + _FIELD_BYTES > limit:
            return NEEDS_MORE, at + _FIELD_BYTES, digest_at, key_at, key_end
        size, kind = big_endian_32(data, at), data[np.uint64(at + 4)]
        end = at + 4 + size
        if size < 1 or (kind == _DIGEST and size != 1 + DIGEST_BYTES) or (kind == _KEY and size < 2):
            return BAD_FIELD, at, digest_at, key_at, key_end
        if end > limit:
            return NEEDS_MORE, end, digest_at, key_at, key_end
        if kind == _DIGEST:
            digest_at = at + _FIELD_BYTES
        elif kind == _KEY:
            key_at, key_end = at + _FIELD_BYTES, end
        at = end
    return _FITS, at, digest_at, key_at, key_end


@inlined
def _operations(data, at, num_ops, limit, row, columns, rows, state):  # type: ignore[no-untyped-def]
    num_found = 0
    guess = 0
    for _ in range(num_ops):
        if at + _OP_BYTES > limit:
            return NEEDS_MORE, at + _OP_BYTES, 0
        name_size = np.int64(data[np.uint64(at + 7)])
        value_at, end = at + _OP_BYTES + name_size, at + 4 + big_endian_32(data, at)
        if value_at > end or name_size > MAX_BIN_NAME_BYTES:
            return BAD_OPERATION, at, 0
        if end > limit:
            return NEEDS_MORE, end, 0
        column = _find(data, at + 7, name_size, guess, columns.names)
        if column >= 0:
            if columns.stamps[column] == state[ATTEMPT]:
                return TWICE, at, 0
            status = _store(data, column, data[np.uint64(at + 5)], value_at, end, row, columns, rows, state)
            if status != _FITS:
                return status, at, 0
            num_found += columns.stamps[column] == state[ATTEMPT]
            guess = column + 1
        at = end
    return _FITS, at, num_found


@inlined
def _find(data, at, name_size, guess, names):  # type: ignore[no-untyped-def]
    # Bins come in much the same order in every record: after the last one, then on from there.
    first = little_endian_64(data, at) & _MASKS[name_size, 0]
    second = little_endian_64(data, at + 8) & _MASKS[name_size, 1]
    num_columns = len(names)
    for step in range(num_columns):
        column = guess + step
        if column >= num_columns:
            column -= num_columns
        if names[column, 0] == first and names[column, 1] == second:
            return column
    return -1


@inlined
def _store(data, column, particle, at, end, row, columns, rows, state):  # type: ignore[no-untyped-def]
    size, slot = end - at, columns.slots[column]
    if particle != columns.particles[column]:
        columns.wrong[column] = particle
        return _FITS
    if particle in (_INTEGER, _FLOAT):
        if size != 8:
            return BAD_VALUE
        rows.fixed[slot, row] = np.int64(big_endian_64(data, at))
    elif particle == _BOOL:
        if size != 1:
            return BAD_VALUE
        rows.fixed[slot, row] = data[np.uint64(at)] != 0
    else:
        begin = np.int64(rows.offsets[slot, row])
        if begin + size > rows.regions[slot, 1]:
            state[SLOT] = slot
            state[NEEDED] = begin + size
            return GROW
        copy_words(data, at, rows.data, rows.regions[slot, 0] + begin, size)
        rows.offsets[slot, row + 1] = begin + size
    columns.stamps[column] = state[ATTEMPT]
    return _FITS


@compiled
def _fill(row, columns, rows, state):  # type: ignore[no-untyped-def]
    for column in range(len(columns.particles)):
        if columns.stamps[column] == state[ATTEMPT]:
            continue
        slot, particle = columns.slots[column], columns.particles[column]
        if particle in (_INTEGER, _FLOAT, _BOOL):
            rows.fixed[slot, row] = 0
        else:
            rows.offsets[slot, row + 1] = rows.offsets[slot, row]
        rows.validity[column, row >> 3] &= ~np.uint8(1 << (row & 7))
        rows.nulls[column] += 1
        if columns.wrong[column] != _NIL:
            state[MISMATCHES] += 1
            columns.mismatches[column, 0] += 1
            columns.mismatches[column, 1] = columns.wrong[column]
            columns.wrong[column] = _NIL


@inlined
def _commit(data, header_at, digest_at, row, rows, stream):  # type: ignore[no-untyped-def]
    generation, partition = big_endian_32(data, header_at + _GENERATION), partition_at(data, digest_at)
    rows.generations[row] = generation
    rows.void_times[row] = big_endian_32(data, header_at + _VOID_TIME)
    if len(rows.digests):
        copy_digest(data, digest_at, rows.digests, row * DIGEST_BYTES)
    copy_digest(data, digest_at, stream.last_digests, partition * DIGEST_BYTES)
    stream.num_rows[partition] += 1
    if len(stream.fingerprints):
        stream.fingerprints[partition] += row_hash(data, digest_at, generation)
    stream.state[NUM_ROWS] = row + 1
