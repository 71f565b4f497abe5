"""What goes wrong with the writes of a history, drawn from a seed. Knows nothing of what is written."""

import contextlib
from collections.abc import Callable
from random import Random
from typing import Any

from aerospike import exception

TIMEOUT = 9
FATES = {"sent": 80, "lost": 4, "unanswered": 6, "late": 4, "killed": 3, "killed after": 3}

Send = Callable[[], Any]


class Killed(BaseException):
    """The process that was about to write is no more."""


class Client:
    """The official client, whose writes meet their fate.

    before: called before each write, with the set that it goes to. doomed: a set; who next writes to it is killed.
    """

    def __init__(self, client: Any, random: Random, before: Callable[[], None], tell: Callable[[str], None]) -> None:
        self.doomed = ""
        self._client = client
        self._random = random
        self._before = before
        self._tell = tell
        self._late: list[Send] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put(self, key: Any, *arguments: Any) -> Any:
        return self._write(key[1], lambda: self._client.put(key, *arguments))

    def batch_write(self, batch: Any, *arguments: Any) -> Any:
        return self._write(batch.batch_records[0].key[1], lambda: self._client.batch_write(batch, *arguments))

    def send_late(self) -> None:
        """Does what got no answer, and was still on its way."""
        while self._late:
            _try(self._late.pop(self._random.randrange(len(self._late))))

    def _write(self, set_name: str, send: Send) -> Any:
        if set_name == self.doomed:
            self.doomed = ""
            raise Killed
        self._before()
        if self._late and self._random.random() < 0.3:
            _try(self._late.pop(self._random.randrange(len(self._late))))
        (fate,) = self._random.choices(list(FATES), list(FATES.values()))
        match fate:
            case "sent":
                return send()
            case "unanswered":
                self._tell("a write gets no answer")
                _try(send)
            case "late":
                self._tell("a write gets no answer, and is done later")
                self._late.append(send)
            case "killed" | "killed after":
                self._tell(f"it is {fate} a write")
                if fate == "killed after":
                    _try(send)
                raise Killed
        error: Any = exception.TimeoutError(TIMEOUT, "no answer")
        error.code, error.msg, error.in_doubt = TIMEOUT, "no answer", True
        raise error


def _try(send: Send) -> None:
    with contextlib.suppress(exception.AerospikeError):
        send()
