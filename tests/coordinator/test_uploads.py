"""Updates from the site's file to the coordinator's spool, over a real socket that breaks, and disks that are full."""

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
import torch

from coordinator import events, uploads, windows
from coordinator.config import CoordinatorConfig
from coordinator.links import Link, Links
from coordinator.uploads import Uploads
from geotrain.errors import GeotrainError, UpdateRefused
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.rpc import coordinator_pb2_grpc as rpc
from geotrain.rpc.channels import new_server, open_channel
from geotrain.rpc.parts import Chunk, ChunkPart, Stub
from geotrain.rpc.tls import Peer
from geotrain.updates.codec import Layout, TensorFile
from site_agent import upload
from site_agent.held import HeldUpdates, Update
from site_agent.upload import send_update

DEADLINE_S = 60
ANYONE = Peer(None)
TENSORS = {"body": torch.arange(1000.0), "head": torch.ones(3)}


class Runner:
    """A job that takes every update, unless its test says otherwise."""

    def __init__(self, spool_dir: Path) -> None:
        self.spool_dir = spool_dir
        self.config = SimpleNamespace(sites=["ewr"])
        self.publisher = self
        self.offered: list[events.Event] = []
        self.refusal_reason = ""

    def refusal(self, _: pb.UpdateHeader) -> str:
        return self.refusal_reason

    def check_update(self, path: Path, *, whole: bool) -> None:
        TensorFile(path).__exit__()

    def offer(self, event: events.Event) -> None:
        self.offered.append(event)


class Coordinator(rpc.CoordinatorServicer):
    """Takes updates; `answers` and `chunks` are what crossed, `on_part` may do harm before a part is taken."""

    def __init__(self, folder: Path) -> None:
        self.runner = Runner(folder / "coordinator")
        self.is_running = True
        links = Links()
        links["ewr"] = Link("ewr")
        jobs = SimpleNamespace(running=lambda job: self.runner if self.is_running and job == "j" else None)
        self.uploads = Uploads(CoordinatorConfig(), links, jobs)  # type: ignore[arg-type]
        self.answers: list[pb.UploadAnswer] = []
        self.chunks: list[pb.Chunk] = []
        self.on_part: Callable[[pb.UploadPart], None] = lambda part: None

    async def Upload(  # noqa: N802
        self, parts: AsyncIterator[pb.UploadPart], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.UploadAnswer]:
        async def tapped() -> AsyncIterator[pb.UploadPart]:
            async for part in parts:
                self.on_part(part)
                if part.HasField("chunk"):
                    self.chunks.append(part.chunk)
                yield part

        async for answer in self.uploads.receive(tapped(), Peer.of(context)):
            self.answers.append(answer)
            yield answer

    @property
    def spooled(self) -> dict[str, torch.Tensor]:
        """The one update that has arrived."""
        [arrived] = [event for event in self.runner.offered if isinstance(event, events.UpdateArrived)]
        with TensorFile(arrived.path) as file:
            return {name: file.tensor(name) for name in file.entries}


class Site:
    """Sends one update."""

    def __init__(self, folder: Path) -> None:
        self.notes: list[str] = []
        header = pb.UpdateHeader(job="j", site="ewr", round=3, samples=10, metrics={"loss": 0.5}, base_version=7)
        self.update = HeldUpdates(folder / "agent", "ewr").write(header, Layout.of(TENSORS), TENSORS.__getitem__)

    async def send(self, stub: rpc.CoordinatorStub, *, silence_s: float = DEADLINE_S) -> None:
        await send_update(stub, self.update, silence_s=silence_s, note=self.notes.append)


