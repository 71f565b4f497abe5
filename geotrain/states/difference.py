"""What changed between two model states: tensors, metrics, data. Pure: knows no store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geotrain.states.manifest import Manifest, TensorEntry

Values = Mapping[str, Any]
Changes = Mapping[str, tuple[Any, Any]]  # name -> before and after; None: not there


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorChange:
    """A tensor that is not the same. before, after: type and shape; None: it is not there.

    num_parts, num_parts_changed: of the parts that it has now, and those among them that it had not before.
    """

    before: str | None
    after: str | None
    num_parts: int
    num_parts_changed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """before, after: references. num_same: tensors that are equal.

    metrics: by site and metric. data: of the cut, fingerprints by set. lineage: all else of it. metadata: whose text is
    not the same.
    """

    before: str
    after: str
    num_same: int
    tensors: Mapping[str, TensorChange]
    metrics: Changes
    data: Changes
    lineage: Changes
    metadata: tuple[str, ...]


def difference(before: Manifest, after: Manifest) -> Difference:
    """Returns what changed from one state to another."""
    names = sorted(before.tensors.keys() | after.tensors.keys())
    both = {name: (before.tensors.get(name), after.tensors.get(name)) for name in names}
    tensors = {name: _tensor(old, new) for name, (old, new) in both.items() if old != new}
    parts = ("metrics", "cut")
    return Difference(
        before=before.reference,
        after=after.reference,
        num_same=len(names) - len(tensors),
        tensors=tensors,
        metrics=changes(flat(before.lineage.get("metrics", {})), flat(after.lineage.get("metrics", {}))),
        data=changes(before.lineage.get("cut", {}), after.lineage.get("cut", {})),
        lineage=changes(*(flat({k: v for k, v in of.lineage.items() if k not in parts}) for of in (before, after))),
        metadata=tuple(changes(before.metadata, after.metadata)),
    )


def changes(before: Values, after: Values) -> Changes:
    """Returns what is not the same, by name."""
    both = {name: (before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())}
    return {name: values for name, values in both.items() if values[0] != values[1]}


def flat(values: Values, prefix: str = "") -> dict[str, Any]:
    """Returns nested values by their path: `ewr/loss`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def described(entry: TensorEntry | None) -> str | None:
    """Returns a tensor's type and shape: `F32 (3, 4)`."""
    return None if entry is None else f"{entry.dtype} {list(entry.shape)}"


def _tensor(old: TensorEntry | None, new: TensorEntry | None) -> TensorChange:
    had = set(old.parts) if old else set()
    parts = new.parts if new else ()
    return TensorChange(
        before=described(old),
        after=described(new),
        num_parts=len(parts),
        num_parts_changed=sum(part not in had for part in parts),
    )
