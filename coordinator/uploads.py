"""Receives sites' updates into the spool of their job, and checks them. Knows no round's fate.

What has come of an update outlives its connection: the next attempt goes on there. How much each site may have under
way is said with every answer, so that memory does not grow with the number of sites.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from coordinator import events
from coordinator.config import CoordinatorConfig
from coordinator.jobs import Jobs
from coordinator.links import Links
from coordinator.runner import JobRunner
from coordinator.windows import window_bytes
from geotrain.errors import GeotrainError, UpdateRefused
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc.parts import Chunk, ChunkPart
from geotrain.rpc.tls import Peer, site_name
from geotrain.updates.chunks import NUM_CHECKSUM_BYTES, DiskFull, Spool, spool_name

logger = logging.getLogger(__name__)

# Complete updates that are looked at together, each a block at a time.
MAX_CHECKS = 2

# Written, and acknowledged, at once.
BATCH_BYTES = 1 << 20


class Damaged(GeotrainError):
    """An update that changed on its way."""


@dataclass(slots=True)
class _Incoming:
    """An update of which a part is here. attempt: the number of the newest; those before it are over."""

    spool: Spool
    attempt: int = 0
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Uploads:
    """The updates on their way from the agents of `links` to their `jobs`."""

    def __init__(self, config: CoordinatorConfig, links: Links, jobs: Jobs) -> None:
        self._config = config
        self._links = links
        self._jobs = jobs
        self._incoming: dict[tuple[str, str], _Incoming] = {}
        self._num_active = 0
        self._checking = asyncio.Semaphore(MAX_CHECKS)

    async def receive(
        self, parts: AsyncIterator[pb.UploadPart | ChunkPart], peer: Peer
    ) -> AsyncIterator[pb.UploadAnswer]:
        """One attempt at one update: its header, then its chunks. Answers with what may be sent, then a receipt."""
        first = await anext(parts, None)
        if first is None:  # its stream broke right away
            return
        if isinstance(first, ChunkPart):
            yield _receipt("an upload begins with the update's header")
            return
        header = first.header
        if not_its_own := peer.refusal(site_name(header.site)):
            yield _receipt(not_its_own)
            return
        runner = self._jobs.running(header.job)
        if runner is None:
            yield _receipt(f"job {header.job} is not running")
            return
        if header.site not in self._links or header.site not in runner.config.sites:
            yield _receipt(f"site {header.site} has no session")
            return
        if reason := runner.refusal(header):
            yield _receipt(reason)
            return
        path = runner.spool_dir / spool_name(header.site, header.round, header.xxh3)
        try:
            _check_header(header)
            if not path.exists():  # else it came before, and only its receipt was lost
                incoming = await self._take_up(header, path)
                async for credit in self._fill(incoming, header, parts):
                    yield credit
                if incoming.spool.received < header.num_bytes:
                    yield _receipt("another attempt at this update goes on, or this one ended early", again=True)
                    return
                await self._finish(incoming, runner, header)
        except (DiskFull, Damaged) as error:
            logger.error("update of %s for round %d: %s", header.site, header.round, error)
            yield _receipt(error.what, again=True)
        except FileNotFoundError as error:  # the job was paused, taken up anew, or has ended
            self._drop((header.job, header.site))
            logger.warning("update of %s for round %d: %s", header.site, header.round, error)
            yield _receipt(f"the spool of job {header.job} was cleared", again=True)
        except UpdateRefused as refused:
            self._drop((header.job, header.site))
            logger.warning("update of %s for round %d refused: %s", header.site, header.round, refused)
            reason = f"update refused: {refused.what}"
            runner.offer(events.SiteFailed(header.site, reason, header.round, is_final=True))
            yield _receipt(str(refused))
        else:
            update = header.site, header.round, header.samples, dict(header.metrics), path, header.cut_number or 1
            runner.offer(events.UpdateArrived(*update))
            yield pb.UploadAnswer(receipt=pb.UploadReceipt(accepted=True))

    async def _take_up(self, header: pb.UpdateHeader, path: Path) -> _Incoming:
        """What is here of the update already, or its beginning. Raises UpdateRefused or DiskFull."""
        for job, site in [key for key in self._incoming if self._jobs.running(key[0]) is None]:
            self._drop((job, site))
        key = (header.job, header.site)
        incoming = self._incoming.get(key)
        if incoming is None or incoming.spool.path != path or incoming.spool.num_bytes != header.num_bytes:
            self._drop(key)
            spool = await asyncio.to_thread(
                Spool, path, num_bytes=header.num_bytes, xxh3=header.xxh3, max_bytes=self._config.max_update_bytes
            )
            self._drop(key)  # of an attempt that came in the meantime
            incoming = self._incoming[key] = _Incoming(spool)
        return incoming

    async def _fill(
        self, incoming: _Incoming, header: pb.UpdateHeader, parts: AsyncIterator[pb.UploadPart | ChunkPart]
    ) -> AsyncIterator[pb.UploadAnswer]:
        """Take chunks until the update is complete, its stream ends, or a newer attempt takes its place."""
        link, spool = self._links[header.site], incoming.spool
        incoming.attempt += 1
        attempt = incoming.attempt
        self._num_active += 1
        chunks: list[Chunk] = []
        waiting = 0
        try:
            async with incoming.writing:  # the attempt before may still be at its last chunk
                ahead = min(header.ahead_bytes, header.num_bytes)
                skipped = ahead if spool.received else 0  # it did not know that they are here
                granted = max(ahead, spool.received + window_bytes(self._num_active))
            if skipped or ahead < spool.num_bytes:
                yield _credit(spool.received, granted)
            while spool.received < spool.num_bytes:
                part = await anext(parts, None)
                if part is None:
                    return
                data = part.chunk.data
                link.received(len(data))
                if skipped > 0:
                    skipped -= len(data)
                    continue
                chunks.append(Chunk(part.chunk.offset, data))
                waiting += len(data)
                if waiting < BATCH_BYTES and spool.received + waiting < min(granted, spool.num_bytes):
                    continue
                async with incoming.writing:
                    if incoming.attempt != attempt:
                        return
                    await asyncio.to_thread(_add, spool, chunks)
                chunks, waiting = [], 0
                window = window_bytes(self._num_active)
                if granted < spool.num_bytes and spool.received + window >= granted + window // 4:
                    granted = spool.received + window
                    yield _credit(spool.received, granted)
        finally:
            self._num_active -= 1

    async def _finish(self, incoming: _Incoming, runner: JobRunner, header: pb.UpdateHeader) -> None:
        """Give a complete update its name if it is fit for the mean. Raises UpdateRefused, or Damaged."""
        whole = header.kind == pb.UpdateHeader.DIFFERENCE
        async with incoming.writing:
            if incoming.spool.path.exists():
                return  # by an attempt whose receipt was lost
            if not incoming.spool.is_whole:
                self._drop((header.job, header.site))
                raise Damaged("what arrived is not what the header says (its checksum)")
            async with self._checking:
                await asyncio.to_thread(runner.publisher.check_update, incoming.spool.part, whole=whole)
            incoming.spool.finish()
            if self._incoming.get((header.job, header.site)) is incoming:
                del self._incoming[header.job, header.site]

    def _drop(self, key: tuple[str, str]) -> None:
        if incoming := self._incoming.pop(key, None):
            incoming.spool.discard()


def _add(spool: Spool, chunks: list[Chunk]) -> None:
    for offset, data in chunks:
        spool.add(offset, data)


def _check_header(header: pb.UpdateHeader) -> None:
    """Raises UpdateRefused for a header that can't be believed."""
    if header.samples < 1:
        raise UpdateRefused("the update was trained on no samples", "Check the site's rows and the task's split.")
    if (header.kind == pb.UpdateHeader.LOCALIZED) != (header.round == 0):
        raise UpdateRefused("the update's kind does not fit its round: 0 is for localized states only")
    if len(header.xxh3) != NUM_CHECKSUM_BYTES:
        raise UpdateRefused("the update's checksum is not one of XXH3 in 128 bits")
    if not math.isfinite(header.metrics.get("loss", math.nan)):
        raise UpdateRefused("the update's metrics lack a finite loss")


def _credit(received: int, until: int) -> pb.UploadAnswer:
    return pb.UploadAnswer(credit=pb.UploadCredit(received=received, until=until))


def _receipt(reason: str, *, again: bool = False) -> pb.UploadAnswer:
    return pb.UploadAnswer(receipt=pb.UploadReceipt(accepted=False, reason=reason, again=again))
