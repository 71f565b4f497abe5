"""States as .safetensors files: what any other program reads, with the lineage in the file's own metadata.

A file holds what scores; what only those need who train on from there stays in the view. Knows no alias's meaning.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from geotrain.errors import ConfigError, DataError
from geotrain.states.aliases import whoami
from geotrain.states.heads import move_alias
from geotrain.states.lookup import State
from geotrain.states.manifest import Manifest, check_names, reference
from geotrain.states.publish import Published, write_state
from geotrain.states.rows import TABLE
from geotrain.view.connect import View

PREFIX = "geotrain."
OF_A_MANIFEST = ("model", "scope", "version", "lineage", "metadata", "created_s")


def export_state(state: State, path: Path) -> None:
    """Writes the state to the file, whole or not at all. Raises DataError for a table, or where that can't be."""
    if TABLE in state.manifest.metadata:
        raise DataError(
            f"{state.manifest.reference} is a table, whose rows are no tensors", "look its rows up, and write those"
        )
    seen: set[int] = set()
    tensors = {}
    for name, tensor in state.tensors.items():  # those that share their memory are copied: the format can't say it
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    noted = {f"{PREFIX}{name}": json.dumps(getattr(state.manifest, name)) for name in OF_A_MANIFEST}
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
            written = Path(folder, path.name)
            save_file(tensors, written, {"format": "pt"} | noted)
            written.chmod(0o644)
            os.replace(written, path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} can't be written: {error}", "name a file in a folder that can be written to") from None


def import_state(
    view: View, path: Path, *, model: str = "", scope: str = "", alias: str = "candidate", who: str = "", why: str = ""
) -> Published:
    """Publishes what a file holds as the next version, and points the alias to it: its lineage goes on from the file's.

    model, scope: where it goes; empty: where the file says that it was. Raises DataError where the file is none,
    ConfigError where neither says where to.
    """
    try:
        with safe_open(path, framework="pt") as file:
            manifest = _noted(path, file.metadata() or {})
            model, scope = model or manifest.get("model", ""), scope or manifest.get("scope", "global")
            if not model:
                raise ConfigError(f"{path} does not say of which model it is", "name the model that it is imported as")
            check_names(model, scope, alias)
            written = write_state(
                view,
                model=model,
                scope=scope,
                tensors=_tensors(file),
                lineage=manifest.get("lineage", {}) | {"imported": _origin(path, manifest, who)},
                metadata=manifest.get("metadata", {}),
            )
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path} is no safetensors file that can be read: {error}", "name one that `geotrain models export` wrote"
        ) from None
    who, why = who or whoami(), why or f"from {path.name}"
    move_alias(view, model, scope, written.version, alias=alias, who=who, why=why, seen=written.head)
    return written


def _tensors(file: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name in file.keys():  # noqa: SIM118 - it is no mapping
        yield name, file.get_tensor(name)


def _noted(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """What an export noted of the manifest; nothing in a file of another program."""
    try:
        noted = {
            name: json.loads(metadata[f"{PREFIX}{name}"]) for name in OF_A_MANIFEST if f"{PREFIX}{name}" in metadata
        }
        if noted:
            Manifest(tensors={}, **noted)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} has damaged metadata: {error}", "export it again") from None
    return noted


def _origin(path: Path, noted: dict[str, Any], who: str) -> dict[str, Any]:
    was = reference(noted["model"], noted["scope"], noted["version"]) if noted else ""
    return {"reference": was, "file": path.name, "who": who or whoami(), "at_s": time.time()}
