from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ClusterUnderTest
from tests.simulation.histories import record_histories
from tests.simulation.linearizability import violation

NUM_CLIENTS = 4


@pytest.fixture(scope="module")
def clients(cluster: ClusterUnderTest) -> Iterator[list[Any]]:
    """Official clients that know nothing of each other. For a strongly consistent namespace only."""
    if not cluster.strong_consistency:
        pytest.skip(f"namespace {cluster.namespace} is not strongly consistent")
    clients = [cluster.connect() for _ in range(NUM_CLIENTS)]
    yield clients
    for client in clients:
        client.close()


@pytest.mark.parametrize("batch", range(2))
def test_histories_without_faults_are_linearizable(clients: list[Any], cluster: ClusterUnderTest, batch: int) -> None:
    for seed in range(batch * 50, (batch + 1) * 50):
        (history,) = record_histories(clients, [(cluster.namespace, "histories", seed)], seed, num_steps=10)
        assert len(history) == NUM_CLIENTS * 10
        assert violation(history) is None, f"seed {seed}"
    clients[0].truncate(cluster.namespace, "histories", 0)


class StaleReads:
    """A client with a planted fault: it answers a read with what it once read there."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._answers: dict[Any, Any] = {}
        self.put = client.put

    def get(self, key: Any, policy: Any) -> Any:
        return self._answers.setdefault(key, self._client.get(key, policy))


def test_one_client_that_reads_stale_values_is_caught(clients: list[Any], cluster: ClusterUnderTest) -> None:
    key = (cluster.namespace, "histories", -1)
    (history,) = record_histories([StaleReads(clients[0]), *clients[1:]], [key], seed=1, num_steps=40)
    assert "read generation" in (violation(history) or "")
