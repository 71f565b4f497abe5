"""Removes records that nobody wrote for a while, and keeps others from being removed. The server decides, each time.

It does by its own clock and by the record's generation, so that no reader's clock matters, and no request that arrives
late does harm. Knows nothing of what the records mean.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import aerospike
from aerospike_helpers import expressions
from aerospike_helpers.batch.records import Remove, Write
from aerospike_helpers.operations import operations

from geotrain.view.keyed import FILTERED_OUT, NOT_FOUND, Records
from geotrain.view.settle import settle

OTHER_GENERATION = 3
SETTLED = (0, NOT_FOUND, OTHER_GENERATION, FILTERED_OUT)
MAX_RECORDS = 200_000  # that are listed at once


class Idle(NamedTuple):
    """A record that was not written for a while."""

    digest: bytes
    generation: int


def digest_of(view: Records, set_name: str, key: str) -> bytes:
    """Returns what the server calls a record."""
    return bytes(aerospike.calc_digest(view.config.namespace, set_name, key))


def idle_records(view: Records, set_name: str, idle_s: float, *, but: Collection[bytes] = ()) -> list[Idle]:
    """Returns records of a set that were not written for so long, MAX_RECORDS at most. but: digests that are left out.

    Reads no bins, and no copies but the masters'. Raises ViewError.
    """
    config = view.config
    deadline_ms = round(config.scan_deadline_s * 1000)
    policy = {"total_timeout": deadline_ms, "socket_timeout": deadline_ms, "expressions": _idle_for(idle_s)}

    def read() -> list[Idle]:
        found: list[Idle] = []

        def take(row: tuple[Any, dict[str, int], Any]) -> bool:
            (*_, digest), meta, _ = row
            if bytes(digest) not in but:
                found.append(Idle(bytes(digest), meta["gen"]))
            return len(found) < MAX_RECORDS

        view.client.query(config.namespace, set_name).foreach(take, policy, {"nobins": True})
        return found

    return view.persist(f"listing the set {set_name}", read)


def remove_idle(view: Records, set_name: str, records: Sequence[Idle], idle_s: float) -> int:
    """Removes those that are still as they were listed, and not written for so long. Returns how many are not there.

    Raises ViewError where the cluster does not settle it for `ride_through_s`.
    """
    policy = {
        "gen": aerospike.POLICY_GEN_EQ,
        "expressions": _idle_for(idle_s),
        "durable_delete": view.consistency == "strong",
    }

    def remove(record: Idle) -> Remove:
        key = (view.config.namespace, set_name, None, bytearray(record.digest))
        return Remove(key, policy | {"generation": record.generation})

    generations = {record.digest: record for record in records}
    results = settle(view, set_name, list(generations), lambda digest: remove(generations[digest]), SETTLED)
    return sum(result in (0, NOT_FOUND) for result in results.values())


def renew(view: Records, set_name: str, keys: Sequence[str], idle_s: float) -> list[bool]:
    """Returns for each key whether there is a record, as the masters know it.

    One that was not written for so long is written again as it is, and so not idle any more. Raises ViewError.
    """
    policy = {"exists": aerospike.POLICY_EXISTS_UPDATE, "expressions": _idle_for(idle_s)}
    results = settle(
        view, set_name, keys, lambda key: Write(view.key(set_name, key), [operations.touch()], policy=policy), SETTLED
    )
    return [results[key] != NOT_FOUND for key in keys]


def _idle_for(idle_s: float) -> Any:
    return expressions.GE(expressions.SinceUpdateTime(), round(idle_s * 1000)).compile()
