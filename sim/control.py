"""Orders to a running simulation: a control port, a client for it, and a command line.

`python -m sim.control HOST:PORT ORDER...`, as in `127.0.0.1:3100 "kill:node=jfk;memory=lost" log`; or with a script of
orders and their times; or with a seed of which these are drawn. Orders travel as info requests do.
"""

import argparse
import asyncio
import logging
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

from geotrain.errors import ConfigError
from geotrain.wire.codes import ProtocolError, ResultCode
from geotrain.wire.frames import INFO, Frame, FrameReader, encode_frame
from geotrain.wire.info import decode_parameters, decode_reply, decode_request, encode_reply, encode_request
from sim import schedule
from sim.schedule import Order

log = logging.getLogger(__name__)

DEADLINE_S = 30.0
MAX_EVENTS = 100_000
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_READ_BYTES = 1 << 16

Command = Callable[[dict[str, str]], Awaitable[str | None]]
"""Carries out an order, given its parameters. Returns what was asked for, or nothing where something was done."""


class OrderError(ValueError):
    """An order that can't be carried out, and why."""


class Events:
    """What was done to a simulation and what it did wrong, each with its time in seconds since the start."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=MAX_EVENTS)
        self._started_s = time.monotonic()

    def add(self, text: str) -> None:
        """Something happens now."""
        self.lines.append(f"{time.monotonic() - self._started_s:.3f} {text}")
        log.info("fault: %s", text)


class Orders:
    """Carries out orders by name."""

    def __init__(self, commands: Mapping[str, Command], events: Events) -> None:
        """events: where the orders that were carried out are noted."""
        self._commands = {**commands, "help": self._help, "log": self._past}
        self._events = events

    async def order(self, text: str) -> str:
        """Carry out `name:parameter=value;...`. Returns `ok`, what was asked for, or `ERROR:4:` and what is wrong."""
        name, _, parameters = text.partition(":")
        try:
            if name not in self._commands:
                raise OrderError(f"no such order: {name}; there are {', '.join(self._commands)}")
            answer = await self._commands[name](decode_parameters(parameters))
        except OrderError as error:
            return f"ERROR:{int(ResultCode.PARAMETER)}:{error}"
        if answer is not None:
            return answer
        self._events.add(text)
        return "ok"

    async def _help(self, values: dict[str, str]) -> str:
        """help: all orders, one a line."""
        return "|".join(" ".join((command.__doc__ or "").split()) for command in self._commands.values())

    async def _past(self, values: dict[str, str]) -> str:
        """log: all faults so far, one a line, each with its time in seconds since the start."""
        return "|".join(self._events.lines)


def check_names(values: dict[str, str], *known: str) -> None:
    """Refuse parameters that an order does not take, so that none is misspelt unnoticed. Raises OrderError."""
    if unknown := [name for name in values if name not in known]:
        raise OrderError(f"{unknown[0]} is not a parameter of this order; there are {', '.join(known)}")


def number(values: dict[str, str], name: str, *, default: float = 0.0, low: float = 0.0, high: float = 1e12) -> float:
    """A parameter that is a number. Raises OrderError."""
    try:
        value = float(values.get(name, default))
    except ValueError:
        raise OrderError(f"{name} must be a number, got {values[name]!r}") from None
    if not low <= value <= high:
        raise OrderError(f"{name} must be between {low:g} and {high:g}, got {value:g}")
    return value


def one_of(values: dict[str, str], name: str, *choices: str) -> str:
    """A parameter that is one of some words; the first of them where it is not given. Raises OrderError."""
    value = values.get(name, choices[0])
    if value not in choices:
        raise OrderError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


async def listen(orders: Orders, host: str, port: int) -> tuple[asyncio.Server, int]:
    """Take orders. Returns the listener and its port. Raises ConfigError for a port in use."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        try:
            while data := await reader.read(_READ_BYTES):
                for kind, body in frames.feed(data):
                    if kind != INFO:
                        raise ProtocolError("only info requests are answered here")
                    answers = [(text, await orders.order(text)) for text in decode_request(body)]
                    writer.write(encode_frame(INFO, encode_reply(answers)))
                await writer.drain()
        except (ProtocolError, ConnectionError):
            pass  # the connection ends
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(serve, host, port)
    except OSError as error:
        raise ConfigError(
            f"control_port: {host}:{port} can't be listened on: {error.strerror}", "Set control_port=0 to take any."
        ) from None
    return server, server.sockets[0].getsockname()[1]


