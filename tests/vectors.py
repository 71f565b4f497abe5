"""Exchanges captured between the official client 19.3.0 and one node of Aerospike Community Edition 8.1.2.0."""

import json
from dataclasses import dataclass
from pathlib import Path

from geotrain.wire import frames
from geotrain.wire.frames import Frame, FrameReader

_PATH = Path(__file__).parent / "data" / "aerospike-community-8.1.2.json"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request frame and the frames that answered it, in the order of the capture."""

    position: int
    case: str
    request: bytes
    replies: list[Frame]
    truncated: bool
    """Whether the request or the reply was cut in the capture, and is filled up with zeros here."""

    @property
    def name(self) -> str:
        """The case; those of connecting, which share one name, with their position."""
        return f"{self.case}-{self.position}" if self.case == "connect" else self.case


def exchanges() -> list[Exchange]:
    """All exchanges, in the order in which they happened."""
    return [
        Exchange(
            position=position,
            case=item["case"],
            request=_whole(item["request"]),
            replies=[reply for text in item["replies"] for reply in FrameReader().feed(_whole(text))],
            truncated=any(text.endswith("...") for text in (item["request"], *item["replies"])),
        )
        for position, item in enumerate(json.loads(_PATH.read_text()))
    ]


def _whole(text: str) -> bytes:
    """The bytes of a frame; one that was cut in the file (`...`) is filled up with zeros."""
    data = bytes.fromhex(text.removesuffix("..."))
    return data.ljust(frames.HEADER_BYTES + frames.parse_header(data)[1], b"\0")
