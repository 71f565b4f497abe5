"""The coordinator's gRPC service: every call goes to whom it concerns, errors become gRPC's. Decides nothing.

While it leads, a term answers: the jobs, the agents' sessions and their uploads. A standby names the leader.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import grpc

from coordinator.config import CoordinatorConfig
from coordinator.jobs import Action, Jobs, NoSuchJob, TooManyJobs
from coordinator.leadership import Leadership
from coordinator.links import Links
from coordinator.sessions import Sessions
from coordinator.uploads import Uploads
from geotrain.errors import ConfigError, Fenced, GeotrainError, ViewError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import LEADER_KEY
from geotrain.rpc.parts import ChunkPart
from geotrain.rpc.tls import OPERATOR, Peer
from geotrain.view.connect import View

logger = logging.getLogger(__name__)

RECOVER_AGAIN_S = 1.0
# How long those who dial a new leader wait for it to have taken up its jobs; then they are told to come again.
TAKING_UP_S = 2.0
ACTIONS: dict[int, Action] = {
    pb.ControlRequest.PAUSE: "pause",
    pb.ControlRequest.RESUME: "resume",
    pb.ControlRequest.CANCEL: "cancel",
}


class Term:
    """What this coordinator has while it leads under one epoch. None of it outlives the term."""

    def __init__(self, config: CoordinatorConfig, view: View, epoch: int) -> None:
        links = Links()
        self.epoch = epoch
        self.jobs = Jobs(config, view, links, epoch=epoch)
        self.sessions = Sessions(config, links, self.jobs)
        self.uploads = Uploads(config, links, self.jobs)
        self.calls: set[asyncio.Task[object]] = set()
        self.is_over = False


class CoordinatorService(rpc.CoordinatorServicer):
    """Answers agents and launches. term: None at a standby, and while a leader reads the ledger.

    leadership: whether this coordinator leads; to be read only.
    """

    def __init__(self, config: CoordinatorConfig, view: View, leadership: Leadership) -> None:
        self.term: Term | None = None
        self.leadership = leadership
        self._answers = asyncio.Event()
        self._config = config
        self._view = view

    async def lead(self, epoch: int) -> None:
        """Take up the jobs that were left and run them, until cancelled; then every call of the term ends."""
        term = Term(self._config, self._view, epoch)
        try:
            await self._recover(term.jobs)
            self.term = term  # only now: who follows an unfinished job must find it
            self._answers.set()
            await term.jobs.run()
        except Fenced as error:
            logger.warning("%s", error)
            await asyncio.Event().wait()  # the lease tells next, and cancels us
        finally:
            self.term, term.is_over = None, True
            self._answers.clear()
            for call in term.calls:
                call.cancel()

    async def _recover(self, jobs: Jobs) -> None:
        while True:
            try:
                return await jobs.recover()
            except Fenced:
                raise
            except ViewError as error:
                logger.warning("the jobs that were left can't be read, trying again: %s", error)
                await asyncio.sleep(RECOVER_AGAIN_S)

    @contextlib.asynccontextmanager
    async def _call(self, context: grpc.aio.ServicerContext, who: str = "") -> AsyncIterator[Term]:
        """A call that a leader answers, and that ends with its term. who: the name in the caller's certificate."""
        if refused := who and Peer.of(context).refusal(who):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refused)
        if self.leadership.is_leading:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._answers.wait(), TAKING_UP_S)
        term, task = self.term, asyncio.current_task()
        if term is None:
            await self._refuse(context)
        assert term is not None
        assert task is not None
        term.calls.add(task)
        try:
            yield term
        except asyncio.CancelledError:
            if not term.is_over:
                raise
            task.uncancel()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this coordinator leads no longer")
        finally:
            term.calls.discard(task)

    async def _refuse(self, context: grpc.aio.ServicerContext) -> None:
        leader, leadership = self.leadership.leader, self.leadership
        if leadership.is_leading or leader is None or not leader.is_held:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"no coordinator leads yet: {leadership.reason}")
        else:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this coordinator is a standby, the leader is at {leader.address}",
                ((LEADER_KEY, leader.address),),
            )

    async def Session(self, _: object, context: grpc.aio.ServicerContext) -> None:  # noqa: N802 - gRPC's name
        async with self._call(context) as term:
            await term.sessions.serve(context)

    async def Upload(  # noqa: N802
        self, parts: AsyncIterator[pb.UploadPart | ChunkPart], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.UploadAnswer]:
        async with self._call(context) as term:
            async for answer in term.uploads.receive(parts, Peer.of(context)):
                yield answer

    async def Launch(  # noqa: N802
        self, request: pb.LaunchRequest, context: grpc.aio.ServicerContext
    ) -> pb.LaunchReply:
        async with self._call(context, OPERATOR) as term:
            try:
                job = await term.jobs.launch(request.job_json, request.request_id)
            except TooManyJobs as error:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            except (ViewError, Fenced) as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"the job could not be noted in the view: {error}")
            except GeotrainError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            if not self.leadership.holds_at(time.monotonic()):
                # The next leader may have looked for jobs before this one was noted.
                await context.abort(grpc.StatusCode.UNAVAILABLE, "this coordinator leads no longer; launch again")
            return pb.LaunchReply(job=job)

    async def Control(  # noqa: N802
        self, request: pb.ControlRequest, context: grpc.aio.ServicerContext
    ) -> pb.ControlReply:
        async with self._call(context, OPERATOR) as term:
            try:
                action = ACTIONS.get(request.action)
                if action is None:
                    raise ConfigError(f"action {request.action} is none that this coordinator knows")
                status, reason = await term.jobs.control(request.job, action, request.reason)
            except NoSuchJob as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            except ConfigError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except GeotrainError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"it could not be noted in the view: {error}")
            return pb.ControlReply(status=status, reason=reason)

    async def Follow(  # noqa: N802
        self, request: pb.FollowRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.JobEvent]:
        async with self._call(context, OPERATOR) as term:
            try:
                runner = await term.jobs.find(request.job)
            except GeotrainError as error:
                await context.abort(grpc.StatusCode.INTERNAL, f"job {request.job} can't be read: {error}")
            if runner is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"no job {request.job!r} was launched here")
            async for event in runner.log.follow():
                yield event
