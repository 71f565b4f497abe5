"""Takes results from Ray."""

from typing import Any

import ray
from ray.exceptions import RayTaskError

from geotrain.errors import GeotrainError


def fetch(refs: Any) -> Any:
    """ray.get; an error that a user can act on comes back as itself, without the worker's stack trace."""
    try:
        return ray.get(refs)
    except RayTaskError as error:
        if isinstance(error.cause, GeotrainError):
            raise error.cause from None
        raise
