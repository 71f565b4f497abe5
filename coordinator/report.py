"""What became of a job, in numbers: what `python -m coordinator.launch` leaves behind. Pure: folds the job's events."""

import math
from collections.abc import Iterable
from typing import Any

from geotrain.rpc import coordinator_pb2 as pb


def report(events: Iterable[pb.JobEvent]) -> dict[str, Any]:
    """Returns the content of report.json, of all events that a job had; docs/reference/report.md has its fields."""
    found: dict[str, Any] = {"job": {}, "view": {}, "rounds": [], "sites": {}}
    cuts: dict[int, dict[str, Any]] = {}
    for event in events:
        match event.WhichOneof("body"):
            case "started":
                found["view"] = {"consistency": event.started.consistency, "racks": event.started.racks}
            case "cut":
                cut = event.cut
                cuts[cut.round] = {"rows": cut.rows, "dropped": cut.dropped, "equal": cut.equal}
            case "round":
                found["rounds"].append(_round(event.round, cuts.get(event.round.round)))
            case "localized":
                localized = event.localized
                metrics = {name: _finite(value) for name, value in sorted(localized.metrics.items())}
                found["sites"][localized.site] = {"rows": localized.rows, "metrics": metrics, "state": localized.state}
            case "ended":
                ended = event.ended
                found["job"] = {"id": event.job, "finished": ended.status == "finished", "reason": ended.reason}
    return found


def _round(event: pb.RoundEvent, cut: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "round": event.round,
        "seconds": round(event.seconds, 2),
        "cut": cut,
        "bytes_up": event.bytes_up,
        "bytes_down": event.bytes_down,
        "loss": {site: _finite(loss) for site, loss in sorted(event.loss.items())},
        "version": event.version,
        "reason": event.reason,
    }


def _finite(number: float) -> float | None:
    """JSON has no other numbers."""
    return number if math.isfinite(number) else None
