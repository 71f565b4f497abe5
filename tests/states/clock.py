"""A simulated cluster whose clock a test advances; what counts time here goes with it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from geotrain.states import collect, publish
from sim.control import Control
from tests.conftest import ClusterUnderTest, free_port, simulated_cluster

SITES = ("ewr", "jfk", "lga")
STEP_S = 15.0  # nodes of which one is further ahead than 20 s take no writes
GRACE_S = 120.0


class Clock:
    """The time of the cluster, and of what publishes and collects in this process."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.ahead_s = 0.0

    def now_s(self) -> float:
        return time.monotonic() + self.ahead_s

    def advance(self, seconds: float) -> None:
        """Lets so much time pass everywhere."""
        end_s = self.ahead_s + seconds
        while self.ahead_s < end_s:
            self.ahead_s = min(self.ahead_s + STEP_S, end_s)
            for site in SITES:
                self.control.order(f"skew:site={site};ms={round(self.ahead_s * 1000)}")


@contextmanager
def aging_cluster(run_dir: Path) -> Iterator[tuple[ClusterUnderTest, Clock]]:
    """A cluster of three sites under strong consistency, and its clock."""
    port = free_port()
    with simulated_cluster(run_dir, f"control_port={port}") as hosts, Control(f"127.0.0.1:{port}") as control:
        cluster = ClusterUnderTest(
            hosts=hosts[: len(SITES)], namespace="geotrain", rack_ids=[1, 2, 3], strong_consistency=True
        )
        yield cluster, Clock(control)


def follow(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has publishers and collectors here count by the cluster's clock, and on a short grace."""
    for module in (publish, collect):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.now_s))
    monkeypatch.setattr(publish, "GRACE_S", GRACE_S)
