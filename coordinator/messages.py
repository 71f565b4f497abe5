"""An agent's messages as what they mean to a job's state machine, and what that asks of agents as messages. Pure."""

from typing import Any

import numpy as np

from coordinator import events, instructions
from coordinator.config import JobConfig
from coordinator.events import Event
from coordinator.facts import RoundFacts
from coordinator.instructions import Instruction
from coordinator.windows import window_bytes
from geotrain.rpc import coordinator_pb2 as pb
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
            return events.SitePrepared(site, held, body.cut_round, body.cut_number or 1)
        case "waiting":
            return events.SiteWaits(site, body.reason)
        case "failed":
            return events.SiteFailed(site, body.reason, None if body.asked == "prepare" else body.round)
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


def sites_of(instruction: Instruction) -> tuple[str, ...]:
    """The sites that are to be told of an instruction that is a message."""
    if isinstance(instruction, instructions.Prepare):
        return (instruction.site,)
    return getattr(instruction, "sites", ())


def to_message(job: str, instruction: Instruction, config: JobConfig) -> pb.ToAgent | None:
    """The message that asks it of agents; None for what asks nothing of them, or needs more than it says."""
    match instruction:
        case instructions.Prepare():
            return pb.ToAgent(prepare=pb.Prepare(job=job, task_json=config.task.to_json(), seed=config.seed))
        case instructions.ListCutRows(_, number, partitions):
            listed = [pb.SetPartitions(set=name, partitions=pids) for name, pids in partitions.items()]
            return pb.ToAgent(list_cut_rows=pb.ListCutRows(job=job, round=number, sets=listed))
        case instructions.DecideCut():
            drop = [
                pb.SetDigests(set=name, digests=np.ascontiguousarray(digests).tobytes())
                for name, digests in instruction.drop.items()
            ]
            return pb.ToAgent(cut_decided=pb.CutDecided(job=job, round=instruction.round, drop=drop))
        case instructions.AskStatistics(_, number):
            return pb.ToAgent(report_statistics=pb.ReportStatistics(job=job, round=number))
        case instructions.Train(_, number, base_version):
            train = pb.Train(job=job, round=number, base_version=base_version)
            train.ahead_bytes = window_bytes(len(config.sites))
            return pb.ToAgent(train=train)
        case instructions.Localize(_, base_version):
            localize = pb.Localize(job=job, base_version=base_version, rounds=config.rounds)
            localize.ahead_bytes = window_bytes(len(config.sites))
            return pb.ToAgent(localize=localize)
    return None


def scan_message(job: str, opened: RoundFacts) -> pb.ToAgent:
    """What asks sites for the cut of a round."""
    scan = pb.ScanCut(job=job, round=opened.round, until_ns=opened.until_ns, number=opened.cut_number)
    return pb.ToAgent(scan_cut=scan)


def committed_message(job: str, site: str, published: instructions.PublishRound, version: int) -> pb.ToAgent:
    """What a site is told of a committed round: whether its update is in it."""
    counted = next((update.round for update in published.updates if update.site == site), 0)
    return pb.ToAgent(
        round_committed=pb.RoundCommitted(
            job=job,
            round=published.round,
            version=version,
            counted=counted,
            oldest=published.oldest,
            reason=published.absent.get(site, ""),
        )
    )
