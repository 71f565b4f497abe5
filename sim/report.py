"""What the demo reached, in numbers and in words: report.json, a table on the terminal. Computes, and hides nothing."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sim.history import History
from sim.live import human_bytes
from sim.measure import Measured
from sim.relay import Counts

# The look-up of a published state must give the metric that its site reported, up to the order of float32 sums.
AUC_TOLERANCE = 1e-3


@dataclass(slots=True, kw_only=True)
class Facts:
    """Everything that the report is made of.

    wall_s: all steps of the demo together.
    simulated: whether the demo started the cluster.
    min_auc, min_gain: what should be reached.
    measured: what a reader of the view measured.
    wire: what crossed each site's link.
    rows_found: by site and table, the rows that were seen in what left the site.
    undeclared: records that came into sets of the view that nobody declared, by set.
    peak_memory_bytes: the most that all processes had together, among the moments at which it was looked at.
    setup_s: seconds by step of the demo.
    """

    wall_s: float
    simulated: bool
    min_auc: dict[str, float]
    min_gain: float
    history: History
    measured: Measured
    wire: dict[str, Counts]
    rows_found: dict[str, dict[str, int]]
    undeclared: dict[str, int]
    peak_memory_bytes: int
    setup_s: dict[str, float] = field(default_factory=dict)


def rows_moved(facts: Facts) -> int:
    """Local rows found where none should be: on the wire, or in sets of the view that nobody declared."""
    return sum(sum(tables.values()) for tables in facts.rows_found.values()) + sum(facts.undeclared.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that should be so: what, whether it is, and the numbers."""

    what: str
    reached: bool
    detail: str


def verdicts(facts: Facts) -> list[Verdict]:
    """What was promised, and whether it holds."""
    found = []
    for site, localized in sorted(facts.history.localized.items()):
        auc = localized.metrics["localized"]
        if site in facts.min_auc:
            least = facts.min_auc[site]
            found.append(Verdict(f"{site} AUC", auc >= least, f"{auc:.4f}, wanted {least:.3f}"))
        gain = auc - localized.metrics["local_only"]
        if facts.min_gain:
            found.append(Verdict(f"{site} gain", gain >= facts.min_gain, f"{gain:+.4f}, wanted {facts.min_gain:+.2f}"))
        looked_up = facts.measured.auc_by_lookup[site]
        same = math.isclose(looked_up, auc, abs_tol=AUC_TOLERANCE)
        found.append(Verdict(f"{site} by look-up", same, f"{looked_up:.4f}, reported {auc:.4f}"))
    missing = sorted(set(facts.history.sites) - set(facts.history.localized))
    if missing:
        found.append(Verdict("every site has its model:", False, f"none from {', '.join(missing)}"))
    moved = rows_moved(facts)
    whole = all(counts.captured == counts.up for counts in facts.wire.values())
    detail = (
        f"{moved} local rows found in {human_bytes(sum(c.captured for c in facts.wire.values()))} that left the sites"
    )
    if not whole:
        detail += f" (of {human_bytes(sum(c.up for c in facts.wire.values()))}: the capture reached its limit)"
    found.append(Verdict("rows stayed:", moved == 0 and whole, detail))
    return found


def to_json(facts: Facts) -> dict[str, Any]:
    """The content of report.json."""
    history = facts.history
    return {
        "wall_s": round(facts.wall_s, 1),
        "view": {
            "consistency": history.consistency,
            "racks": history.num_racks,
            "cluster": "simulated" if facts.simulated else "external",
        },
        "job": {"id": history.job, "finished": bool(history.finished), "reason": history.reason},
        "rounds": [
            {
                "round": each.round,
                "seconds": round(each.seconds, 2),
                "cut": asdict(each.cut),
                "bytes_up": each.bytes_up,
                "bytes_down": each.bytes_down,
                "loss": each.loss,
                "version": each.version,
                "reason": each.reason,
            }
            for each in history.rounds
        ],
        "sites": {
            site: {
                "rows": localized.rows,
                "auc": {name: localized.metrics[name] for name in ("local_only", "global", "localized")},
                "state": localized.state,
                "auc_by_lookup": facts.measured.auc_by_lookup[site],
            }
            for site, localized in sorted(history.localized.items())
        },
        "lookup": {
            "state_p50_us": round(facts.measured.state_lookup.p50_us, 1),
            "state_p99_us": round(facts.measured.state_lookup.p99_us, 1),
            "key_p50_us": round(facts.measured.key_lookup.p50_us, 1),
            "key_p99_us": round(facts.measured.key_lookup.p99_us, 1),
            "one_flight": asdict(facts.measured.one_flight),
        },
        "rows_moved": rows_moved(facts),
        "rows_found": facts.rows_found,
        "undeclared_records": facts.undeclared,
        "wire": {site: asdict(counts) for site, counts in sorted(facts.wire.items())},
        "peak_memory_bytes": facts.peak_memory_bytes,
        "setup_s": {step: round(seconds, 1) for step, seconds in facts.setup_s.items()},
        "reached": [asdict(verdict) for verdict in verdicts(facts)],
    }


def write_json(facts: Facts, path: Path) -> None:
    path.write_text(json.dumps(to_json(facts), indent=2, allow_nan=False) + "\n")


def show(facts: Facts, console: Console, folder: Path) -> None:
    """What was reached, on the terminal."""
    console.print(_sites_table(facts), _verdicts_table(facts), *_summary(facts), sep="\n")
    console.print(f"\n{folder / 'report.html'}\n{folder / 'report.json'}", soft_wrap=True)


def _sites_table(facts: Facts) -> Table:
    """What each site reached, for the terminal."""
    grid = Table(title="ROC AUC on the test rows", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in ("site", "rows", "local only", "global", "localized", "gain"):
        grid.add_column(column, justify="left" if column == "site" else "right", no_wrap=True)
    grid.add_column("published state", overflow="fold")
    for site, localized in sorted(facts.history.localized.items()):
        metrics = localized.metrics
        grid.add_row(
            site,
            f"{localized.rows:,}",
            *(f"{metrics[name]:.4f}" for name in ("local_only", "global", "localized")),
            f"{metrics['localized'] - metrics['local_only']:+.4f}",
            localized.state,
        )
    return grid


def _verdicts_table(facts: Facts) -> Table:
    """What holds and what falls short, for the terminal."""
    grid = Table(box=None, show_header=False)
    for verdict in verdicts(facts):
        mark = "[green]reached[/]" if verdict.reached else "[bold red]falls short[/]"
        grid.add_row(mark, verdict.what, verdict.detail)
    return grid


def _summary(facts: Facts) -> list[str]:
    """The rest in a few lines, for the terminal."""
    lookup, key, flight = facts.measured.state_lookup, facts.measured.key_lookup, facts.measured.one_flight
    history = facts.history
    cluster = "simulated cluster" if facts.simulated else "cluster"
    return [
        f"{cluster}: {history.consistency} consistency, {history.num_racks} racks",
        f"look-ups: newest state {lookup.p50_us:.0f} us (p99 {lookup.p99_us:.0f}), "
        f"record by key {key.p50_us:.0f} us (p99 {key.p99_us:.0f})",
        f"one flight: aircraft {flight.tailnum} arrived {flight.aircraft_delay:+d} min off schedule last time; "
        f"its next arrival is late with probability {flight.late:.2f} ({flight.us / 1000:.1f} ms in all)",
        f"wall time {facts.wall_s:.0f} s, peak memory {facts.peak_memory_bytes / 1e9:.1f} GB",
    ]
