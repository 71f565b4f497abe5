"""Finds the coordinator that leads, reads what it shows, and asks it to change jobs. Knows no terminal."""

import asyncio
import getpass
import os
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import grpc

from coordinator.dial import CALL_DEADLINE_S, ask_leader
from geotrain.errors import GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.tls import Identity

DEADLINE_S = 5.0
FOREIGN = "what answers there is no coordinator"
LISTS = "`geotrain jobs` lists those that are known."


class NoCoordinator(GeotrainError):
    """No coordinator answers, or none leads."""

    exit_code = 3


class NoSuchJob(GeotrainError):
    """A job, or a round of it, that the leader does not know."""

    exit_code = 4


class Refused(GeotrainError):
    """What the leader would not do."""

    exit_code = 5


@dataclass(frozen=True, slots=True)
class Coordinators:
    """Those that answered, by the address of their status; and why the others did not."""

    snapshots: dict[str, Any]
    failures: dict[str, str]

    @property
    def leader(self) -> str | None:
        """The address of the one that leads: under the highest epoch, if an old one does not know yet."""
        leading = {
            address: seen["coordinator"]["epoch"]
            for address, seen in self.snapshots.items()
            if seen["coordinator"]["role"] == "leading"
        }
        return max(leading, key=leading.__getitem__, default=None)


def look(addresses: Sequence[str]) -> Coordinators:
    """Ask every coordinator, and the leader that a standby names. Raises NoCoordinator where none answers."""
    return asyncio.run(_look(addresses))


async def _look(addresses: Sequence[str]) -> Coordinators:
    found = await _snapshots(addresses)
    if found.leader is None:
        named = {(seen["coordinator"]["leader"] or {}).get("status", "") for seen in found.snapshots.values()}
        further = await _snapshots(sorted(named - {""} - found.snapshots.keys()))
        found = Coordinators(found.snapshots | further.snapshots, found.failures | further.failures)
    if not found.snapshots:
        raise NoCoordinator(
            "; ".join(f"no coordinator answers at {address} ({why})" for address, why in found.failures.items()),
            "Start one with `python -m coordinator`, or name its http_listen with --coordinator HOST:PORT.",
        )
    return found


async def _snapshots(addresses: Sequence[str]) -> Coordinators:
    answers = await asyncio.gather(*(_get(address, "/snapshot") for address in addresses), return_exceptions=True)
    snapshots, failures = {}, {}
    for address, answer in zip(addresses, answers, strict=True):
        if isinstance(answer, NoCoordinator):
            failures[address] = answer.what
        elif isinstance(answer, BaseException):
            raise answer
        elif "coordinator" not in answer:
            failures[address] = FOREIGN
        else:
            snapshots[address] = answer
    return Coordinators(snapshots, failures)


async def _get(address: str, path: str) -> Any:
    """What is read there. Raises NoCoordinator with no more than the reason, NoSuchJob, or Refused."""
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"http://{address}{path}") as answer:
            said = await answer.json()
            if answer.status == 404:
                raise NoSuchJob(said["error"], LISTS)
            if answer.status != 200:
                raise Refused(said["error"])
            return said
    except TimeoutError:
        raise NoCoordinator(f"silent for {DEADLINE_S:g} s") from None
    except aiohttp.InvalidURL:
        raise NoCoordinator("that is no address: HOST:PORT is needed") from None
    except (aiohttp.ContentTypeError, ValueError, KeyError, TypeError):
        raise NoCoordinator(FOREIGN) from None
    except (aiohttp.ClientError, OSError) as error:
        number = getattr(error, "errno", None)
        raise NoCoordinator(os.strerror(number) if number else str(error) or type(error).__name__) from None


def leading(addresses: Sequence[str]) -> tuple[str, Any]:
    """Returns the leader's status address and snapshot. Raises NoCoordinator where none leads yet."""
    return _leading(look(addresses))


def _leading(found: Coordinators) -> tuple[str, Any]:
    if found.leader is None or not found.snapshots[found.leader]["coordinator"]["ready"]:
        reasons = "; ".join(f"{address}: {seen['coordinator']['reason']}" for address, seen in found.snapshots.items())
        raise NoCoordinator(
            f"no coordinator leads yet: {reasons}",
            "Wait a moment, or name the leader's http_listen with --coordinator HOST:PORT.",
        )
    return found.leader, found.snapshots[found.leader]


def jobs(addresses: Sequence[str]) -> Any:
    """Returns every job that the leader or the view knows."""
    address, _ = leading(addresses)
    return asyncio.run(_get(address, "/jobs"))


def job(addresses: Sequence[str], name: str) -> Any:
    """Returns a job in detail."""
    return _of_job(addresses, name, "")


def job_events(addresses: Sequence[str], name: str) -> Any:
    """Returns everything that happened to a job."""
    return _of_job(addresses, name, "/events")


def _of_job(addresses: Sequence[str], name: str, page: str) -> Any:
    address, _ = leading(addresses)
    return asyncio.run(_get(address, _page(name) + page))


def _page(job: str) -> str:
    return f"/jobs/{quote(job, safe='')}"


async def follow(addresses: Sequence[str], name: str, identity: Identity | None = None) -> AsyncIterator[Any]:
    """Yield everything that happened to a job, then what happens next, to its end, also under further leaders."""
    from coordinator import launch, snapshot  # seconds to import, and no other command needs them

    found = await _look(addresses)
    address, seen = _leading(found)
    await _get(address, _page(name))
    dialled = [one["coordinator"]["address"] for one in (seen, *found.snapshots.values())]
    async for event in launch.follow(list(dict.fromkeys(dialled)), name, identity):
        yield snapshot.event(event)


def control(
    addresses: Sequence[str], name: str, action: str, reason: str, identity: Identity | None = None
) -> dict[str, str]:
    """Pause, resume or cancel a job. Returns what it is now, and why."""
    seen = leading(addresses)[1]
    request = pb.ControlRequest(job=name, action=action.upper(), reason=reason or f"asked by {_who()}")
    reply = asyncio.run(_control(seen["coordinator"]["address"], request, identity))
    return {"job": name, "status": reply.status, "reason": reply.reason}


async def _control(address: str, request: pb.ControlRequest, identity: Identity | None) -> pb.ControlReply:
    async def call(stub: rpc.CoordinatorStub) -> pb.ControlReply:
        try:
            return await stub.Control(request, timeout=CALL_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise NoSuchJob(f"there is no job {request.job!r}", LISTS) from None
            if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED):
                raise Refused(error.details() or "it was refused") from None
            raise

    try:
        return await ask_leader([address], call, identity)
    except (NoSuchJob, Refused):
        raise
    except GeotrainError as error:
        raise NoCoordinator(error.what, "It may have been done all the same: see `geotrain jobs`.") from None


def _who() -> str:
    return f"{getpass.getuser()} at {socket.gethostname()}"
