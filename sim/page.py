"""The report as one self-contained HTML page: pictures and tables, for a phone and a desktop, light and dark."""

import math
from collections.abc import Collection, Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from sim import pictures
from sim.live import human_bytes
from sim.report import Facts, rows_moved, verdicts

WIRE_NOTE = (
    "Bytes are counted by a relay between each agent and the coordinator, which also keeps what goes up. In the kept "
    "bytes the rows of the site's local datasets, and of its standardised features, are looked for: as columns and as "
    "rows of 32 and 64 bit numbers, as strings, CSV and JSON. The demo's link is neither encrypted nor compressed, "
    "so rows that are sent in any of these forms are seen. Sums, counts and vocabularies of the features, fingerprints "
    "and updates are meant to leave; sets of the view are checked for records that nobody declared."
)


def write_page(facts: Facts, path: Path) -> None:
    """Write report.html."""
    template = Template(files("sim").joinpath("report.html").read_text())
    path.write_text(template.substitute(content(facts)))


def content(facts: Facts) -> dict[str, str]:
    """What fills the template, by placeholder."""
    history = facts.history
    cluster = "a simulated Aerospike cluster" if facts.simulated else "an external Aerospike cluster"
    ended = "" if history.finished else f" The job did not finish: {history.reason}."
    return {
        "title": f"{_number_word(len(history.sites))} regions train together",
        "subtitle": escape(
            f"Job {history.job}: {len(history.rounds)} of {history.num_rounds} rounds on {cluster} of "
            f"{history.num_racks} racks, {history.consistency} consistency, all on one machine.{ended}"
        ),
        "tiles": _tiles(facts),
        "verdicts": "".join(
            f'<li><span class="{"good" if v.reached else "bad"}">{"✓" if v.reached else "✗ falls short"}</span> '
            f"{escape(v.what)} {escape(v.detail)}</li>"
            for v in verdicts(facts)
        ),
        "auc": pictures.auc_by_site(history, facts.min_auc),
        "loss": pictures.loss_by_round(history),
        "timeline": pictures.timeline(history),
        "bytes": pictures.bytes_by_round(history),
        "lookups": _lookups(facts),
        "one_flight": _one_flight(facts),
        "sites": _sites(facts),
        "rounds": _rounds(facts),
        "wire": _wire(facts),
        "wire_note": WIRE_NOTE,
        "setup": _table(
            ("step", "seconds"), [(escape(step), f"{seconds:.1f}") for step, seconds in facts.setup_s.items()]
        ),
    }


def _tiles(facts: Facts) -> str:
    gains = [m.metrics["localized"] - m.metrics["local_only"] for m in facts.history.localized.values()]
    tiles = [
        (f"{rows_moved(facts):,}", "local rows found outside their site"),
        (f"{min(gains, default=math.nan):+.3f}", "ROC AUC over training alone, at the site that gains least"),
        (f"{facts.measured.state_lookup.p50_us:.0f} µs", "to look up the newest model (median)"),
        (human_bytes(sum(counts.up for counts in facts.wire.values())), "left the sites, all rounds"),
        (f"{facts.wall_s:.0f} s", "from an empty cluster to this report"),
        (f"{facts.peak_memory_bytes / 1e9:.1f} GB", "most memory, all processes (sampled)"),
    ]
    return "".join(f'<div class="tile"><b>{value}</b><span class="soft">{what}</span></div>' for value, what in tiles)


def _lookups(facts: Facts) -> str:
    rows = [
        ("newest state of a scope", facts.measured.state_lookup),
        ("an aircraft by its key", facts.measured.key_lookup),
    ]
    return _table(
        ("look-up", "median, µs", "99th percentile, µs"),
        [(what, f"{latency.p50_us:.0f}", f"{latency.p99_us:.0f}") for what, latency in rows],
    )


def _one_flight(facts: Facts) -> str:
    flight = facts.measured.one_flight
    return escape(
        f"One flight: aircraft {flight.tailnum} last flew {flight.leg} and arrived {flight.aircraft_delay:+d} minutes "
        f"off schedule. With what the view has by key, and by the newest model, its next flight arrives late with "
        f"probability {flight.late:.2f}; {flight.us / 1000:.1f} ms in all."
    )


def _sites(facts: Facts) -> str:
    kinds = ("local_only", "global", "localized")
    rows = []
    for site, localized in sorted(facts.history.localized.items()):
        metrics = localized.metrics
        rows.append(
            (
                escape(site),
                f"{localized.rows:,}",
                *(f"{metrics[kind]:.4f}" for kind in kinds),
                f"{metrics['localized'] - metrics['local_only']:+.4f}",
                f"{facts.measured.auc_by_lookup[site]:.4f}",
                f"<code>{escape(localized.state)}</code>",
            )
        )
    header = ("site", "training rows", "local only", "global", "localized", "gain", "by look-up", "published state")
    return _table(header, rows)


def _rounds(facts: Facts) -> str:
    rows = [
        (
            str(each.round),
            f"{each.seconds:.1f}",
            f"{each.cut.rows:,}",
            f"{each.cut.dropped:,}",
            "yes" if each.cut.equal else "no",
            human_bytes(each.bytes_up),
            human_bytes(each.bytes_down),
            f"{each.version}",
            escape(each.reason),
        )
        for each in facts.history.rounds
    ]
    header = (
        "round",
        "seconds",
        "rows in the cut",
        "dropped",
        "equal at once",
        "up",
        "down",
        "state version",
        "closed because",
    )
    return _table(header, rows, words={len(header) - 1})


def _wire(facts: Facts) -> str:
    rows = [
        (
            escape(site),
            human_bytes(counts.up),
            human_bytes(counts.down),
            human_bytes(counts.captured),
            f"{sum(facts.rows_found[site].values()):,}",
        )
        for site, counts in sorted(facts.wire.items())
    ]
    return _table(("site", "up", "down", "searched", "local rows found"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = ()) -> str:
    """A table of cells that are HTML already; the columns in `words` are for reading rather than comparing."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="words">{cell}</{tag}>' if at in words else f"<{tag}>{cell}</{tag}>"
            for at, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{line(header, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _number_word(count: int) -> str:
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six")
    return words[count] if count < len(words) else str(count)
