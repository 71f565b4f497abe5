"""The coordinator's snapshot over HTTP, as JSON. Only to be read: what changes a job goes through gRPC."""

import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from aiohttp import web

from coordinator import snapshot
from coordinator.config import ANYWHERE, CoordinatorConfig
from coordinator.runner import JobRunner
from coordinator.service import CoordinatorService, Term
from geotrain.errors import ConfigError, GeotrainError
from geotrain.program import own_version
from geotrain.view.connect import View

logger = logging.getLogger(__name__)

STOP_S = 1.0


class Pages:
    """What there is to read of a coordinator. address: where others dial it."""

    def __init__(self, config: CoordinatorConfig, view: View, service: CoordinatorService, address: str) -> None:
        self._service = service
        self._facts = {
            "address": address,
            "geotrain": own_version(),
            "heartbeat_s": config.heartbeat_s,
            "namespace": config.view.namespace,
            "consistency": view.consistency,
        }

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/snapshot", self.snapshot),
            web.get("/jobs", self.jobs),
            web.get("/jobs/{job}", self.job),
            web.get("/jobs/{job}/events", self.events),
        ]

    def seen(self) -> dict[str, Any]:
        """What is known now."""
        now_s, boot_s, term = time.time(), _boot_s(), self._service.term
        return snapshot.snapshot(
            snapshot.coordinator(
                self._service.leadership, now_s=now_s, boot_s=boot_s, facts=self._facts, ready=bool(term)
            ),
            term.sessions.membership.members if term else {},
            term.jobs.runners.values() if term else [],
            now_s=now_s,
            boot_s=boot_s,
        )

    async def snapshot(self, _: web.Request) -> web.Response:
        return web.json_response(self.seen())

    async def jobs(self, _: web.Request) -> web.Response:
        term = self._term()
        try:
            past, num_older = await term.jobs.past()
        except GeotrainError as error:
            _refuse(web.HTTPServiceUnavailable, f"the jobs can't be read: {error.what}")
        seen = self.seen()
        return web.json_response(snapshot.every_job(seen["jobs"], past, num_older, now_s=seen["time_s"]))

    async def job(self, request: web.Request) -> web.Response:
        runner, term = await self._find(request), self._service.term
        known = list(term.jobs.runners.values()) if term else []
        return web.json_response(snapshot.detail(runner, known, boot_s=_boot_s()))

    async def events(self, request: web.Request) -> web.Response:
        runner = await self._find(request)
        return web.json_response([snapshot.event(event) for _, event in runner.log.after(0)])

    async def _find(self, request: web.Request) -> JobRunner:
        job, term = request.match_info["job"], self._term()
        try:
            runner = await term.jobs.find(job)
        except GeotrainError as error:
            _refuse(web.HTTPServiceUnavailable, f"job {job} can't be read: {error.what}")
        if runner is None:
            _refuse(web.HTTPNotFound, f"there is no job {job!r}")
        return runner

    def _term(self) -> Term:
        term = self._service.term
        if term is None:
            _refuse(web.HTTPServiceUnavailable, f"this coordinator knows no job: {self._service.leadership.reason}")
        return term


def _boot_s() -> float:
    """The Unix time at which the monotonic clock was 0."""
    return time.time() - time.monotonic()


def _refuse(kind: type[web.HTTPException], what: str) -> NoReturn:
    raise kind(text=web.json_response({"error": what}).text, content_type="application/json")


def bind(address: str) -> socket.socket | None:
    """Take `host:port`; None where the address is empty. Raises ConfigError where it can't be had."""
    if not address:
        return None
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host, int(port)))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"http_listen: {address} can't be bound: {error}", "Choose another with http_listen=HOST:PORT."
        ) from None


def found_at(bound: socket.socket | None, advertised: str) -> str:
    """Returns where others read what is served there; empty where nothing is. advertised: the coordinator itself."""
    if bound is None:
        return ""
    host, port = bound.getsockname()[:2]
    return f"{advertised.rpartition(':')[0] if host in ANYWHERE else host}:{port}"


@asynccontextmanager
async def serving(bound: socket.socket | None, pages: Pages) -> AsyncIterator[None]:
    """Answer meanwhile what was bound."""
    if bound is None:
        yield
        return
    application = web.Application()
    application.add_routes(pages.routes())
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_S)
    await runner.setup()
    try:
        await web.SockSite(runner, bound).start()
        logger.info("status at http://%s:%d/snapshot", *bound.getsockname()[:2])
        yield
    finally:
        await runner.cleanup()
