"""The rules that a task's fields keep among each other, each broken rule a ValueError that names the field. Pure."""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geotrain.tasks.config import JoinStep, TaskConfig

COLUMN_TYPES = ("int64", "float64", "string", "bool", "timestamp")
KEY_TYPES = ("int64", "string")
FORMATS = ("auto", "parquet", "csv", "json", "delta", "iceberg")
JOIN_KINDS = ("equi", "latest", "window")
AGGREGATES = ("count", "sum", "mean", "min", "max")
PLANS = ("auto", "co_partitioned", "lookup", "broadcast", "shuffle")
LINEAGE = ("until_ns", "rows", "dropped")  # what a state's lineage says beside the fingerprint of each set
TRANSFORMS = ("none", "signed_log")
NUMBERS = ("int64", "float64", "bool")
# The types that each kind of feature can be made of.
FEATURE_KINDS = {"numeric": NUMBERS, "categorical": ("int64", "string", "bool")}


def check(task: "TaskConfig") -> None:
    """Raise a ValueError that names the first field that is not as it must be."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,62}", task.name):
        raise ValueError(f"task.name: must be lower-case letters, digits, _, - and ., at most 63, got {task.name!r}")
    _check_sources(task)
    own = task.local[task.rows.dataset].columns
    _check_column("task.rows.time", task.rows.time, own, ("timestamp",))
    _check_column("task.label.column", task.label.column, own, NUMBERS)
    try:
        datetime.fromisoformat(task.split.test_from)
    except ValueError as error:
        raise ValueError(f"task.split.test_from: {error}") from error
    _check_features(task, _joined_types(task))
    _check_budget(task)


def _check_sources(task: "TaskConfig") -> None:
    for name, dataset in task.local.items():
        if PurePath(dataset.path).is_absolute() or ".." in PurePath(dataset.path).parts:
            raise ValueError(f"task.local.{name}.path: {dataset.path!r} leaves the site's data folder")
        if not PurePath(dataset.path).parts:
            raise ValueError(
                f"task.local.{name}.path: {dataset.path!r} names no file or folder in the site's data folder"
            )
        _check_types(f"task.local.{name}.columns", dataset.columns)
        _check_choice(f"task.local.{name}.format", dataset.format, FORMATS)
    for name, view_set in task.view.items():
        _check_types(f"task.view.{name}.columns", view_set.columns)
        if view_set.key is not None:
            _check_column(f"task.view.{name}.key", view_set.key, view_set.columns, KEY_TYPES)
        if name in task.local:
            raise ValueError(f"task.view.{name}: is also the name of a local dataset")
        if name in LINEAGE:
            raise ValueError(
                f"task.view.{name}: a set can't be called {name}: the lineage of model states has a field of that name"
            )
    _check_choice("task.rows.dataset", task.rows.dataset, task.local)


def _joined_types(task: "TaskConfig") -> dict[str, str]:
    """Check the join step by step, and return the joined rows' columns with their types."""
    types = dict(task.local[task.rows.dataset].columns)
    _check_names(f"task.local.{task.rows.dataset}.columns", types)
    sources = {name: dataset.columns for name, dataset in task.local.items()}
    sources |= {name: view_set.columns for name, view_set in task.view.items()}
    for i, step in enumerate(task.join):
        at = f"task.join[{i}]"
        _check_choice(f"{at}.source", step.source, sources)
        _check_step(at, step, types, sources[step.source])
        _check_plan(at, step, task)
        _check_names(f"{at}.columns", step.new_columns())
        for new in step.new_columns():
            if new in types:
                raise ValueError(f"{at}.columns: the rows have a column {new!r} already")
            types[new] = _new_type(step, new, sources[step.source])
    return types


