"""Read modes: whose copy answers a read, and who must agree. Pure: knows no copies."""

from enum import StrEnum

from geotrain.wire.codes import INFO3_SC_READ_RELAX, INFO3_SC_READ_TYPE


class ReadMode(StrEnum):
    """What a client of a strongly consistent namespace asks for."""

    SESSION = "session"
    LINEARIZE = "linearize"
    ALLOW_REPLICA = "allow replica"
    ALLOW_UNAVAILABLE = "allow unavailable"


class Source(StrEnum):
    """Where an answer comes from."""

    OWN_COPY = "the copy of the node that is asked"
    MASTER = "the acting master's copy"
    CONFIRMED_MASTER = "the acting master's copy, once every replica has confirmed that it still is the master"
    NOWHERE = "nowhere: the partition is unavailable"


_TYPE_AND_RELAX = INFO3_SC_READ_TYPE | INFO3_SC_READ_RELAX
_MODES = {
    0: ReadMode.SESSION,
    INFO3_SC_READ_TYPE: ReadMode.LINEARIZE,
    INFO3_SC_READ_RELAX: ReadMode.ALLOW_REPLICA,
    _TYPE_AND_RELAX: ReadMode.ALLOW_UNAVAILABLE,
}


def read_mode(info3: int) -> ReadMode:
    """The mode that a request's third flag byte asks for."""
    return _MODES[info3 & _TYPE_AND_RELAX]


def source(mode: ReadMode, *, is_strong: bool, is_served: bool, has_copy: bool) -> Source:
    """Whose copy answers.

    is_strong: whether the namespace is strongly consistent; otherwise modes mean nothing, and any copy does.
    is_served: whether the sub-cluster may serve the partition. has_copy: whether the node that is asked holds one.
    """
    if not is_served:
        return Source.OWN_COPY if mode is ReadMode.ALLOW_UNAVAILABLE and has_copy else Source.NOWHERE
    if has_copy and (not is_strong or mode in (ReadMode.ALLOW_REPLICA, ReadMode.ALLOW_UNAVAILABLE)):
        return Source.OWN_COPY
    return Source.CONFIRMED_MASTER if is_strong and mode is ReadMode.LINEARIZE else Source.MASTER
