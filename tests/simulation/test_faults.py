import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import aerospike
import pytest

from sim.control import Control
from sim.schedule import draw
from tests.conftest import simulated_cluster
from tests.sim.cluster.wire_client import WireClient
from tests.simulation.histories import read_finally, record_histories
from tests.simulation.linearizability import Operation, violation

SITES = ("ewr", "jfk", "lga")
NUM_SCHEDULES = 25
NUM_RECORDS = 10
NUM_STEPS = 60


class Regions:
    """A simulated cluster and two official clients at each of its sites."""

    def __init__(self, address: str) -> None:
        with WireClient(address) as client:
            self.control = Control(client.info("sim-control"))
        state = self.control.order("state")
        seeds = {site: re.search(rf"node={site};.*?{site}@([\d.]+):(\d+)", state) for site in SITES}
        self.clients = []
        for site in SITES * 2:
            seed = seeds[site]
            assert seed is not None
            config = {"hosts": [(seed.group(1), int(seed.group(2)))], "tend_interval": 250}
            self.clients.append(aerospike.client(config).connect())

    def close(self) -> None:
        for client in self.clients:
            client.close()

    def histories(self, seed: int, orders: Mapping[int, Sequence[str]]) -> list[list[Operation]]:
        """What the clients saw of some records while faults came and went by step, and what was left at the end."""

        def before_step(step: int) -> None:
            for order in orders.get(step, ()):
                self.control.order(order)

        keys = [("geotrain", "faults", seed * NUM_RECORDS + number) for number in range(NUM_RECORDS)]
        histories = record_histories(self.clients, keys, seed, NUM_STEPS, before_step)
        for key, history in zip(keys, histories, strict=True):
            history += [read_finally(client, number, key) for number, client in enumerate(self.clients)]
        return histories


@contextmanager
def running(run_dir: Path, *overrides: str) -> Iterator[Regions]:
    with simulated_cluster(run_dir, f"client_sites=[{','.join(SITES)}]", *overrides) as addresses:
        regions = Regions(addresses[0])
        try:
            yield regions
        finally:
            regions.close()


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Regions]:
    """A strongly consistent cluster of three sites."""
    with running(tmp_path_factory.mktemp("regions")) as regions:
        yield regions


def drawn(seed: int) -> dict[int, list[str]]:
    """The faults of a seed, where a step of the first client stands for a second. The last steps are without any."""
    orders: dict[int, list[str]] = {}
    for order in draw(seed, SITES, NUM_STEPS - 5):
        orders.setdefault(int(order.at_s), []).append(order.text)
    return orders


@pytest.mark.parametrize("seed", range(NUM_SCHEDULES))
def test_histories_with_faults_are_linearizable(regions: Regions, seed: int) -> None:
    for number, history in enumerate(regions.histories(seed, drawn(seed))):
        assert violation(history) is None, f"record {number} of seed {seed}"


def test_a_write_whose_answer_was_lost_took_effect_so_that_to_call_it_failed_is_wrong(regions: Regions) -> None:
    orders = {step: [f"misbehave:node={site};kind=drop" for site in SITES] for step in range(5, 50, 5)}
    histories = regions.histories(NUM_SCHEDULES, orders)
    assert all(violation(history) is None for history in histories)
    for order in SITES:
        regions.control.order(f"behave:node={order}")
    certain = [[operation for operation in history if not operation.is_in_doubt] for history in histories]
    assert any(violation(history) is not None for history in certain)


def test_without_strong_consistency_a_site_that_was_cut_off_is_a_violation(tmp_path: Path) -> None:
    with running(tmp_path, "strong_consistency=false") as regions:
        histories = regions.histories(0, {5: ["cut:site=ewr"], 50: ["heal:site=ewr"]})
    assert any(violation(history) is not None for history in histories)
