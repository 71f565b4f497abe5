"""The form of every benchmark's answer: a table to read, and one JSON object as the last line."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure that a benchmark was written to show, and the limit that it must keep."""

    value: float
    limit: float
    better: Literal["higher", "lower"] = "higher"

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its limit."""
        return self.value >= self.limit if self.better == "higher" else self.value <= self.limit


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the runs that have it."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: statistics.median([run[name] for run in runs if name in run]) for name in names}


def print_report(benchmark: str, results: Mapping[str, float], shows: Mapping[str, Figure]) -> None:
    """Print what was measured, what it shows, and both again as JSON. `results` carry their units in their names."""
    console = Console()
    measured = Table("measured", "value", title=benchmark)
    measured.columns[1].justify = "right"
    for name, value in results.items():
        measured.add_row(name, f"{value:,.4g}" if value < 1000 else f"{value:,.0f}")
    console.print(measured)
    shown = Table("must show", "value", "limit", "holds")
    for name, figure in shows.items():
        bound = "at least" if figure.better == "higher" else "at most"
        shown.add_row(name, f"{figure.value:,.4g}", f"{bound} {figure.limit:,.4g}", "yes" if figure.holds else "NO")
    console.print(shown)
    figures = {
        name: {"value": figure.value, "limit": figure.limit, "better": figure.better, "holds": figure.holds}
        for name, figure in shows.items()
    }
    print(json.dumps({"benchmark": benchmark, "machine": machine(), "results": results, "shows": figures}))


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
    }
