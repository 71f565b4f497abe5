"""The commands `geotrain models ...`: each reads the view itself, or moves an alias there, and prints what it says."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from omegaconf import OmegaConf

from coordinator.cli.output import print_either
from geotrain.errors import ConfigError
from geotrain.program import to_config
from geotrain.view.config import ViewConfig

if TYPE_CHECKING:
    from geotrain.states.aliases import Head
    from geotrain.view.connect import View

app = typer.Typer(
    name="models",
    help="Show the model states in the view, and move their aliases.",
    invoke_without_command=True,
    add_completion=False,
)

ViewOption = Annotated[
    str,
    typer.Option(
        "--view",
        metavar="HOST:PORT",
        envvar="GEOTRAIN_VIEW",
        help="A node of the cluster, or several with commas between them; or a YAML file of the view's fields, such as "
        "namespace, rack, tls and user (docs/reference/configuration.md, ViewConfig).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reference = Annotated[
    str,
    typer.Argument(
        metavar="STATE",
        help="MODEL[/SCOPE][@VERSION], as flights, flights@7 or flights/site/ewr@candidate; by default the global "
        "scope and what production points to.",
    ),
]
Alias = Annotated[str, typer.Option(help="The alias that is moved.")]
Why = Annotated[str, typer.Option("--reason", help="What the state's card tells of it, beside who it was.")]

DEFAULT = "127.0.0.1:3000"


@contextmanager
def _opened(given: str) -> Iterator["View"]:
    from geotrain.view.connect import connect

    config = OmegaConf.structured(ViewConfig)
    if given.endswith((".yaml", ".yml")):
        try:
            config = OmegaConf.merge(config, OmegaConf.load(given))
        except OSError as error:
            raise ConfigError(
                f"--view: {given} can't be read: {error.strerror}", "name a YAML file, or HOST:PORT"
            ) from None
        except Exception as error:  # noqa: BLE001 - the parser's and OmegaConf's have no common kind
            raise ConfigError(f"--view: {given}: {str(error).splitlines()[0]}", "mend that file") from None
    else:
        config.hosts = [each.strip() for each in given.split(",") if each.strip()]
    with connect(to_config(config)) as view:
        yield view


def _remove_rows(view: "View") -> None:
    """Of every table that has a version."""
    from geotrain.states.manifest import MANIFESTS, Manifest
    from geotrain.states.rows import TABLE
    from geotrain.states.tables import remove_unused_rows
    from geotrain.view.query import read_set

    manifests = (Manifest.from_bytes(row["manifest"]) for row in read_set(view, MANIFESTS, ["manifest"]))
    for name in sorted({manifest.model for manifest in manifests if TABLE in manifest.metadata}):
        remove_unused_rows(view, name)


def _split(text: str) -> tuple[str, str, str]:
    """Model, scope, and version or alias."""
    scope, _, wanted = text.partition("@")
    model, _, scope = scope.partition("/")
    return model, scope or "global", wanted or "production"


def _found(view: "View", text: str) -> tuple["Head", int]:
    from geotrain.states.aliases import read_head, version_of

    model, scope, wanted = _split(text)
    head = read_head(view, model, scope)
    return head, version_of(head, wanted)


@app.callback(epilog="Example: geotrain models --view eu.example:3000")
def models(context: typer.Context, view: ViewOption = DEFAULT, as_json: AsJson = False) -> None:
    """Every model and scope in the view, its newest version, and where its aliases point."""
    if context.invoked_subcommand is not None:
        return
    from coordinator.cli import cards
    from geotrain.states.aliases import heads

    with _opened(view) as opened:
        found = heads(opened)
    print_either([asdict(head) for head in found], cards.heads(found), as_json)


@app.command(epilog="Example: geotrain models show flights/site/ewr@3")
def show(state: Reference, view: ViewOption = DEFAULT, as_json: AsJson = False) -> None:
    """One state: who made it of which data, with whose updates, what it measured, what it holds, who moved aliases."""
    from coordinator.cli import cards
    from geotrain.states.aliases import read_manifest

    with _opened(view) as opened:
        head, version = _found(opened, state)
        manifest = read_manifest(opened, head.model, head.scope, version)
    seen = json.loads(manifest.to_bytes()) | {"head": asdict(head)}
    print_either(seen, cards.card(manifest, head), as_json)


@app.command(epilog="Example: geotrain models promote flights@candidate --reason 'better at jfk'")
def promote(
    state: Reference, alias: Alias = "production", reason: Why = "", view: ViewOption = DEFAULT, as_json: AsJson = False
) -> None:
    """Point an alias forward to a state. Every reader in every region has it with its next look."""
    from coordinator.cli import cards
    from geotrain.states import aliases

    with _opened(view) as opened:
        head, version = _found(opened, state)
        move = aliases.promote(opened, head.model, head.scope, version, alias=alias, why=reason)
    print_either(asdict(move), cards.moved(move, f"{head.model}/{head.scope}@{move.now}"), as_json)


@app.command(epilog="Example: geotrain models rollback flights --reason 'lost calls in Newark'")
def rollback(
    state: Annotated[
        str,
        typer.Argument(metavar="STATE", help="MODEL[/SCOPE][@VERSION]; without a version, where it pointed before."),
    ],
    alias: Alias = "production",
    reason: Why = "",
    view: ViewOption = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Point an alias back. Publishers move it on only with newer states than any that it ever pointed to."""
    from coordinator.cli import cards
    from geotrain.states import aliases

    model, scope, _ = _split(state)
    with _opened(view) as opened:
        version = _found(opened, state)[1] if "@" in state else None
        move = aliases.rollback(opened, model, scope, version, alias=alias, why=reason)
    print_either(asdict(move), cards.moved(move, f"{model}/{scope}@{move.now}"), as_json)


