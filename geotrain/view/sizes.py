"""How big the sets of the view are, as its nodes count them: estimates for whoever plans. Reads no record."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from geotrain.errors import DataError
from geotrain.view.keyed import Records
from geotrain.wire.info import decode_entries

# What servers before and after version 7 call the bytes of a set.
BYTES = ("data_used_bytes", "memory_data_bytes", "device_data_bytes")


class SetSize(NamedTuple):
    """One full copy of a set: its records, and the bytes that they take in the cluster."""

    num_records: int
    num_bytes: int


def set_sizes(view: Records, names: Iterable[str]) -> dict[str, SetSize]:
    """Returns the sizes of some sets. Raises DataError where one has no records, ViewError where no node answers."""
    namespace = view.config.namespace
    totals: dict[str, tuple[int, int]] = {}
    for _, reply in _ask(view, f"sets/{namespace}").values():
        for facts in decode_entries((reply or "").strip()):
            records, size = totals.get(facts["set"], (0, 0))
            own = sum(int(facts.get(name, 0)) for name in BYTES)
            totals[facts["set"]] = records + int(facts["objects"]), size + own
    sizes = {}
    for name in names:
        records, size = totals.get(name, (0, 0))
        if not records:
            known = ", ".join(sorted(name for name, total in totals.items() if total[0])) or "none"
            raise DataError(f"set {name}: namespace {namespace} has no records of it", f"it has these sets: {known}")
        sizes[name] = SetSize(-(-records // view.num_copies), -(-size // view.num_copies))
    return sizes


def _ask(view: Records, question: str) -> dict[str, Any]:
    """All nodes' answers. One that has died is asked in vain until the client knows that it has."""

    def read() -> dict[str, Any]:
        replies: dict[str, Any] = view.client.info_all(question, {"timeout": round(view.config.deadline_s * 1000)})
        return replies

    return view.persist("asking the nodes for the sizes of sets", read)
