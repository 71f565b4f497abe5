"""Model states as tables and cards for a terminal of any width. Pure: asks no one, prints nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coordinator.cli.show import DIM, table_of, title
from coordinator.cli.show import row as add_row
from coordinator.cli.words import clock, size
from geotrain.states.aliases import Head, Move
from geotrain.states.collect import Collection
from geotrain.states.difference import Difference, described
from geotrain.states.manifest import Manifest

MAX_TENSORS = 12  # of a card; all of them are in its JSON
SHORT = 12  # digits of a hash
OWN_LINES = ("job", "round", "cut", "weights", "metrics", "imported")  # of a lineage: told in words of their own


def heads(found: Sequence[Head]) -> RenderableType:
    """Every scope, and where its aliases point."""
    if not found:
        return Text("  no model state yet: a job publishes them, or `geotrain models import`", DIM)
    table = table_of("model", "scope", ">newest", ">kept", "*aliases", "*pinned")
    for head in found:
        aliases = ", ".join(f"{alias} {version}" for alias, version in sorted(head.aliases.items()))
        pins = ", ".join(map(str, sorted(head.pins)))
        add_row(table, head.model, head.scope, str(head.newest), str(len(head.versions)), aliases, pins)
    return table


def card(manifest: Manifest, head: Head) -> RenderableType:
    """A state: what it is called, what it was made of, what it measured, what it holds, and who moved its aliases."""
    version = manifest.version
    named = [alias for alias, at in sorted(head.aliases.items()) if at == version]
    facts = [("published", clock(manifest.created_s)), ("made by", _maker(manifest.lineage))]
    facts += [("data", line) for line in _data(manifest.lineage.get("cut", {}))]
    facts += [(name, str(value)) for name, value in manifest.lineage.items() if name not in OWN_LINES]
    if version in head.pins:
        pinned = head.pins[version]
        facts.append(("pinned by", f"{pinned['who']}, {clock(pinned['at_s'])}: {pinned['why'] or 'no reason given'}"))
    moves = [note for note in head.history if version in (note["from"], note["to"])]
    return Group(
        Text.assemble((manifest.reference, "bold"), f"  {', '.join(named) or 'no alias points to it'}"),
        Padding(_grid(facts), (0, 0, 0, 2), expand=False),
        title("sites"),
        _sites(manifest.lineage),
        title("tensors"),
        _tensors(manifest),
        title("aliases that came here, or went"),
        *(Padding(line, (0, 0, 0, 2), expand=False) for line in map(_note, moves)),
        *([] if moves else [Text("  none that is remembered", DIM)]),
    )


def _maker(lineage: Mapping[str, Any]) -> str:
    made = f"job {lineage['job']}" if lineage.get("job") else "no job"
    made += f", round {lineage['round']}" if "round" in lineage else ""
    if origin := lineage.get("imported"):
        made += f"; imported from {origin['file']} by {origin['who']}, {clock(origin['at_s'])}"
        made += f", where it was {origin['reference']}" if origin["reference"] else ""
    return made


def _data(cut: Mapping[str, str]) -> list[str]:
    if not cut:
        return ["not known"]
    counts = {name: cut[name] for name in ("rows", "dropped", "until_ns") if name in cut}
    lines = []
    if "rows" in counts:
        lines.append(f"{int(counts['rows']):,} rows, {counts.get('dropped', '0')} dropped where sites differed")
    if "until_ns" in counts:
        lines.append(f"a cut at {clock(int(counts['until_ns']) / 1e9)}")
    short = ((name, text if " " in text else text[:SHORT]) for name, text in cut.items() if name not in counts)
    return lines + [f"{name}: {text}" for name, text in short]


def _sites(lineage: Mapping[str, Any]) -> RenderableType:
    weights, metrics = lineage.get("weights", {}), lineage.get("metrics", {})
    if not any(isinstance(of, Mapping) for of in metrics.values()):  # a site's own state
        return Text("  " + (", ".join(f"{name} {_value(of)}" for name, of in metrics.items()) or "not known"))
    names = sorted({name for of in metrics.values() for name in of})
    table = table_of("site", ">weight", ">share", *(f">{name}" for name in names))
    total = sum(weights.values()) or 1
    for site in sorted({*weights, *metrics}):
        weight = weights.get(site, 0)
        measured = (_value(metrics.get(site, {}).get(name)) for name in names)
        add_row(table, site, f"{weight:,.10g}", f"{weight / total:.1%}", *measured)
    return table


def _tensors(manifest: Manifest) -> RenderableType:
    entries = sorted(manifest.tensors.items(), key=lambda item: -item[1].num_bytes)
    table = table_of("name", "type and shape", ">size", ">parts")
    for name, entry in entries[:MAX_TENSORS]:
        add_row(table, name, described(entry) or "", size(entry.num_bytes), str(len(entry.parts)))
    total = sum(entry.num_bytes for _, entry in entries)
    more = f", of which the {MAX_TENSORS} largest are shown" if len(entries) > MAX_TENSORS else ""
    resume = f"; {len(manifest.resume)} more to train on from here" if manifest.resume else ""
    return Group(table, Text(f"  {len(entries)} tensors, {size(total)}{more}{resume}", DIM))


def _note(note: Mapping[str, Any]) -> Text:
    way = f"{note['alias']} {note['from'] or 'nothing'} -> {note['to']}"
    why = ": ".join(filter(None, (note["who"], note["why"])))
    return Text.assemble((f"{clock(note['at_s'])}  ", DIM), way, f"  {why}" if why else "")


def moved(move: Move, reference: str) -> Text:
    """Where an alias points now."""
    if move.before == move.now:
        return Text(f"{move.alias} points to {reference}, as before")
    return Text(f"{move.alias} points to {reference} now, to {move.before or 'nothing'} before")


def difference(found: Difference) -> RenderableType:
    """What changed between two states."""
    parts: list[RenderableType] = [Text(f"{found.before} -> {found.after}", "bold")]
    for name, changes in (("metrics", found.metrics), ("data", found.data), ("lineage", found.lineage)):
        parts += [title(name), _changes(changes)]
    if found.metadata:
        parts += [title("metadata"), Text(f"  changed: {', '.join(found.metadata)}")]
    parts += [title("tensors"), _changed_tensors(found)]
    return Group(*parts)


def _changed_tensors(found: Difference) -> RenderableType:
    same = Text(f"  {found.num_same} are the same", DIM)
    if not found.tensors:
        return same
    table = table_of("name", "before", "after", ">parts that are new")
    for name, change in list(found.tensors.items())[:MAX_TENSORS]:
        new = f"{change.num_parts_changed} of {change.num_parts}"
        add_row(table, name, change.before or "none", change.after or "none", new)
    more = len(found.tensors) - MAX_TENSORS
    return Group(table, Text(f"  {more} more changed", DIM) if more > 0 else Text(""), same)


def _changes(changes: Mapping[str, tuple[Any, Any]]) -> RenderableType:
    if not changes:
        return Text("  the same", DIM)
    table = table_of("what", ">before", ">after", ">by")
    for name, (before, after) in changes.items():
        both_numbers = isinstance(before, float) and isinstance(after, float)
        by = f"{after - before:+.4g}" if both_numbers else ""
        add_row(table, name, _value(before), _value(after), by)
    return table


def collection(found: Collection, *, dry_run: bool) -> RenderableType:
    """What is kept and why, and what went."""
    table = table_of("kept", "*why")
    for name, why in found.kept.items():
        add_row(table, name, "; ".join(why))
    would = "would be " if dry_run else ""
    lines = [
        ("given up now, for readers that may still need it", found.retired),
        ("given up before, within its readers' grace", found.waiting),
        (f"{would}removed", found.removed),
        ("needed, and not there", found.missing),
    ]
    told = [(text, ", ".join(names)) for text, names in lines if names]
    told.append(
        (f"parts {would}removed", f"{found.num_parts_removed:,}; {found.num_parts_kept:,} are named by a state")
    )
    if not found.is_complete:
        told.append(("not at its end", "call it again"))
    return Group(table, _grid(told))


def _grid(facts: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style=DIM)
    grid.add_column(overflow="fold")
    for name, text in facts:
        grid.add_row(name, Text(text))
    return grid


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    text = "none" if value is None else str(value)
    return text[:SHORT] if len(text) == 64 else text
