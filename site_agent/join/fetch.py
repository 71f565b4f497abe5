"""Gives rows to Ray, and takes results from it."""

from typing import Any

import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, OutOfMemoryError, RayError, RayTaskError

from geotrain.errors import GeotrainError


def fetch(refs: Any) -> Any:
    """ray.get; an error that a user can act on comes back as a GeotrainError, without the worker's stack trace."""
    try:
        return ray.get(refs)
    except RayTaskError as error:
        if isinstance(error.cause, GeotrainError):
            raise error.cause from None
        if isinstance(error.cause, RayError):
            raise _failure(error.cause) from error
        raise
    except RayError as error:
        raise _failure(error) from error


def put(value: Any) -> ray.ObjectRef:
    """ray.put; where there is no room for the value, that is a GeotrainError."""
    try:
        return ray.put(value)
    except RayError as error:
        raise _failure(error) from error


def _failure(error: RayError) -> GeotrainError:
    """What became of Ray itself: of its workers, its memory or its nodes."""
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    if isinstance(error, OutOfMemoryError | OutOfDiskError | ObjectStoreFullError):
        return GeotrainError(
            f"the site's Ray cluster ran out of memory: {reason}",
            "Give it more (site.ray.object_store_bytes, or another node), or join fewer rows at a time.",
        )
    return GeotrainError(
        f"the site's Ray cluster lost a worker or a node: {reason}",
        "Look at Ray's own log of that node; the next round starts afresh.",
    )
