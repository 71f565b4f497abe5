"""The events of a job as a coordinator tells them, for tests and for looking at the report."""

import math

from geotrain.rpc import coordinator_pb2 as pb
from sim.history import History
from sim.measure import Latency, Measured, OneFlight
from sim.relay import Counts
from sim.report import Facts

SITES = ("ewr", "jfk", "lga")
START_S = 1_700_000_000.0
AUC = {"ewr": (0.694, 0.744, 0.7512), "jfk": (0.641, 0.715, 0.7236), "lga": (0.688, 0.751, 0.7581)}


def progress(time_s: float, site: str, phase: str, number: int, rows: int = 0, loss: float = math.nan) -> pb.JobEvent:
    body = pb.Progress(
        job="j1",
        round=number,
        phase=phase,
        rows=rows,
        loss=loss,
        bytes_up=number * 400_000,
        bytes_down=number * 700_000,
    )
    return pb.JobEvent(time_s=START_S + time_s, job="j1", site=pb.SiteEvent(site=site, progress=body))


def job(num_rounds: int = 6) -> list[pb.JobEvent]:
    """A whole job that went well."""
    started = pb.JobStarted(sites=SITES, rounds=num_rounds, consistency="strong", racks=3)
    events = [pb.JobEvent(time_s=START_S, job="j1", started=started)]
    now_s = 1.0
    for site in SITES:
        events += [progress(now_s, site, "preparing", 0), progress(now_s + 0.8, site, "idle", 0)]
    for number in range(1, num_rounds + 1):
        now_s += 1
        for lag, site in enumerate(SITES):
            join_s = 12 if number == 1 else 0.2
            at = now_s + 0.3 * lag
            events.append(progress(at, site, "scanning", number))
            events.append(progress(at + 3, site, "idle", number))
            events.append(progress(at + 3.5, site, "joining", number))
            events.append(progress(at + 3.5 + join_s, site, "training", number, 90_000))
            loss = 0.52 - 0.02 * number - 0.01 * lag
            events.append(progress(at + 8.5 + join_s, site, "uploading", number, 90_000, loss))
            events.append(progress(at + 8.9 + join_s, site, "idle", number, 90_000, loss))
        cut = pb.CutEvent(round=number, rows=330_668, dropped=0 if number != 2 else 17, equal=number != 2)
        events.append(pb.JobEvent(time_s=START_S + now_s + 3.5, job="j1", cut=cut))
        now_s += 9.6 + join_s
        committed = pb.RoundEvent(
            round=number,
            seconds=9.6 + join_s,
            version=number + 1,
            bytes_up=1_300_000,
            bytes_down=2_400_000 if number > 1 else 900_000,
            loss={site: 0.52 - 0.02 * number - 0.01 * lag for lag, site in enumerate(SITES)},
            reason="every live site reported: 3 of 3 sites reported, 2 needed",
        )
        events.append(pb.JobEvent(time_s=START_S + now_s, job="j1", round=committed))
    for lag, site in enumerate(SITES):
        events.append(progress(now_s + 0.2 * lag, site, "localizing", 0, 90_000, 0.4))
        events.append(progress(now_s + 7 + lag, site, "idle", 0, 90_000, 0.4))
        metrics = dict(zip(("local_only", "global", "localized"), AUC[site], strict=True))
        localized = pb.LocalizedEvent(site=site, state=f"flights/site/{site}@1", rows=90_000 + lag, metrics=metrics)
        events.append(pb.JobEvent(time_s=START_S + now_s + 7 + lag, job="j1", localized=localized))
    ended = pb.JobEnded(job="j1", status="finished", reason="all rounds committed")
    events.append(pb.JobEvent(time_s=START_S + now_s + 10, job="j1", ended=ended))
    return events


def history(events: list[pb.JobEvent] | None = None) -> History:
    told = History()
    for event in job() if events is None else events:
        told.apply(event)
    return told


def facts(told: History | None = None) -> Facts:
    """A report's facts: all is reached but one threshold."""
    told = told or history()
    return Facts(
        wall_s=214.3,
        simulated=True,
        min_auc={"ewr": 0.745, "jfk": 0.725, "lga": 0.755},
        min_gain=0.04,
        history=told,
        measured=Measured(
            state_lookup=Latency(131.2, 240.9),
            key_lookup=Latency(118.0, 210.5),
            auc_by_lookup={site: localized.metrics["localized"] for site, localized in told.localized.items()},
            one_flight=OneFlight("N14228", "UA-1481-EWR-20131228", 5, 0.21, 5400.0),
            rows={},
        ),
        wire={site: Counts(up=2_500_000, down=300_000, connections=1, captured=2_500_000) for site in SITES},
        rows_found={site: {"flights": 0, "weather": 0, "features": 0} for site in SITES},
        undeclared={},
        peak_memory_bytes=4_900_000_000,
        setup_s={"cluster": 1.2, "data": 14.8, "job": 160.0, "look-ups": 12.0, "stop": 4.0, "wiretap": 12.0},
    )
