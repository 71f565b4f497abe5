"""What the coordinator remembers of its jobs, in the view. Knows no gRPC and takes no decision."""

import json
from collections.abc import Mapping
from typing import Any

from geotrain.view.connect import View

JOBS = "gt_jobs"
ROUNDS = "gt_rounds"


class Ledger:
    """Records of one job: the job itself under its id, each round under `<job>/<round>`.

    Every method may raise ViewError, and is safe to repeat: a write replaces the whole record.
    """

    def __init__(self, view: View, job: str) -> None:
        self._view = view
        self._job = job

    def job(self, status: str, reason: str, config: Mapping[str, Any]) -> None:
        """Note where the job stands. status: running, finished or failed."""
        self._view.put(JOBS, self._job, {"status": status, "reason": reason, "config": json.dumps(config)})

    def open_round(self, number: int, **facts: Any) -> None:
        self._view.put(ROUNDS, f"{self._job}/{number}", {"status": "open", "facts": json.dumps(facts)})

    def commit_round(self, number: int, **facts: Any) -> None:
        """From here on the round's updates are counted and the sites may drop their own copies."""
        self._view.put(ROUNDS, f"{self._job}/{number}", {"status": "committed", "facts": json.dumps(facts)})
