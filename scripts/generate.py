"""Makes what is generated: the gRPC code from the .proto, the references from the configuration and the commands.

`python -m scripts.generate` writes it; with `--check` it writes nothing and exits 1 if anything is stale.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import typer
from grpc_tools import protoc

from coordinator.cli.commands import EXIT_CODES, app
from coordinator.config import CoordinatorConfig, LaunchConfig
from sim.cluster.config import ClusterConfig
from sim.config import SimConfig
from sim.wan.config import WanConfig
from site_agent.config import SiteAgentConfig

ROOT = Path(__file__).parent.parent
PROTO = "geotrain/rpc/coordinator.proto"
REFERENCE = "docs/reference/configuration.md"
COMMANDS = "docs/reference/cli.md"

PROGRAMS = {
    "python -m sim": SimConfig,
    "python -m coordinator.launch": LaunchConfig,
    "python -m coordinator": CoordinatorConfig,
    "python -m site_agent": SiteAgentConfig,
    "python -m sim.cluster": ClusterConfig,
    "python -m sim.wan": WanConfig,
}

INTRODUCTION = """# Configuration

Every field of every program. Made by `make generate` from the dataclasses that validate the configuration: not to be
edited. A field is set on the command line as `name=value` (`python -m site_agent site=ewr site.training.num_workers=2`)
or in a YAML file. `--cfg job` prints the composed configuration, `--info defaults` where it comes from.

"""

COMMANDS_INTRODUCTION = """# The program `geotrain`

What runs, why it waits, and how to pause, resume or cancel it; which model states there are, and where their aliases
point. Made by `make generate` from the commands themselves: not to be edited. Where geotrain is installed it is called
`geotrain`; in a checkout, `.venv/bin/geotrain`. `geotrain COMMAND --help` says the same as this
page. [How to see what runs](../how-to/see-what-runs.md) shows it at work; [the snapshot](snapshot.md) says what the
coordinator's JSON means; that of `models` has the fields of the manifests and heads in the view.

"""


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    with tempfile.TemporaryDirectory() as folder:
        made = dict(_rpc(Path(folder)))
    made[REFERENCE] = reference()
    made[COMMANDS] = commands()
    stale = [name for name, text in made.items() if not _same(ROOT / name, text)]
    if check and stale:
        print(f"stale: {', '.join(stale)}\n  Run `make generate` and commit what it writes.", file=sys.stderr)
        return 1
    for name in stale:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(made[name])
        print(f"wrote {name}")
    return 0


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def _rpc(folder: Path) -> Iterator[tuple[str, str]]:
    """The generated modules' paths and texts."""
    (folder / PROTO).parent.mkdir(parents=True)
    shutil.copy(ROOT / PROTO, folder / PROTO)
    well_known = str(files("grpc_tools") / "_proto")
    flags = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{folder}", f"-I{well_known}", *flags, PROTO]) != 0:
        raise SystemExit(f"{PROTO} does not compile")
    for path in sorted((folder / PROTO).parent.glob("*_pb2*")):
        yield str(path.relative_to(folder)), path.read_text()


def reference() -> str:
    """The reference of all configuration, as Markdown."""
    seen: set[type] = set()
    text = INTRODUCTION
    for command, config in PROGRAMS.items():
        text += f"## `{command}`\n\n{_summary(config)}\n\n"
        for name, nested in [("", config), *_nested(config)]:
            title = f"### {nested.__name__}" + (f" (`{name}`)" if name else "")
            if nested in seen:
                continue
            seen.add(nested)
            text += f"{title}\n\n" + ("" if nested is config else f"{_summary(nested)}\n\n") + _table(nested)
    return text


def commands() -> str:
    """The reference of the program `geotrain`, as Markdown."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    text = COMMANDS_INTRODUCTION + "".join(_command(["geotrain", name], each) for name, each in group.commands.items())
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    return f"{text}## Exit codes\n\n| code | |\n|---|---|\n{codes}\n"


def _command(names: list[str], command: Any) -> str:
    """A command, and those under it."""
    usage = " ".join([*names, *(each.metavar or "" for each in command.params if _is_argument(each))])
    rows = [f"| `{_flag(each)}` | {each.help} |" for each in command.params]
    table = "\n".join(["| | |", "|---|---|", *rows])
    example = (command.epilog or "").removeprefix("Example: ")
    text = f"## `{usage}`\n\n{command.help}\n\n{table}\n\n```\n{example}\n```\n\n"
    return text + "".join(_command([*names, name], each) for name, each in getattr(command, "commands", {}).items())


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _flag(parameter: Any) -> str:
    if _is_argument(parameter):
        return str(parameter.metavar)
    takes = {str: f" {parameter.metavar or 'TEXT'}"}.get(type(parameter.default), "")
    return ", ".join(parameter.opts) + takes


def _nested(config: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Dotted name and class of every configuration inside this one."""
    for name, hint in get_type_hints(config).items():
        for kind in (hint, *get_args(hint)):
            if is_dataclass(kind) and isinstance(kind, type):
                suffix = {dict: ".NAME", list: "[N]"}.get(get_origin(hint), "")
                yield f"{prefix}{name}{suffix}", kind
                yield from _nested(kind, f"{prefix}{name}{suffix}.")


def _summary(config: type) -> str:
    return (config.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")


def _table(config: type) -> str:
    described = descriptions(config)
    types = {name: _kind(hint) for name, hint in get_type_hints(config).items()}
    rows = [
        f"| `{field.name}` | {types[field.name]} | {_default(field)} | {described[field.name]} |"
        for field in fields(config)
    ]
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows]) + "\n\n"


def descriptions(config: type) -> dict[str, str]:
    """What the docstrings of a dataclass and its bases say of each field. Raises SystemExit for one without a line."""
    found: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        for line in re.sub(r"\n {6,}", " ", kind.__doc__ or "").splitlines():
            name, colon, text = line.strip().partition(": ")
            if colon and name.isidentifier():
                found[name] = text
    missing = [field.name for field in fields(config) if field.name not in found]
    if missing:
        raise SystemExit(f"{config.__name__}: no line in the docstring for {', '.join(missing)}")
    return {name: text.replace("|", "\\|") for name, text in found.items()}


def _kind(hint: Any) -> str:
    plain = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return re.sub(r"[a-z_]+\.(?:[a-z_]+\.)*", "", plain).replace("|", "or")


def _default(field: Field[Any]) -> str:
    if field.default_factory is not NO_DEFAULT:
        value = field.default_factory()
        return "" if is_dataclass(value) else f"`{value}`"
    if field.default is NO_DEFAULT or field.default == "???":
        return "required"
    return f"`{field.default}`"


if __name__ == "__main__":
    sys.exit(main())
