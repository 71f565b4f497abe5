"""The roster: which nodes belong to a strongly consistent namespace, and its text form. Pure."""

import re
from collections.abc import Mapping
from typing import NamedTuple

_ENTRY = re.compile(r"([0-9A-Fa-f]{1,16})(?:@(\d{1,7}))?")
_ACTIVE_RACK = re.compile(r"M(\d{1,7})\|")


class Membership(NamedTuple):
    """What the nodes of a sub-cluster agreed on at a recluster. The higher version wins where two of them meet."""

    version: int
    roster: dict[str, int]
    """Rack by node id."""
    active_rack: int = 0
    """The rack on which all masters stand; 0: none, they are spread over all."""
    quiesced: frozenset[str] = frozenset()
    """Nodes that count, but hold nothing: nodes before maintenance, or a tie-breaker."""


def reclustered(before: Membership, pending: Membership, quiescing: Mapping[str, bool]) -> Membership:
    """What a recluster makes of a membership. quiescing: of the nodes present; the others stay as they were."""
    away = before.quiesced - quiescing.keys()
    quiesced = away | {name for name, is_quiescing in quiescing.items() if is_quiescing}
    return Membership(before.version + 1, pending.roster, pending.active_rack, quiesced)


def encode_roster(nodes: Mapping[str, int], active_rack: int = 0) -> str:
    """`M1|B@1,A@2`: the nodes in falling order of their ids, as servers write them; `null` where there is none."""
    if not nodes:
        return "null"
    prefix = f"M{active_rack}|" if active_rack else ""
    return prefix + ",".join(f"{node}@{rack}" if rack else node for node, rack in sorted(nodes.items(), reverse=True))


def decode_roster(text: str) -> tuple[dict[str, int], int]:
    """Rack by node id, and the active rack. Raises ValueError that says what is wrong."""
    active = _ACTIVE_RACK.match(text)
    nodes = {}
    for entry in filter(None, text[active.end() if active else 0 :].split(",")):
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise ValueError(f"bad roster node '{entry}'")
        nodes[found[1].upper()] = int(found[2] or 0)
    if not nodes:
        raise ValueError("no nodes")
    return nodes, int(active[1]) if active else 0
