"""Shows a job while it runs: one live table on a terminal, else one line per state change. Decides nothing."""

import logging
import math
import time
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sim.history import History

logger = logging.getLogger("sim")

REFRESHES_PER_S = 8
STYLES = {"training": "bold green", "localizing": "bold green", "uploading": "cyan", "idle": "dim", "waiting": "dim"}


def human_bytes(count: float) -> str:
    """Three digits at least, and a unit of 1000s: 12.3 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def table(history: History) -> Table:
    """Where each site stands."""
    grid = Table(box=box.SIMPLE_HEAD)
    grid.add_column("site")
    grid.add_column("phase", min_width=10)
    for column, min_width in (("round", 5), ("rows", 9), ("loss", 7), ("up", 8), ("down", 8)):
        grid.add_column(column, justify="right", min_width=min_width)
    for name, site in sorted(history.sites.items()):
        grid.add_row(
            name,
            Text(site.phase, STYLES.get(site.phase, "yellow")),
            str(site.round or "-"),
            f"{site.rows:,}" if site.rows else "-",
            "-" if math.isnan(site.loss) else f"{site.loss:.4f}",
            human_bytes(site.bytes_up),
            human_bytes(site.bytes_down),
        )
    return grid


def headline(history: History, elapsed_s: float) -> str:
    """The job as a whole, in a line."""
    parts = [history.job or "no job yet"]
    if history.num_rounds:
        parts.append(f"{len(history.rounds)} of {history.num_rounds} rounds")
    if history.consistency:
        parts.append(f"{history.consistency} consistency, {history.num_racks} racks")
    if history.cuts:
        number, cut = max(history.cuts.items())
        parts.append(f"cut {number}: {cut.rows:,} rows, {'equal' if cut.equal else f'{cut.dropped:,} dropped'}")
    parts.append(f"{int(elapsed_s) // 60}:{int(elapsed_s) % 60:02d}")
    return " · ".join(parts)


class Screen:
    """Where the demo shows what happens. A context manager: the terminal is left as it was."""

    def __init__(self, console: Console, start_s: float) -> None:
        self._start_s = start_s
        self._history = History()
        self._steps: list[str] = []
        self._live = Live(
            get_renderable=self._render,
            console=console,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
        )
        self._is_terminal = console.is_terminal

    def __enter__(self) -> Self:
        if self._is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_terminal:
            self._live.stop()
        if kind is SystemExit:
            self._live.console.print("stopped; no process is left")

    def follow(self, history: History) -> None:
        """Show this job from now on."""
        self._history = history

    def say(self, line: str, *, in_table: bool = False) -> None:
        """Tell of a state change: above the table, unless that shows it already; without a terminal, in the log."""
        if not self._is_terminal:
            logger.info("%s", line)
        elif not in_table:
            self._live.console.print(Text(f"{time.monotonic() - self._start_s:6.1f} s  {line}", "dim"))

    def _render(self) -> Group:
        line = Text(headline(self._history, time.monotonic() - self._start_s), "bold")
        return Group(line, table(self._history)) if self._history.sites else Group(line)
