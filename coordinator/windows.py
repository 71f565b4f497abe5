"""How much each site may have under way, so that memory does not grow with the number of sites. Pure."""

# From all sites together, each byte up to four times in memory.
MAX_UNDER_WAY_BYTES = 6 << 20
# From one: 4 MiB keep a link of 320 Mbit/s and 100 ms busy.
MAX_WINDOW_BYTES = 4 << 20
# From one of very many.
MIN_WINDOW_BYTES = 64 << 10


def window_bytes(num_uploads: int) -> int:
    """Returns the bytes of one of so many updates that come at once."""
    return max(MIN_WINDOW_BYTES, min(MAX_WINDOW_BYTES, MAX_UNDER_WAY_BYTES // num_uploads))
