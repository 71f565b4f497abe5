"""What operations on lists and maps take and answer. Pure."""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from geotrain.wire.codes import Particle, ResultCode
from sim.cluster.values.elements import integer
from sim.cluster.values.refused import Refused

Arguments = list[bytes]
"""The arguments of an operation, each packed."""

Result = tuple[int, bytes]
"""What an operation answers: the particle type and the bytes of a value."""

NOTHING: Result = (Particle.NIL, b"")


class Change(NamedTuple):
    """An operation that changes a list or a map."""

    change: Callable[[Any, Arguments], Result]
    num_arguments: tuple[int, int]
    """At least and at most."""
    creates: bool = False
    """Whether it makes a list or map where there is none, rather than nothing."""
    flags_at: int = 9
    """The argument, if there are so many, with the flags of what it makes."""


class Read(NamedTuple):
    """An operation that reads a list or a map."""

    read: Callable[[Any, Arguments], Result]
    num_arguments: tuple[int, int]


def check_number(arguments: Arguments, num_arguments: tuple[int, int]) -> None:
    """Raises Refused where there are too few arguments or too many."""
    if not num_arguments[0] <= len(arguments) <= num_arguments[1]:
        raise Refused(ResultCode.PARAMETER)


def flag(arguments: Arguments, position: int) -> int:
    """The flags in an argument that may be left out."""
    return integer(arguments[position]) if len(arguments) > position else 0


def integer_result(value: int) -> Result:
    """An integer as the answer of an operation."""
    return Particle.INTEGER, struct.pack(">q", value)
