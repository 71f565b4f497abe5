"""What becomes of an answer whose stream is closed while it is on its way."""

import asyncio
from typing import Any

import pytest

from geotrain.errors import GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from site_agent import outlet as outlet_module
from site_agent.outlet import Outlet

TIMEOUT_S = 60


class Stream:
    """A stream that takes what is written, or does as it is told."""

    def __init__(self, then: Any = None) -> None:
        self.written: list[pb.FromAgent] = []
        self._then = then

    async def write(self, message: pb.FromAgent) -> None:
        if self._then is not None:
            await self._then()
        self.written.append(message)


def new_outlet(stream: Stream) -> Outlet:
    return Outlet(stream, None, silence_s=TIMEOUT_S)  # type: ignore[arg-type]


async def for_ever() -> None:
    await asyncio.Event().wait()


async def cancelled() -> None:
    raise asyncio.CancelledError


def play(scene: Any) -> None:
    asyncio.run(asyncio.wait_for(scene, TIMEOUT_S))


def test_a_message_to_a_stream_that_stands_is_written_and_one_to_a_closed_stream_is_dropped():
    async def scene() -> None:
        stream = Stream()
        outlet = new_outlet(stream)
        await outlet.send(pb.FromAgent())
        outlet.close()
        await outlet.send(pb.FromAgent())
        assert len(stream.written) == 1

    play(scene())


def test_a_message_that_a_silent_coordinator_does_not_take_is_given_up_when_the_stream_is_closed():
    async def scene() -> None:
        outlet = new_outlet(Stream(for_ever))
        sending = asyncio.create_task(outlet.send(pb.FromAgent()))
        await asyncio.sleep(0)
        outlet.close()
        await sending

    play(scene())


def test_a_call_that_was_cancelled_cancels_nobody_who_uses_it():
    async def scene() -> None:
        await new_outlet(Stream(cancelled)).send(pb.FromAgent())

    play(scene())


def test_an_upload_ends_with_its_stream(monkeypatch):
    async def send_update(*_: Any, **__: Any) -> None:
        await for_ever()

    monkeypatch.setattr(outlet_module, "send_update", send_update)

    async def scene() -> None:
        outlet = new_outlet(Stream())
        uploading = asyncio.create_task(outlet.upload(None, print))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        outlet.close()
        await uploading

    play(scene())


def test_why_an_upload_was_refused_reaches_whoever_sent_it(monkeypatch):
    async def send_update(*_: Any, **__: Any) -> None:
        raise GeotrainError("the coordinator refused the update: too late")

    monkeypatch.setattr(outlet_module, "send_update", send_update)

    async def scene() -> None:
        with pytest.raises(GeotrainError, match="too late"):
            await new_outlet(Stream()).upload(None, print)  # type: ignore[arg-type]

    play(scene())


def test_whoever_is_cancelled_while_it_sends_stops_sending():
    async def scene() -> None:
        outlet = new_outlet(Stream(for_ever))
        sending = asyncio.create_task(outlet.send(pb.FromAgent()))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    play(scene())
