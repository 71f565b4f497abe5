"""How the C library gives out memory for messages and tensors. Knows neither."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# The most that glibc takes.
MAX_REUSED_BYTES = 32 << 20


def reuse_freed_memory(largest_bytes: int, kept_bytes: int) -> None:
    """Have freed memory used again, instead of fresh pages from the kernel for each message and tensor.

    For a process that moves models: fresh pages cost it as much CPU as all else that it does with them. What is larger
    than largest_bytes goes back to the kernel when it is freed, as does what is free at the heap's end over kept_bytes.
    All threads share one heap: with one for each, each keeps its own. Does nothing where the C library is not glibc.
    """
    with suppress(AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, min(largest_bytes, MAX_REUSED_BYTES))
        libc.mallopt(M_TRIM_THRESHOLD, kept_bytes)
