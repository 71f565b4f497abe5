"""A coordinator's snapshot as tables and lines for a terminal of any width. Pure: asks no one, prints nothing."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coordinator.cli.words import clock, lasting, size

GREEN, YELLOW, RED, DIM = "green", "yellow", "red", "dim"
STYLES = {
    **{"leading": GREEN, "running": GREEN, "finished": GREEN, "here": GREEN, "committed": GREEN, "reported": GREEN},
    **{"queued": YELLOW, "paused": YELLOW, "silent": YELLOW, "open": YELLOW, "asked": YELLOW, "away": YELLOW},
    **{"failed": RED, "cancelled": RED, "gone": RED, "unseen": RED, "out": RED},
    **{"standby": DIM, "stopping": YELLOW},
}

Json = dict[str, Any]


def status(snapshots: dict[str, Json], leader: str | None, failures: dict[str, str]) -> RenderableType:
    """Everything at a glance: the coordinators, the leader's sites and jobs."""
    parts: list[RenderableType] = [_coordinators(snapshots, failures)]
    if leader is not None and snapshots[leader]["coordinator"]["ready"]:
        seen = snapshots[leader]
        parts += [title("sites"), sites(seen), title("jobs"), jobs(seen)]
    return Group(*parts)


def _coordinators(snapshots: dict[str, Json], failures: dict[str, str]) -> RenderableType:
    lines = []
    for address, seen in snapshots.items():
        me = seen["coordinator"]
        since = lasting(seen["time_s"] - me["since_s"])
        lines.append(_entry(address, me["role"], [f"for {since}", f"{me['consistency']} consistency"], me["reason"]))
    lines += [_entry(address, "gone", [], why) for address, why in failures.items()]
    return Group(*lines)


def sites(seen: Json) -> RenderableType:
    """Every site: whether it is here, and what it does."""
    if not seen["sites"]:
        return Text("  no agent has connected yet", DIM)
    now_s = seen["time_s"]
    table = table_of("site", "state", ">for", ">heard", "*does")
    for site in seen["sites"]:
        since = lasting(now_s - site["since_s"]) if site["since_s"] else ""
        heard = f"{lasting(now_s - site['heard_s'])} ago" if site["heard_s"] else ""
        does = [_work(work) for work in site["work"] if work["phase"] != "idle"]
        if site["state"] != "here":
            does.insert(0, site["reason"])
        row(table, site["site"], site["state"], since, heard, "; ".join(does) or "nothing now")
    return table


def _work(work: Json) -> str:
    where = f"round {work['round']} of {work['job']}" if work["round"] else work["job"]
    text = f"{work['phase']} {where}"
    text += f", {work['rows']:,} rows" if work["rows"] else ""
    text += f", loss {work['loss']:.4f}" if work["loss"] is not None else ""
    return text + (f": {work['note']}" if work["note"] else "")


def jobs(seen: Json) -> RenderableType:
    """Every job that the leader knows: where it stands and why."""
    if not seen["jobs"]:
        return Text("  no job yet: launch one with `python -m coordinator.launch`", DIM)
    lines: list[RenderableType] = []
    if (num_older := seen.get("total", 0) - len(seen["jobs"])) > 0:
        lines.append(Text(f"{num_older} older jobs, all ended, are not listed", DIM))
    for job in seen["jobs"]:
        facts = [f"round {job['round']} of {job['rounds']}"] if job["rounds"] else []
        lines.append(_entry(job["job"], job["status"], [*facts, _since(job, seen["time_s"])], job["reason"]))
    return Group(*lines)


def _since(job: Json, now_s: float) -> str:
    if job["ended_s"]:
        return f"{clock(job['ended_s'])}, {lasting(job['ended_s'] - job['launched_s'])} after its launch"
    since = lasting(now_s - job["since_s"])
    return f"{job['phase']} for {since}" if job["phase"] else f"for {since}"


def _entry(name: str, state: str, facts: Sequence[str], reason: str) -> RenderableType:
    """A name and its state in a line, the reason in the next: to be read at any width."""
    head = Text.assemble((name, "bold"), "  ", (state, STYLES.get(state, "")), *(f", {fact}" for fact in facts))
    return Group(head, Padding(Text(reason), (0, 0, 0, 4), expand=False))


def rounds(job: Json) -> RenderableType:
    """A job's rounds, a line each, and its sites' own states."""
    parts: list[RenderableType] = [_headline(job)]
    if job["history"]:
        table = table_of(">round", ">version", ">rows", ">seconds", ">up", ">down", "*loss", "*without")
        for past in job["history"]:
            commit, cut = past["commit"], past["cut"]
            rows = _count(cut and cut["rows"])
            if commit is None:
                row(table, str(past["round"]), "open", rows, "", "", "", "", "")
                continue
            loss = ", ".join(f"{site} {_measure(each['loss'])}" for site, each in sorted(commit["metrics"].items()))
            counts = (size(commit["bytes_up"]), size(commit["bytes_down"]))
            without = ", ".join(sorted(commit["absent"]))
            cells = (str(commit["version"]), rows, f"{commit['seconds']:.1f}", *counts, loss, without)
            row(table, str(past["round"]), *cells)
        parts.append(table)
    if job["localized"]:
        table = table_of("site's own state", ">samples", "*metrics")
        for own in job["localized"]:
            metrics = ", ".join(f"{name} {_measure(value)}" for name, value in sorted(own["metrics"].items()))
            row(table, f"{job['model']}/site/{own['site']}@{own['version']}", _count(own["samples"]), metrics)
        parts.append(table)
    return Group(*parts)