class Control:
    """The control port of a running simulation, from another process."""

    def __init__(self, address: str) -> None:
        """Connect. Raises ValueError for what is no address, ConnectionError where nobody listens."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"address must be host:port, got {address!r}")
        try:
            self._socket = socket.create_connection((host, int(port)), timeout=DEADLINE_S)
        except (OSError, OverflowError) as error:
            raise ConnectionError(f"{address} can't be reached: {error}; the simulation says its address") from None
        self._reader = FrameReader()

    def __enter__(self) -> "Control":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def order(self, text: str) -> str:
        """Carry out one order. Returns its answer. Raises OrderError where it is refused."""
        self._socket.sendall(encode_frame(INFO, encode_request([text])))
        frames: list[Frame] = []
        while not frames:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionError("the control port hung up")
            frames = self._reader.feed(data)
        ((_, answer),) = decode_reply(frames[0].body)
        if answer.startswith("ERROR:"):
            raise OrderError(answer.split(":", 2)[2])
        return answer

    def play(self, orders: Iterable[Order]) -> None:
        """Carry out orders, each at its time from now on. Raises OrderError where one is refused."""
        started_s = time.monotonic()
        for order in orders:
            time.sleep(max(0.0, started_s + order.at_s - time.monotonic()))
            try:
                self.order(order.text)
            except OrderError as error:
                raise OrderError(f"{order}: {error}") from None

    def nodes(self) -> dict[str, list[str]]:
        """The nodes of a simulated cluster by their sites. Raises OrderError where there is none."""
        nodes: dict[str, list[str]] = {}
        for facts in map(decode_parameters, self.order("state").split("|")):
            nodes.setdefault(facts["site"], []).append(facts["node"])
        return nodes


def _play_seed(address: str, seed: int, chosen: Sequence[str], duration_s: float) -> None:
    """Draw faults at the chosen sites (none: all), print them as a script, and play it.

    Interrupted, all is made whole at once. Raises OrderError, or ValueError for what can't be drawn.
    """
    with Control(address) as control:
        nodes = control.nodes()
        sites = chosen or sorted(nodes)
        if unknown := [site for site in sites if site not in nodes]:
            raise OrderError(f"--sites: no node stands at {unknown[0]!r}; there are {', '.join(sorted(nodes))}")
        neighbours = [name for site in sites for name in nodes[site] if len(nodes[site]) > 1]
        drawn = schedule.draw(seed, sites, duration_s, neighbours)
        try:
            print(*drawn, sep="\n", flush=True)
            control.play(drawn)
        except KeyboardInterrupt:
            with Control(address) as healer:  # the other may be owed an answer
                for text in schedule.healing(sites):
                    healer.order(text)
            raise


def main(arguments: list[str]) -> int:
    """Give the orders that the arguments name. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sim.control", description="Orders to a running simulation.")
    parser.add_argument("address", help="host:port, as the simulation says when it is ready")
    parser.add_argument("orders", nargs="*", metavar="order", help="what is done now; `help` lists all orders")
    parser.add_argument("--script", type=Path, help="a file of lines `SECONDS ORDER`: what is done when")
    parser.add_argument("--seed", type=int, help="draw faults of this seed, print them as a script, and play it")
    parser.add_argument("--duration-s", type=float, default=60.0, help="of the drawn faults; then all is whole again")
    parser.add_argument("--sites", help="where faults are drawn, as a,b,c; by default wherever nodes stand")
    given = parser.parse_intermixed_args(arguments)
    if sum((bool(given.orders), given.script is not None, given.seed is not None)) != 1:
        parser.error("give either orders, --script or --seed")
    try:
        script = schedule.parse(given.script.read_text()) if given.script else []
        if given.seed is not None:
            _play_seed(given.address, given.seed, given.sites.split(",") if given.sites else [], given.duration_s)
            return 0
        with Control(given.address) as control:
            for text in given.orders:
                print(*control.order(text).split("|"), sep="\n")
            control.play(script)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        left = "what is broken now stays so until it is healed" if given.seed is None else "all is made whole"
        print(f"stopped: {left}", file=sys.stderr)
        return 130
    return 0


def _interrupt_once(*signal_and_frame: object) -> None:
    """Whoever stops a program often says so twice, and the second time must not stop the healing."""
    for stop in STOP_SIGNALS:
        signal.signal(stop, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    for stop in STOP_SIGNALS:
        signal.signal(stop, _interrupt_once)
    sys.exit(main(sys.argv[1:]))