def _check_step(at: str, step: "JoinStep", rows: Mapping[str, str], source: Mapping[str, str]) -> None:
    _check_choice(f"{at}.kind", step.kind, JOIN_KINDS)
    if not step.new_columns():
        raise ValueError(f"{at}.columns: the step adds no column")
    for column in step.columns.values():
        _check_column(f"{at}.columns", column, source, NUMBERS if step.kind == "window" else COLUMN_TYPES)
    for ours, theirs in step.by.items():
        _check_column(f"{at}.by", ours, rows, COLUMN_TYPES)
        _check_column(f"{at}.by", theirs, source, (rows[ours],))
    if step.kind == "equi" and not step.by:
        raise ValueError(f"{at}.by: an equi step needs a key")
    for name, value, needed, kinds in (
        ("known_at", step.known_at, ("latest", "window"), ("latest", "window")),
        ("within_s", step.within_s, ("window",), ("latest", "window")),
        ("aggregate", step.aggregate, ("window",), ("window",)),
        ("age_s", step.age_s, (), ("latest",)),
    ):
        if value is None and step.kind in needed:
            raise ValueError(f"{at}.{name}: a {step.kind} step needs it")
        if value is not None and step.kind not in kinds:
            raise ValueError(f"{at}.{name}: for {' and '.join(kinds)} steps only")
    if step.known_at is not None:
        _check_column(f"{at}.known_at", step.known_at, source, ("timestamp",))
    if step.within_s is not None and step.within_s <= 0:
        raise ValueError(f"{at}.within_s: must be more than 0 seconds, got {step.within_s}")
    if step.aggregate is not None:
        _check_choice(f"{at}.aggregate", step.aggregate, AGGREGATES)
    _check_choice(f"{at}.how", step.how, ("left", "inner"))


def _check_plan(at: str, step: "JoinStep", task: "TaskConfig") -> None:
    _check_choice(f"{at}.plan", step.plan, PLANS)
    if step.plan in ("co_partitioned", "lookup") and task.key_column(step) is None:
        raise ValueError(
            f"{at}.plan: {step.plan} needs a set of the view with a `key`, and `by` with a column of "
            f"{task.rows.dataset} for that key"
        )
    if step.plan == "lookup" and any(other.source == step.source and other.plan != "lookup" for other in task.join):
        raise ValueError(f"{at}.plan: another step reads {step.source} whole; look it up in all steps or in none")
    if step.plan == "shuffle" and not step.by:
        raise ValueError(f"{at}.plan: a shuffle needs keys in `by`")


def _new_type(step: "JoinStep", new: str, source: Mapping[str, str]) -> str:
    if step.aggregate == "count":
        return "int64"
    return "float64" if step.aggregate or new == step.age_s else source[step.columns[new]]


def _check_features(task: "TaskConfig", types: Mapping[str, str]) -> None:
    if not task.features:
        raise ValueError("task.features: there are none")
    for name, feature in task.features.items():
        _check_choice(f"task.features.{name}.kind", feature.kind, FEATURE_KINDS)
        _check_choice(f"task.features.{name}.transform", feature.transform, TRANSFORMS)
        _check_column(f"task.features.{name}", name, types, FEATURE_KINDS[feature.kind])
        _check_at_least(f"task.features.{name}.min_count", feature.min_count, 1)
        if name == task.label.column:
            raise ValueError(f"task.features.{name}: is the label's column; the model would see what it has to predict")


def _check_budget(task: "TaskConfig") -> None:
    for name, config in (("training", task.training), ("localize", task.localize)):
        _check_at_least(f"task.{name}.epochs", config.epochs, 1)
        _check_at_least(f"task.{name}.batch_size", config.batch_size, 1)
        if config.max_grad_norm <= 0:
            raise ValueError(f"task.{name}.max_grad_norm: must be more than 0, got {config.max_grad_norm}")
        if not config.parameters:
            raise ValueError(f'task.{name}.parameters: there are none; ["*"] trains all')


def _check_types(field: str, types: Mapping[str, str]) -> None:
    for column, type_ in types.items():
        _check_choice(f"{field}.{column}", type_, COLUMN_TYPES)


def _check_names(field: str, names: Iterable[str]) -> None:
    for name in names:
        if name.startswith("__"):
            raise ValueError(f"{field}: {name!r} starts with __, as only the join's own columns do")


def _check_column(field: str, column: str, types: Mapping[str, str], allowed: Collection[str]) -> None:
    if column not in types:
        raise ValueError(f"{field}: there is no column {column!r}, only {', '.join(sorted(types))}")
    if types[column] not in allowed:
        raise ValueError(f"{field}: {column!r} is {types[column]}, must be {' or '.join(allowed)}")


def _check_choice(field: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(f"{field}: {value!r} is none of {', '.join(choices)}")


def _check_at_least(field: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{field}: must be at least {least}, got {value}")
