"""Reads a small set whole through the official client: for who need not load Arrow, and a compiler. Reads no copies
but the masters'.
"""

from typing import Any

from geotrain.view.keyed import Records


def read_set(view: Records, set_name: str, bins: list[str]) -> list[dict[str, Any]]:
    """Returns these bins of every record, in no order; of a set that is not there, none. Raises ViewError.

    All of them are in memory at once: use `View.scan` where they may be more than some thousands.
    """
    config = view.config
    deadline_ms = round(config.deadline_s * 1000)
    policy = {"total_timeout": deadline_ms, "socket_timeout": deadline_ms, "max_retries": 0}

    def read() -> list[dict[str, Any]]:
        query = view.client.query(config.namespace, set_name)
        query.select(*bins)
        return [found for _, _, found in query.results(policy)]

    return view.persist(f"reading the set {set_name}", read)
