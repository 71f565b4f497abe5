"""Gives rows to Ray, and takes results from it."""

import os
import shutil
import tempfile
from typing import Any

import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, OutOfMemoryError, RayError, RayTaskError

from geotrain.errors import GeotrainError

# With less than this left where it keeps its temporary files, Ray's processes die, and nothing says why.
MIN_FREE_BYTES = 32 << 20
MAKE_ROOM = "Make room there, or name a folder on another disk with the environment variable RAY_TMPDIR."


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
    if full := full_disk():
        return GeotrainError(f"the site's Ray cluster has no disk left: {full}: {reason}", MAKE_ROOM)
    if isinstance(error, OutOfDiskError):
        return GeotrainError(f"the site's Ray cluster has no disk left: {reason}", "Make room on its nodes.")
    if isinstance(error, OutOfMemoryError | ObjectStoreFullError):
        return GeotrainError(
            f"the site's Ray cluster ran out of memory: {reason}",
            "Give it more (site.ray.object_store_bytes, or another node), or join fewer rows at a time.",
        )
    return GeotrainError(
        f"the site's Ray cluster lost a worker or a node: {reason}",
        "Look at Ray's own log of that node; the next round starts afresh.",
    )


def ray_folder() -> str:
    """Where a Ray of this machine keeps its temporary files."""
    return os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()


def full_disk() -> str:
    """Says that the disk of these files is full; "" where it is not."""
    folder = ray_folder()
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError:
        return ""
    return f"{folder} has {free_bytes >> 20} MB left" if free_bytes < MIN_FREE_BYTES else ""