@app.command(epilog="Example: geotrain models pin flights@7 --reason 'what the audit is about'")
def pin(state: Reference, reason: Why = "", view: ViewOption = DEFAULT, as_json: AsJson = False) -> None:
    """Keep a state from being removed, whatever aliases do."""
    from geotrain.states import aliases

    with _opened(view) as opened:
        head, version = _found(opened, state)
        aliases.pin(opened, head.model, head.scope, version, why=reason)
    done = f"{head.model}/{head.scope}@{version} is pinned"
    print_either({"pinned": version}, done, as_json)


@app.command(epilog="Example: geotrain models unpin flights@7")
def unpin(state: Reference, view: ViewOption = DEFAULT, as_json: AsJson = False) -> None:
    """Let go of a state that was pinned."""
    from geotrain.states import aliases

    with _opened(view) as opened:
        head, version = _found(opened, state)
        aliases.unpin(opened, head.model, head.scope, version)
    print_either({"unpinned": version}, f"{head.model}/{head.scope}@{version} is not pinned any more", as_json)


@app.command(epilog="Example: geotrain models diff flights@6 flights@7")
def diff(before: Reference, after: Reference, view: ViewOption = DEFAULT, as_json: AsJson = False) -> None:
    """What changed from one state to another: metrics, data, lineage, tensors."""
    from coordinator.cli import cards
    from geotrain.states.aliases import read_manifest
    from geotrain.states.difference import difference

    with _opened(view) as opened:
        found = [_found(opened, state) for state in (before, after)]
        both = [read_manifest(opened, head.model, head.scope, version) for head, version in found]
    changed = difference(*both)
    print_either(asdict(changed), cards.difference(changed), as_json)


@app.command("export", epilog="Example: geotrain models export flights flights.safetensors")
def export_(
    state: Reference,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; a file that is there is replaced.")],
    view: ViewOption = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write a state to a .safetensors file, its lineage in the file's metadata."""
    from geotrain.states.files import export_state
    from geotrain.states.lookup import ModelLookup

    with _opened(view) as opened:
        head, version = _found(opened, state)
        found = ModelLookup(opened, head.model, head.scope).at(version)
    export_state(found, path)
    name = found.manifest.reference
    print_either({"state": name, "file": str(path)}, f"{name} is written to {path}", as_json)


@app.command("import", epilog="Example: geotrain models import flights.safetensors --to flights --alias candidate")
def import_(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file, of an export or any program.")],
    to: Annotated[
        str, typer.Option(metavar="MODEL", help="MODEL[/SCOPE] to publish it as; by default what it was exported from.")
    ] = "",
    alias: Alias = "candidate",
    reason: Why = "",
    view: ViewOption = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Publish a .safetensors file as the next version, and point an alias to it."""
    from geotrain.states.files import import_state

    model, scope, _ = _split(to) if to else ("", "", "")
    with _opened(view) as opened:
        published = import_state(opened, path, model=model, scope=scope, alias=alias, why=reason)
    print_either(asdict(published), f"{path} is {published.reference} now, and its {alias}", as_json)


@app.command(epilog="Example: geotrain models gc --dry-run")
def gc(
    keep: Annotated[int, typer.Option(min=1, help="Of each scope, so many of its newest versions are kept.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    view: ViewOption = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Remove what no alias, no pin and no rule of retention needs, beside publishers and readers that go on.

    What is given up now goes when readers had an hour: call it again then, as from a timer. Rows of tables that no
    version needs are removed by the server, in its own time.
    """
    from coordinator.cli import cards
    from geotrain.states.collect import collect

    with _opened(view) as opened:
        found = collect(opened, num_newest=keep, dry_run=dry_run)
        if not dry_run:
            _remove_rows(opened)
    print_either(asdict(found), cards.collection(found, dry_run=dry_run), as_json)
