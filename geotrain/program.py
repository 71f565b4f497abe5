"""Runs a main under Hydra: a composed configuration in, an exit code out, no stack trace for a user's mistake.

Knows nothing of what the programs do.
"""

import json
import logging
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geotrain.errors import ConfigError, GeotrainError

T = TypeVar("T")


def to_config(cfg: DictConfig) -> Any:
    """The composed configuration as its validated dataclass. Raises ConfigError naming the field."""
    try:
        return OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        field = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(
            f"{field}{str(error).splitlines()[0]}", "Set it on the command line or in the YAML."
        ) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error), "See docs/reference/configuration.md for every field and its range.") from None


def config_from_json(schema: type[T], text: str) -> T:
    """The configuration that came as JSON, validated; refuses unknown fields, wrong types, and interpolation.

    Interpolation is resolved where a job is composed: text from elsewhere must not read this machine's environment.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("the configuration is not a JSON object")
        if "${" in json.dumps(data):  # of the decoded text: JSON may write the dollar as an escape
            raise ValueError("the configuration holds an interpolation (${...}); resolve it where it is composed")
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(data))
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(str(error).splitlines()[0], "Launch again with a configuration of this version.") from None
    assert isinstance(merged, DictConfig)
    config: T = to_config(merged)
    return config


@cache
def own_version() -> str:
    """Of geotrain, as it is installed."""
    try:
        return version("geotrain")
    except PackageNotFoundError:
        return "source tree"


def run_program(cfg: DictConfig, run: Callable[[Any], float | None]) -> float | None:
    """Run `run` with the configuration's dataclass. A GeotrainError becomes two lines and its exit code."""
    try:
        return run(to_config(cfg))
    except GeotrainError as error:
        exit_with(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def exit_with(error: GeotrainError) -> NoReturn:
    """Say what is wrong and what to do on standard error, and leave with the error's exit code."""
    logging.getLogger(__name__).debug("leaving", exc_info=error)
    print(f"error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code)
