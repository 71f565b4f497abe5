"""An agent's messages as what they mean to a job's state machine. Pure: knows no stream."""

from typing import Any

import numpy as np

from coordinator import events
from coordinator.events import Event
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Statistics
from geotrain.view.cut import Rows
from geotrain.wire.partitions import NUM_PARTITIONS


def to_event(site: str, kind: str, body: Any, task: TaskConfig) -> Event | None:
    """The state machine's event for an agent's message; None for one that is no event.

    Raises ValueError, KeyError or TypeError for a message that does not fit the task.
    """
    if kind in ("cut_report", "cut_rows") and (unknown := {listed.set for listed in body.sets} - task.view.keys()):
        raise ValueError(f"sets that the task does not read: {', '.join(sorted(unknown))}")
    match kind:
        case "prepared":
            held = events.Held(body.held.round, body.held.base_version) if body.HasField("held") else None
            return events.SitePrepared(site, held, body.cut_round)
        case "failed":
            return events.SiteFailed(site, body.reason, body.round or None)
        case "cut_report":
            return events.CutReported(
                site,
                body.round,
                {report.set: report.rows for report in body.sets},
                {
                    report.set: np.frombuffer(report.fingerprints, dtype="<u8").reshape(NUM_PARTITIONS)
                    for report in body.sets
                },
            )
        case "cut_rows":
            return events.CutRowsListed(
                site,
                body.round,
                {
                    listed.set: Rows(
                        np.frombuffer(listed.digests, dtype=np.uint8).reshape(-1, 20),
                        np.array(listed.generations, dtype=np.uint32),
                    )
                    for listed in body.sets
                },
            )
        case "statistics":
            statistics = Statistics.from_json(body.statistics_json)
            if [*statistics.numeric, *statistics.categorical] != [*task.numeric(), *task.categorical()]:
                raise ValueError("statistics of other features than the task's")
            return events.StatisticsReported(site, statistics)
    return None
