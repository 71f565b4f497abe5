"""What a run sees of the machine it runs on: virtual time, drawn secrets, no disk to wait for. Undone at its end."""

import concurrent.futures
import json
import os
import random
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import grpc
import hydra.utils
import pytest

from coordinator import leadership, windows
from coordinator.facts import RoundFacts
from geotrain.program import config_from_json
from geotrain.states.manifest import Manifest
from site_agent import held, life, upload
from tests.simulation.rounds.calls import Channel
from tests.simulation.rounds.network import Network
from tests.simulation.rounds.processes import EPOCH_S, PROCESS, VirtualLoop, block
from tests.simulation.rounds.servers import Server

FSYNC_S = 0.001
CHUNK_BYTES = 100
LOOK_SHARE, WATCH_EVERY_S = 1 / 10, 2.0
"""Looks at the lease would take half the time of a run, and show nothing that fewer of them do not."""
MAX_HEADER_BYTES = 1000
OURS = ("geotrain", "coordinator", "site_agent")


class _Lock:
    """A lock between threads that run one at a time."""

    def __init__(self) -> None:
        self._is_held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        while self._is_held:
            if not blocking:
                return False
            block(0.01)
        self._is_held = True
        return True

    def release(self) -> None:
        self._is_held = False

    def locked(self) -> bool:
        return self._is_held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class AtOnce(concurrent.futures.Executor):
    """A pool of threads that has done everything before anybody waits for it."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:  # noqa: BLE001 - it is told, not hidden
            future.set_exception(error)
        return future


parsed = cache(config_from_json)
"""Nobody changes a configuration, and parsing it takes longer than all the rest of a run."""
KEPT = 500
"""Of what nobody changes and many read, and who checks the run more often than all: what the ledger says."""
read_round, read_manifest = lru_cache(KEPT)(RoundFacts.from_json), lru_cache(KEPT)(Manifest.from_bytes)
instantiate = hydra.utils.instantiate


def made(block: Mapping[str, Any], **options: Any) -> Any:
    return _made(json.dumps(block), **options)


@cache
def _made(block: str, **options: Any) -> Any:
    return instantiate(json.loads(block), **options)


@contextmanager
def patched(loop: VirtualLoop, network: Network, seed: int) -> Iterator[pytest.MonkeyPatch]:
    """The machine as a run sees it."""
    drawn = random.Random(f"secrets of {seed}")
    with pytest.MonkeyPatch.context() as patch:
        _replace(patch, time, "time", lambda: EPOCH_S + loop.now_s + _skew_s())
        _replace(patch, time, "time_ns", lambda: int((EPOCH_S + loop.now_s + _skew_s()) * 1e9))
        _replace(patch, time, "monotonic", lambda: 1000.0 + loop.now_s)
        _replace(patch, time, "perf_counter", lambda: 1000.0 + loop.now_s)
        _replace(patch, time, "sleep", block)
        gmtime, strftime = time.gmtime, time.strftime
        _replace(patch, time, "gmtime", lambda at_s=None: gmtime(time.time() if at_s is None else at_s))
        _replace(patch, time, "strftime", lambda form, at=None: strftime(form, at or time.gmtime()))
        _replace(patch, os, "fsync", lambda _: block(FSYNC_S))
        patch.setattr(secrets, "token_hex", lambda num_bytes=32: drawn.randbytes(num_bytes).hex())
        everywhere(patch, uuid.uuid4, lambda: uuid.UUID(bytes=drawn.randbytes(16), version=4))
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=drawn.randbytes(16), version=4))
        patch.setattr(upload, "CHUNK_BYTES", CHUNK_BYTES)  # so that a tiny update has several, and waits for leave
        patch.setattr(windows, "MIN_WINDOW_BYTES", CHUNK_BYTES)
        patch.setattr(windows, "MAX_WINDOW_BYTES", 2 * CHUNK_BYTES)
        patch.setattr(leadership, "LOOK_SHARE", LOOK_SHARE)
        patch.setattr(life, "WATCH_EVERY_S", WATCH_EVERY_S)
        patch.setattr(held, "MAX_HEADER_BYTES", MAX_HEADER_BYTES)
        patch.setattr(grpc.aio, "insecure_channel", lambda address, **_: Channel(network, address))
        patch.setattr(grpc.aio, "server", lambda **_: Server(network))
        everywhere(patch, concurrent.futures.ThreadPoolExecutor, AtOnce)
        everywhere(patch, threading.Lock, _Lock)  # not in libraries: what they import in a run they have for ever
        everywhere(patch, config_from_json, parsed)
        patch.setattr(RoundFacts, "from_json", read_round)
        patch.setattr(Manifest, "from_bytes", read_manifest)
        patch.setattr(hydra.utils, "instantiate", made)
        state = random.getstate()
        random.seed(seed)
        try:
            yield patch
        finally:
            random.setstate(state)


def everywhere(patch: pytest.MonkeyPatch, original: object, other: object) -> None:
    """Replace it in every module of ours that has imported it by name."""
    for module, attribute in _places(original, len(sys.modules)):
        patch.setattr(module, attribute, other)


@cache
def _places(original: object, num_modules: int) -> list[tuple[Any, str]]:
    return [
        (module, attribute)
        for name, module in sys.modules.items()
        if name.partition(".")[0] in OURS
        for attribute, value in vars(module).items()
        if value is original
    ]


def _replace(patch: pytest.MonkeyPatch, module: Any, name: str, ours: Callable[..., Any]) -> None:
    """Replace a function for the thread of the simulation, and leave it to all others."""
    theirs, simulation = getattr(module, name), threading.get_ident()

    def either(*arguments: Any, **options: Any) -> Any:
        return (ours if threading.get_ident() == simulation else theirs)(*arguments, **options)

    patch.setattr(module, name, either)


def _skew_s() -> float:
    process = PROCESS.get()
    return process.skew_s if process else 0.0
