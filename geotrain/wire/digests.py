"""Digests of many keys at once, as the official client computes them one by one. Knows nothing of what keys name."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geotrain.wire.codes import DIGEST_BYTES, Particle
from geotrain.wire.words import compiled, inlined

_LANES = 16  # keys that are hashed side by side, so that the compiler makes vector instructions of it
_BLOCK_BYTES = 64
_LENGTH_BYTES = 8


def _table(*lines: str) -> NDArray[np.uint32]:
    return np.array([[int(digit, 16) for digit in line.replace(" ", "")] for line in lines], np.uint32)


# RIPEMD-160 (Dobbertin, Bosselaers and Preneel, 1996): two lines of five rounds of 16 steps. Which word of the block a
# step takes, by how many bits it rotates, and what a round adds.
_WORDS = _table(
    "0123456789abcdef 74d1a6f3c0952eb8 3ae49f812706db5c 19ba08c4d37fe562 40597c2ae138b6fd",
    "5e7092b4d6f81a3c 6b370d5aef8c4912 f5137e69b8c2a04d 86413bf05c2d97ae cfa4158762de039b",
)
_ROTATIONS = _table(
    "befc5879bdef6798 768db97f7cf9b7dc bd67e9dfe8d65c75 bcefef989e56865c 9f5b68dc5cdeb856",
    "899bdff5778beec6 9df7c89b77c76fdb 97fb866ecd5edd75 f58bee6e69c9c5f8 85c9c5e68d65fdbb",
)
_CONSTANTS = np.array(
    [
        [0x00000000, 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xA953FD4E],
        [0x50A28BE6, 0x5C4DD124, 0x6D703EF3, 0x7A6D76E9, 0x00000000],
    ],
    np.uint32,
)
_START = np.array([0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0], np.uint32)
_10, _22, _32 = np.uint32(10), np.uint32(22), np.uint32(32)


def digests(set_name: str, keys: pa.Array) -> NDArray[np.uint8]:
    """Returns the digest of each key in a set, (keys, 20). Keys are integers, strings or binary, without nulls.

    A string with a NUL is hashed whole; the official client cuts it there. Raises ValueError for nulls, TypeError for
    keys of another type.
    """
    if keys.null_count:
        raise ValueError(f"{keys.null_count} of {len(keys)} keys are null")
    particle, offsets, values = _values(keys)
    offsets.flags.writeable = values.flags.writeable = False  # some are: so that it is compiled only once
    prefix = np.frombuffer(set_name.encode() + bytes([particle]), np.uint8)
    found = np.empty((len(keys), DIGEST_BYTES), np.uint8)
    _hash_all(prefix, offsets, values, np.empty((4, 16 * _LANES), np.uint32), found.view("<u4"))
    return found


def _values(keys: pa.Array) -> tuple[int, NDArray[np.int64], NDArray[np.uint8]]:
    # The particle type of the keys, and their bytes: those of key i lie from offsets[i] to offsets[i + 1].
    if pa.types.is_integer(keys.type):
        big_endian = keys.cast(pa.int64()).to_numpy(zero_copy_only=False).astype(">i8")
        return Particle.INTEGER, np.arange(0, 8 * len(keys) + 1, 8), big_endian.view(np.uint8)
    if pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type):
        particle, keys = Particle.STRING, keys.cast(pa.large_string())
    elif pa.types.is_binary(keys.type) or pa.types.is_large_binary(keys.type):
        particle, keys = Particle.BLOB, keys.cast(pa.large_binary())
    else:
        raise TypeError(f"keys are integers, strings or binary, not {keys.type}")
    _, offsets, values = keys.buffers()
    window = np.frombuffer(offsets, np.int64, len(keys) + 1, 8 * keys.offset)
    return particle, window, np.frombuffer(values or b"", np.uint8)


@compiled
def _hash_all(prefix, offsets, values, work, found):  # type: ignore[no-untyped-def]
    # Each of these holds some words, and of each word first that of the first key, then that of the second, ...
    block, state, left, right = work[0], work[1], work[2], work[3]
    num_keys = len(offsets) - 1
    for first in range(0, num_keys, _LANES):
        num_lanes = min(_LANES, num_keys - first)
        num_blocks = 0
        for lane in range(num_lanes):
            num_blocks = max(num_blocks, _num_blocks(prefix, offsets, first + lane))
            for i in range(5):
                state[i * _LANES + lane] = _START[i]
        for index in range(num_blocks):
            block[:] = 0
            for lane in range(num_lanes):
                _load(prefix, offsets, values, first + lane, index, block.view(np.uint8), lane)
            _compress(block, state, left, right)
            for lane in range(num_lanes):
                if index == _num_blocks(prefix, offsets, first + lane) - 1:
                    for i in range(5):
                        found[first + lane, i] = state[i * _LANES + lane]


@inlined
def _num_blocks(prefix, offsets, key):  # type: ignore[no-untyped-def]
    num_bytes = len(prefix) + offsets[key + 1] - offsets[key]
    return (num_bytes + _LENGTH_BYTES) // _BLOCK_BYTES + 1


@inlined
def _load(prefix, offsets, values, key, index, block, lane):  # type: ignore[no-untyped-def]
    # Into zeros: block number `index` of prefix, value, a one bit, and in the last 8 bytes the length in bits.
    value_at, size = offsets[key] - len(prefix), len(prefix) + offsets[key + 1] - offsets[key]
    begin, end = index * _BLOCK_BYTES, (index + 1) * _BLOCK_BYTES
    for at in range(begin, min(end, len(prefix))):
        block[_place(at - begin, lane)] = prefix[at]
    for at in range(max(begin, len(prefix)), min(end, size)):
        block[_place(at - begin, lane)] = values[value_at + at]
    if begin <= size < end:
        block[_place(size - begin, lane)] = 0x80
    if size + 1 + _LENGTH_BYTES <= end:
        for i in range(_LENGTH_BYTES):
            block[_place(_BLOCK_BYTES - _LENGTH_BYTES + i, lane)] = (size << 3) >> (8 * i) & 0xFF


@inlined
def _place(at, lane):  # type: ignore[no-untyped-def]
    return np.uint64(((at >> 2) * _LANES + lane) * 4 + (at & 3))


@compiled
def _compress(block, state, left, right):  # type: ignore[no-untyped-def]
    for i in range(5 * _LANES):
        left[i] = right[i] = state[i]
    for step in range(80):
        group = step >> 4
        _step(left, block, _WORDS[0, step], group, _ROTATIONS[0, step], _CONSTANTS[0, group])
        _step(right, block, _WORDS[1, step], 4 - group, _ROTATIONS[1, step], _CONSTANTS[1, group])
    for lane in range(_LANES):
        first = state[lane]
        for i in range(4):
            state[i * _LANES + lane] = (
                state[(i + 1) * _LANES + lane] + left[(i + 2) % 5 * _LANES + lane] + right[(i + 3) % 5 * _LANES + lane]
            )
        state[4 * _LANES + lane] = first + left[_LANES + lane] + right[2 * _LANES + lane]


@inlined
def _step(line, block, word, function, rotation, constant):  # type: ignore[no-untyped-def]
    word_at, back = np.int64(word) * _LANES, np.uint32(_32 - rotation)
    for lane in range(_LANES):
        b, c, d, e = line[_LANES + lane], line[2 * _LANES + lane], line[3 * _LANES + lane], line[4 * _LANES + lane]
        if function == 0:
            mixed = b ^ c ^ d
        elif function == 1:
            mixed = (b & c) | (~b & d)
        elif function == 2:
            mixed = (b | ~c) ^ d
        elif function == 3:
            mixed = (b & d) | (c & ~d)
        else:
            mixed = b ^ (c | ~d)
        total = np.uint32(line[lane] + mixed + block[word_at + lane] + constant)
        line[lane] = e
        line[_LANES + lane] = np.uint32(np.left_shift(total, rotation) | np.right_shift(total, back)) + e
        line[2 * _LANES + lane] = b
        line[3 * _LANES + lane] = np.left_shift(c, _10) | np.right_shift(c, _22)
        line[4 * _LANES + lane] = d
