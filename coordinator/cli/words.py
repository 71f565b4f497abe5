"""Times, durations and sizes as people read them. Pure."""

import time


def clock(time_s: float) -> str:
    """The day and the time of day, here."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))


def lasting(seconds: float) -> str:
    """How long, in its two largest units."""
    whole = int(max(0.0, seconds))
    if whole < 10:
        return f"{max(0.0, seconds):.1f} s"
    for unit_s, unit, smaller_s, smaller in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            return f"{whole // unit_s} {unit} {whole % unit_s // smaller_s} {smaller}"
    return f"{whole} s"


def size(num_bytes: float) -> str:
    """Three digits at least, and a unit of 1000s: 12.3 MB."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"