def _headline(job: Json) -> RenderableType:
    stands = [f"round {job['round']} of {job['rounds']}", *([job["phase"]] if job["phase"] else [])]
    return _entry(job["job"], job["status"], stands, job["reason"])


def explain(job: Json, past: Json, happened: Sequence[Json]) -> RenderableType:
    """One round: why it closed, who was in it, who was not and why, and what happened."""
    commit, cut = past["commit"], past["cut"]
    base = f"version {past['base_version']}" if past["base_version"] else "the first model, which it began with"
    facts = [("opened", clock(past["opened_s"])), ("built on", base)]
    if cut:
        agreed = (
            "the same everywhere" if cut["equal"] else f"{cut['dropped']:,} dropped, since sites read them differently"
        )
        facts.append(("cut", f"{cut['rows']:,} rows as of {clock(past['until_ns'] / 1e9)}, {agreed}"))
    if commit:
        head = f"round {past['round']} of {job['job']}: committed as version {commit['version']}"
        facts.append(("committed", f"{clock(commit['committed_s'])}, closed after {commit['seconds']:.1f} s"))
        facts.append(("why it closed", commit["reason"]))
        if commit["gate"]:
            facts.append((f"why {commit['alias']}", commit["gate"]))
        spent = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in commit["phases_s"].items())
        facts.append(("seconds", spent or "not known"))
        facts.append(("bytes", f"{size(commit['bytes_up'])} up, {size(commit['bytes_down'])} down, of all sites"))
        members: RenderableType = _committed_sites(job, commit)
    else:
        head = f"round {past['round']} of {job['job']}: open, {job['phase'] or job['status']}"
        facts.append(("why it is open", job["reason"]))
        members = _open_sites(job)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style=DIM)
    grid.add_column(overflow="fold")
    for name, text in facts:
        grid.add_row(name, Text(text))
    story = [event_line(event) for event in happened] or [Text("nothing is remembered", DIM)]
    return Group(
        Text(head, "bold"),
        Padding(grid, (0, 0, 1, 2), expand=False),
        members,
        title("what happened"),
        *(Padding(line, (0, 0, 0, 2), expand=False) for line in story),
    )


def _committed_sites(job: Json, commit: Json) -> Table:
    table = table_of("site", "in it", ">weight", ">share", ">loss", "*why")
    total = sum(commit["weights"].values())
    staleness = commit.get("staleness", {})
    for site in sorted({*job["sites"], *commit["weights"]}):
        if site not in commit["weights"]:
            row(table, site, "no", "", "", "", commit["absent"].get(site, "not known"))
            continue
        weight = commit["weights"][site]
        late = f"trained for the round {staleness[site]} before" if site in staleness else ""
        if site in commit.get("earlier_cut", ()):
            late = "trained on a cut of this round that could not be read again"
        loss = commit["metrics"].get(site, {}).get("loss")
        row(table, site, "yes", f"{weight:,.10g}", f"{weight / total:.1%}", "" if loss is None else f"{loss:.4f}", late)
    return table


def _open_sites(job: Json) -> RenderableType:
    if not job["standing"]:
        return Text("  it does not run now: no site is asked for anything", DIM)
    table = table_of("site", "stands", "does", ">loss", "*why")
    for site in job["standing"]:
        loss = "" if site["loss"] is None else f"{site['loss']:.4f}"
        row(table, site["site"], site["standing"], site["phase"] or "", loss, site["reason"] or site["note"] or "")
    return table


def event_line(event: Json) -> Text:
    """One event, with its time."""
    return Text.assemble((f"{clock(event['time_s'])}  ", DIM), event["text"])


def controlled(now: Json) -> Text:
    """What a job is after it was paused, resumed or cancelled."""
    return Text.assemble(f"{now['job']} is ", (now["status"], STYLES.get(now["status"], "")), f": {now['reason']}")


class Story:
    """Tells which events are worth a line: of a site's progress only a change of its phase, round or note."""

    def __init__(self) -> None:
        self._stood: dict[str, tuple[str, int, str]] = {}

    def tells(self, event: Json) -> bool:
        if event["kind"] != "site":
            return True
        stands = event["phase"], event["round"], event["note"]
        before, self._stood[event["site"]] = self._stood.get(event["site"]), stands
        return stands != before


def title(text: str) -> Text:
    return Text(f"\n{text}", "bold")


def _measure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _count(number: int | None) -> str:
    return f"{number:,}" if number else ""


def table_of(*columns: str) -> Table:
    """A table; `>` before a column's name: right-aligned; `*`: takes what width is left, and wraps."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        wraps = name.startswith("*")
        table.add_column(
            name.lstrip(">*"),
            justify="right" if name.startswith(">") else "left",
            no_wrap=not wraps,
            overflow="fold",
            min_width=12 if wraps else None,
        )
    return table


def row(table: Table, *cells: str) -> None:
    """Text as it is, never as markup; words of a state in their colour."""
    table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in cells))