Scene = Callable[[Coordinator, Site, rpc.CoordinatorStub], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scene], None]:
    """Runs a scene over a real socket, with chunks of 100 bytes, of which four may be under way."""
    monkeypatch.setattr(windows, "MIN_WINDOW_BYTES", 100)
    monkeypatch.setattr(upload, "CHUNK_BYTES", 100)
    monkeypatch.setattr(windows, "MAX_WINDOW_BYTES", 400)
    monkeypatch.setattr(uploads, "BATCH_BYTES", 200)
    monkeypatch.setattr(upload, "retry_delays_s", lambda: iter(lambda: 0.0, 1.0))

    async def scenario(scene: Scene) -> None:
        coordinator, server = Coordinator(tmp_path), new_server()
        rpc.add_CoordinatorServicer_to_server(coordinator, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with open_channel(f"127.0.0.1:{port}") as channel:
            await scene(coordinator, Site(tmp_path), Stub(channel))
        await server.stop(None)

    return lambda scene: asyncio.run(asyncio.wait_for(scenario(scene), DEADLINE_S))


def once(do: Callable[[], None], after_chunks: int) -> Callable[[pb.UploadPart], None]:
    """Does it when so many chunks have come, and only once."""
    left = [after_chunks + 1]

    def on_part(part: pb.UploadPart) -> None:
        left[0] -= part.HasField("chunk")
        if left[0] == 0:
            left[0] = -1
            do()

    return on_part


def breaks() -> None:
    raise RuntimeError("the line is cut")


def test_what_arrives_is_what_was_sent_and_no_more_is_under_way_than_was_allowed(play):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        allowed = []

        def watch(part: pb.UploadPart) -> None:
            if part.HasField("chunk"):
                credits = [answer.credit.until for answer in coordinator.answers if answer.HasField("credit")]
                allowed.append(part.chunk.offset + len(part.chunk.data) <= credits[-1])

        coordinator.on_part = watch
        await site.send(stub)
        assert all(allowed)
        assert len(allowed) > 40
        assert all(torch.equal(coordinator.spooled[name], tensor) for name, tensor in TENSORS.items())
        assert coordinator.answers[-1].receipt.accepted

    play(scene)


def test_what_may_be_sent_ahead_waits_for_no_answer(play):
    async def says_nothing_before(parts: AsyncIterator[pb.UploadPart], peer: Peer) -> AsyncIterator[pb.UploadAnswer]:
        left = (await anext(parts)).header.ahead_bytes
        while left:
            left -= len((await anext(parts)).chunk.data)
        yield pb.UploadAnswer(receipt=pb.UploadReceipt(accepted=True))

    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        coordinator.uploads = SimpleNamespace(receive=says_nothing_before)
        site.update.header.ahead_bytes = 250
        await site.send(stub)
        assert [(chunk.offset, len(chunk.data)) for chunk in coordinator.chunks] == [(0, 100), (100, 100), (200, 50)]

    play(scene)


@pytest.mark.parametrize("ahead", [1, 300, 1000])
def test_what_was_sent_ahead_is_gone_on_from(play, ahead):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        site.update.header.ahead_bytes = ahead
        await site.send(stub)
        chunks = coordinator.chunks
        ends = [chunk.offset + len(chunk.data) for chunk in chunks]
        assert [chunk.offset for chunk in chunks] == [0, *ends[:-1]]  # each once, in order
        assert all(torch.equal(coordinator.spooled[name], tensor) for name, tensor in TENSORS.items())

    play(scene)


def test_what_is_sent_ahead_again_is_passed_over_where_a_part_is_here(play, monkeypatch):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        coordinator.on_part = once(breaks, after_chunks=7)
        with monkeypatch.context() as patch:
            patch.setattr(upload, "MAX_FAILURES", 1)
            with pytest.raises(GeotrainError, match="could not be sent"):
                await site.send(stub)
        site.update.header.ahead_bytes = 300
        await site.send(stub)
        assert [chunk.offset for chunk in coordinator.chunks[7:11]] == [0, 100, 200, 600]
        assert all(torch.equal(coordinator.spooled[name], tensor) for name, tensor in TENSORS.items())

    play(scene)


def test_an_update_that_is_all_sent_ahead_is_answered_once_with_its_receipt(play):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        site.update.header.ahead_bytes = 1 << 20
        await site.send(stub)
        [answer] = coordinator.answers
        assert answer.receipt.accepted
        assert all(torch.equal(coordinator.spooled[name], tensor) for name, tensor in TENSORS.items())

    play(scene)


@pytest.mark.parametrize("after_chunks", [0, 1, 7, 40])
def test_a_broken_upload_goes_on_from_the_last_chunk_that_was_acknowledged(play, after_chunks):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        coordinator.on_part = once(breaks, after_chunks)
        await site.send(stub)
        firsts = [answer.credit.received for answer in coordinator.answers if answer.HasField("credit")]
        acknowledged = max(at for at in firsts if at <= after_chunks * 100)
        again = [chunk.offset for chunk in coordinator.chunks].index(acknowledged, after_chunks)
        assert again == after_chunks  # the first chunk after the break
        assert all(torch.equal(coordinator.spooled[name], tensor) for name, tensor in TENSORS.items())
        assert "the upload broke" in site.notes[0]

    play(scene)


def test_who_never_gets_further_gives_up_with_the_reason(play):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        coordinator.on_part = lambda part: breaks()
        with pytest.raises(GeotrainError, match="the update could not be sent: unknown"):
            await site.send(stub)
        assert len(site.notes) == upload.MAX_FAILURES - 1

    play(scene)


def test_a_coordinator_that_falls_silent_is_not_waited_for_for_ever(play, monkeypatch):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        monkeypatch.setattr(uploads, "window_bytes", lambda _: 0)
        with pytest.raises(GeotrainError, match=r"the coordinator was silent for 0\.05 s"):
            await site.send(stub, silence_s=0.05)

    play(scene)


def test_an_update_that_comes_too_late_is_refused_before_a_byte_of_it_is_sent(play):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        coordinator.runner.refusal_reason = "round 3 was committed without it"
        with pytest.raises(GeotrainError, match="round 3 was committed without it"):
            await site.send(stub)
        assert coordinator.chunks == []

    play(scene)


def test_a_full_disk_at_the_coordinator_is_said_and_the_update_waits_for_room(play, monkeypatch):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        fallocate, full = os.posix_fallocate, [True, True]

        def reserve(*arguments: int) -> None:
            if full:
                full.pop()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fallocate(*arguments)

        monkeypatch.setattr(os, "posix_fallocate", reserve)
        await site.send(stub)
        assert len(site.notes) == 2
        assert "does not take an update: No space left on device" in site.notes[0]
        assert all(isinstance(event, events.UpdateArrived) for event in coordinator.runner.offered)
        assert coordinator.spooled.keys() == TENSORS.keys()

    play(scene)


def test_an_update_that_changed_on_its_way_is_sent_again(play):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        def damage(part: pb.UploadPart) -> None:
            if part.chunk.offset == 500 and not site.notes:
                part.chunk.data = bytes(len(part.chunk.data))

        coordinator.on_part = damage
        await site.send(stub)
        assert site.notes == ["what arrived is not what the header says (its checksum)"]
        assert all(torch.equal(coordinator.spooled[name], tensor) for name, tensor in TENSORS.items())

    play(scene)


def test_a_file_that_was_damaged_at_the_site_is_not_sent_for_ever(play):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        with site.update.path.open("r+b") as file:
            file.seek(700)
            file.write(b"damage")
        with pytest.raises(GeotrainError, match="was damaged on this site's disk"):
            await site.send(stub)
        assert coordinator.runner.offered == []

    play(scene)


def test_an_update_unfit_for_the_mean_is_refused_leaves_no_file_and_is_not_sent_again(play, monkeypatch):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        def refuse(path: Path, *, whole: bool) -> None:
            raise UpdateRefused("tensor body has values that are not finite")

        monkeypatch.setattr(coordinator.runner, "check_update", refuse)
        with pytest.raises(GeotrainError, match="tensor body has values that are not finite"):
            await site.send(stub)
        [failed] = coordinator.runner.offered
        assert isinstance(failed, events.SiteFailed)
        assert list(coordinator.runner.spool_dir.iterdir()) == []

    play(scene)


def test_an_update_whose_receipt_was_lost_is_accepted_again_without_a_byte(play):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        await site.send(stub)
        coordinator.chunks.clear()
        await site.send(stub)
        assert coordinator.chunks == []
        assert len({event.path for event in coordinator.runner.offered}) == 1  # type: ignore[union-attr]

    play(scene)


@pytest.mark.parametrize("after_chunks", [5, 41])
def test_a_spool_that_is_cleared_meanwhile_is_said_and_the_update_sent_again(play, after_chunks):
    async def scene(coordinator: Coordinator, site: Site, stub: rpc.CoordinatorStub) -> None:
        coordinator.on_part = once(lambda: shutil.rmtree(coordinator.runner.spool_dir), after_chunks)
        await site.send(stub)
        assert site.notes == ["the spool of job j was cleared"]
        assert all(torch.equal(coordinator.spooled[name], tensor) for name, tensor in TENSORS.items())

    play(scene)


def test_a_stream_that_breaks_before_its_first_part_is_no_error(tmp_path):
    async def broken() -> AsyncIterator[pb.UploadPart]:
        return
        yield pb.UploadPart()

    async def scene() -> None:
        assert [answer async for answer in Coordinator(tmp_path).uploads.receive(broken(), ANYONE)] == []

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


def test_an_update_without_a_checksum_is_refused(tmp_path):
    async def scene() -> None:
        coordinator, site = Coordinator(tmp_path), Site(tmp_path)
        site.update.header.xxh3 = b"short"
        answers = [answer async for answer in coordinator.uploads.receive(Parts(site.update), ANYONE)]
        assert "checksum" in answers[-1].receipt.reason
        assert not list(coordinator.runner.spool_dir.glob("*"))

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


def test_an_upload_without_its_header_is_refused(tmp_path):
    async def headless() -> AsyncIterator[ChunkPart]:
        yield ChunkPart(Chunk(0, b"data"))

    async def scene() -> None:
        answers = [answer async for answer in Coordinator(tmp_path).uploads.receive(headless(), ANYONE)]
        assert [answer.receipt.reason for answer in answers] == ["an upload begins with the update's header"]

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


def test_the_newest_attempt_takes_over_what_an_older_one_has_brought(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "BATCH_BYTES", 1)
    for name in ("MIN_WINDOW_BYTES", "MAX_WINDOW_BYTES"):
        monkeypatch.setattr(windows, name, 1)

    async def scene() -> None:
        coordinator, site = Coordinator(tmp_path), Site(tmp_path)
        old, new = Parts(site.update), Parts(site.update)
        first, second = coordinator.uploads.receive(old, ANYONE), coordinator.uploads.receive(new, ANYONE)
        await anext(first)
        old.add(0, 1000)
        assert (await anext(first)).credit.received == 1000
        assert (await anext(second)).credit.received == 1000
        old.add(1000, 2000)
        assert (await anext(first)).receipt.again
        new.add(1000, site.update.header.num_bytes)
        while not (answer := await anext(second)).HasField("receipt"):
            pass
        assert answer.receipt.accepted
        assert all(torch.equal(coordinator.spooled[name], tensor) for name, tensor in TENSORS.items())

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


class Parts:
    """What one attempt sends, when its test says so."""

    def __init__(self, update: Update) -> None:
        self._data = update.path.read_bytes()
        self._queue: asyncio.Queue[pb.UploadPart] = asyncio.Queue()
        self._queue.put_nowait(pb.UploadPart(header=update.header))

    def add(self, start: int, end: int) -> None:
        self._queue.put_nowait(pb.UploadPart(chunk=pb.Chunk(offset=start, data=self._data[start:end])))

    def __aiter__(self) -> "Parts":
        return self

    async def __anext__(self) -> pb.UploadPart:
        return await self._queue.get()
