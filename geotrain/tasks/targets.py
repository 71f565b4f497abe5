"""Makes the objects that a task names by `_target_`, if an allow-list has them. Knows nothing of their use."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import hydra.utils
from hydra.errors import InstantiationException

from geotrain.errors import ConfigError

if TYPE_CHECKING:
    from geotrain.tasks.config import TaskConfig

# Not all of geotrain.tasks: `instantiate` itself must not be a target.
DEFAULT_TARGETS = ("geotrain.tasks.model.TabularNet", "geotrain.tasks.metrics.*", "torch.nn.*", "torch.optim.*")


def check_targets(task: "TaskConfig", allowed: Sequence[str]) -> None:
    """Raise ConfigError for the first `_target_` of the task, at any depth, that no pattern allows. Imports nothing."""
    for field, block in (
        ("task.model", task.model),
        ("task.loss", task.loss),
        ("task.metric", task.metric),
        ("task.training.optimizer", task.training.optimizer),
        ("task.localize.optimizer", task.localize.optimizer),
    ):
        check_block(block, allowed, field)


def check_block(block: Mapping[str, Any], allowed: Sequence[str], field: str) -> None:
    """Raise ConfigError unless the block and all that it nests name only what a pattern allows. Imports nothing."""
    # Nothing but plain mappings: another kind could hide a `_target_` from the search below.
    if not isinstance(block, dict):
        raise ConfigError(f"{field}: must be a mapping", "Write it as a block with a _target_.")
    if "_target_" not in block:
        raise ConfigError(f"{field}._target_: is missing", "Name the class or function, as package.module.Name.")
    for path, target in _targets(block, field):
        if not _is_allowed(target, allowed):
            raise ConfigError(
                f"{path}: {target!r} is not allowed here",
                f"Use a name that matches {', '.join(allowed)}, or add it to allowed_targets in this program's own"
                " configuration.",
            )


def instantiate(block: Mapping[str, Any], allowed: Sequence[str], field: str, **arguments: Any) -> Any:
    """Call the block's `_target_` with the block's arguments and these further ones. Raises ConfigError."""
    make = prepare(block, allowed, field)
    try:
        return make(**arguments)
    except (InstantiationException, ImportError, AttributeError, TypeError, ValueError) as error:
        raise _unfit(field, error) from error


def prepare(block: Mapping[str, Any], allowed: Sequence[str], field: str) -> "partial[Any]":
    """The block's `_target_` and the block's arguments, to be called. Raises ConfigError.

    A name may also lead out of what is allowed (`torch.nn.functional.torch.hub.load`), so where each name really comes
    from is checked too, before anything is called.
    """
    check_block(block, allowed, field)
    try:
        for path, target in _targets(block, field):
            home = _home(resolve_name(target))
            if not _is_allowed(home, allowed):
                raise ConfigError(f"{path}: {target!r} is {home}, which is not allowed here", "Name something else.")
        made: partial[Any] = hydra.utils.instantiate(dict(block), _partial_=True, _convert_="all")
        return made
    except (InstantiationException, ImportError, AttributeError, TypeError, ValueError) as error:
        raise _unfit(field, error) from error


def _unfit(field: str, error: Exception) -> ConfigError:
    reason = " ".join(str(error.__cause__ or error).split())
    return ConfigError(f"{field}: {reason}", "Mend the name or the arguments of this block.")


def _home(found: Any) -> str:
    """Where a class or function was defined, as package.module.Name."""
    return f"{getattr(found, '__module__', '?')}.{getattr(found, '__qualname__', '?')}"


def _targets(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every `_target_` in a block, with the path of its field."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "_target_":
                yield f"{path}._target_", item
            else:
                yield from _targets(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _targets(item, f"{path}[{i}]")


def _is_allowed(target: Any, allowed: Sequence[str]) -> bool:
    return isinstance(target, str) and any(fnmatchcase(target, pattern) for pattern in allowed)
