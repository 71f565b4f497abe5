"""What a model state is made of, and how it is named. Pure: knows no store, and no tensor library.

A state is a manifest over tensors; a tensor is a list of parts, each a record named by the hash of its bytes. Equal
parts are one record, whatever state they are in.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any

from blake3 import blake3

from geotrain.errors import ConfigError, DataError, ViewError

FORMAT = 2

# Sets of the view.
TENSORS = "gt_tensors"
MANIFESTS = "gt_manifests"
ALIASES = "gt_aliases"

# So long nothing is removed that was written last, and whoever reads a version that was given up may go on with it.
GRACE_S = 3600.0

Bytes = bytes | memoryview

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_SCOPE = re.compile(rf"{_NAME.pattern}(/{_NAME.pattern})*")


class UnknownState(ViewError):
    """No such model, scope, alias or version in the view."""

    exit_code = 4


class DamagedManifest(ViewError):
    """Bytes that are no manifest."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor of a state: its content, exactly. Equal entries are equal tensors.

    dtype: as safetensors writes it (`F32`). parts: BLAKE3, in hex, of each part of its little-endian bytes, in order.
    """

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """A type's word says its bits, but for BOOL."""
        return prod(self.shape) * int(self.dtype.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") or 8) // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A model state: what it is called, what it holds and where it comes from. Immutable once published.

    lineage: the job, round, cut, sites and weights that made it. metadata: what a reader needs beside the tensors.
    resume: tensors that only those need who train on from here, such as an optimizer's. created_s: Unix epoch.
    """

    model: str
    scope: str
    version: int
    tensors: Mapping[str, TensorEntry]
    lineage: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    resume: Mapping[str, TensorEntry] = field(default_factory=dict)
    created_s: float

    @property
    def reference(self) -> str:
        """`flights/site/ewr@3`"""
        return reference(self.model, self.scope, self.version)

    @property
    def parts(self) -> set[str]:
        """All that it names."""
        return {part for entries in (self.tensors, self.resume) for entry in entries.values() for part in entry.parts}

    def to_bytes(self) -> bytes:
        return json.dumps({"format": FORMAT} | asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes, key: str = "") -> "Manifest":
        """Raises DamagedManifest, or ViewError for one of another format. key: of the record that it is in."""
        try:
            fields = json.loads(data)
            if (found := fields.pop("format")) != FORMAT:
                raise ViewError(
                    f"a manifest has format {found}, this version of geotrain reads {FORMAT}",
                    "upgrade geotrain here" if found > FORMAT else "publish that state again",
                )
            return cls(tensors=_entries(fields.pop("tensors")), resume=_entries(fields.pop("resume", {})), **fields)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            what = f"record {MANIFESTS}/{key}" if key else f"a record of {MANIFESTS}"
            raise DamagedManifest(f"{what} is damaged: {error}", "remove it, and publish that state again") from error

    def same_but_for_its_time(self, other: "Manifest") -> bool:
        """Whether both say the same, as JSON says it."""
        both = (self, replace(other, created_s=self.created_s))
        mine, theirs = (json.dumps(asdict(manifest), sort_keys=True) for manifest in both)
        return mine == theirs


def _entries(listed: Mapping[str, Any]) -> dict[str, TensorEntry]:
    return {
        name: TensorEntry(entry["dtype"], tuple(entry["shape"]), tuple(entry["parts"]))
        for name, entry in listed.items()
    }


def part_name(part: Bytes) -> str:
    """Returns the key of the record that holds the part."""
    return blake3(part).hexdigest()


def reference(model: str, scope: str, version: int) -> str:
    return f"{model}/{scope}@{version}"


def head_key(model: str, scope: str) -> str:
    """Returns the key of the one record of a scope that moves: its newest version, and where its aliases point."""
    return f"{model}/{scope}"


def check_names(model: str, scope: str, alias: str) -> None:
    """Raises ConfigError for a name that can't be part of a key."""
    for field_name, name, pattern in (("model", model, _NAME), ("scope", scope, _SCOPE), ("alias", alias, _NAME)):
        if not pattern.fullmatch(name):
            raise ConfigError(
                f"{field_name} {name!r} is not a name for model states",
                "use up to 63 lower-case letters, digits, '_', '-' and '.', beginning with a letter or digit"
                + ("; levels of a scope are separated by '/'" if pattern is _SCOPE else ""),
            )


def check_noted(lineage: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Raises DataError for what no manifest can hold beside its tensors."""
    for name, text in metadata.items():
        if not isinstance(text, str):
            raise DataError(f"metadata {name} is {text!r}, and no text", "publish it as text, such as JSON")
    try:
        json.dumps(lineage)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the lineage can't be kept as JSON: {error}", "make it of texts, numbers, lists and dicts"
        ) from None
