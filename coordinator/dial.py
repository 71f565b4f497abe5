"""Finds the leader among coordinators, for whoever launches, follows or controls a job. Knows no job."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle
from typing import TypeVar

import grpc

from geotrain.errors import ConfigError, GeotrainError
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import LEADER_KEY, open_channel, retry_delays_s
from geotrain.rpc.tls import Identity

logger = logging.getLogger(__name__)

T = TypeVar("T")

CALL_DEADLINE_S = 30.0
# Longer than it takes a standby to lead, with the lease that coordinators have by default.
PATIENCE_S = 15.0

STANDBY = grpc.StatusCode.FAILED_PRECONDITION
AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
)


class Leader:
    """Where to dial next: the addresses that were given, in turn, but first the one that a standby names."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.address = addresses[0]
        self._given = tuple(addresses)
        self._turns = cycle([*addresses[1:], addresses[0]])
        self._was_named = False
        self._silent = ""

    def __str__(self) -> str:
        return ", ".join(self._given)

    def look_on(self, error: grpc.aio.AioRpcError) -> bool:
        """Go on to the next address after a failed call. Returns whether it was named as the leader's just now.

        Raises GeotrainError for what no other coordinator would answer otherwise.
        """
        if error.code() not in (*AWAY, STANDBY):
            raise explained(error, self.address) from None
        named = str(dict(error.trailing_metadata() or ()).get(LEADER_KEY, ""))
        # One hop at a time: two that name each other must not be asked for ever. Who fell silent is named until its
        # lease has run out.
        self._was_named = named not in ("", self.address, self._silent) and not self._was_named
        self.address, self._silent = named if self._was_named else next(self._turns), ""
        return self._was_named

    def fell_silent(self) -> None:
        """Go on to the next address, since nothing is heard of this one any more."""
        self._silent, self._was_named = self.address, False
        self.address = next(self._turns)


async def ask_leader(
    addresses: Sequence[str], call: Callable[[rpc.CoordinatorStub], Awaitable[T]], identity: Identity | None = None
) -> T:
    """Returns the leader's answer. Asked again while nobody leads: a call must do no harm a second time.

    Raises ConfigError for what the leader refuses, GeotrainError where none answers for `PATIENCE_S`.
    """
    leader, delays_s = Leader(addresses), retry_delays_s()
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            async with open_channel(leader.address, identity) as channel:
                return await call(rpc.CoordinatorStub(channel))
        except grpc.aio.AioRpcError as error:
            if leader.look_on(error):
                continue
            if time.monotonic() > give_up_s:
                raise explained(error, str(leader)) from None
            logger.info("no leader yet at %s: %s", leader, error.details())
        await asyncio.sleep(next(delays_s))


def explained(error: grpc.aio.AioRpcError, address: str) -> GeotrainError:
    """The error as a user can act on it."""
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return ConfigError(error.details() or "the job was refused")
    if error.code() in AWAY:
        return GeotrainError(
            f"coordinator: no coordinator answers at {address} ({error.details()})",
            "Start one with `python -m coordinator`, or name its address with coordinator=HOST:PORT.",
        )
    return GeotrainError(f"coordinator at {address}: {error.details()}")
