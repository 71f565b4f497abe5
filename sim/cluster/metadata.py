"""What of a cluster survives a restart of its process beside the records, to and from text. Pure.

A real server calls it system metadata. Racks and quiescing are not in it: they are configured, and start anew.
"""

import json
from typing import Any, NamedTuple

from sim.cluster.execution.indexes import Definition
from sim.cluster.sites.roster import Membership, decode_roster, encode_roster

TruncateLuts = dict[bytes | None, int]
"""By set (None: the whole namespace) when its records must have been written at least, in milliseconds since 1970."""


class Metadata(NamedTuple):
    """All that is agreed on about a namespace."""

    regime: int
    """The highest so far: none of a later time may be as low."""
    membership: Membership
    pending: Membership
    """What the membership will be after the next recluster."""
    indexes: dict[str, Definition]
    truncate_luts: TruncateLuts


def truncated_before_ms(luts: TruncateLuts, set_name: bytes) -> int:
    """What was last written to a set before this moment has been truncated; 0: nothing has."""
    return max(luts.get(None, 0), luts.get(set_name, 0)) if luts else 0


def encode(metadata: Metadata) -> bytes:
    """As one line of text."""
    luts = metadata.truncate_luts
    values = {
        "regime": metadata.regime,
        "membership": _encode_membership(metadata.membership),
        "pending": _encode_membership(metadata.pending),
        "indexes": {name: [_encode_field(field) for field in index] for name, index in metadata.indexes.items()},
        "namespace_lut": luts.get(None, 0),
        "set_luts": {name.decode(): lut for name, lut in luts.items() if name is not None},
    }
    return json.dumps(values).encode()


def decode(text: bytes) -> Metadata:
    """The opposite of `encode`."""
    values = json.loads(text)
    luts: TruncateLuts = {name.encode(): lut for name, lut in values["set_luts"].items()}
    if values["namespace_lut"]:
        luts[None] = values["namespace_lut"]
    indexes = {name: Definition(*map(_decode_field, fields)) for name, fields in values["indexes"].items()}
    membership, pending = _decode_membership(values["membership"]), _decode_membership(values["pending"])
    return Metadata(values["regime"], membership, pending, indexes, luts)


def _encode_field(field: Any) -> Any:
    """Bytes become text, and all text was bytes."""
    return field.decode("latin-1") if isinstance(field, bytes) else field


def _decode_field(field: Any) -> Any:
    return field.encode("latin-1") if isinstance(field, str) else field


def _encode_membership(membership: Membership) -> list[int | str]:
    return [membership.version, encode_roster(membership.roster, membership.active_rack)]


def _decode_membership(values: tuple[int, str]) -> Membership:
    version, text = values
    return Membership(version, *decode_roster(text))
