"""Every seed another history of thirty seconds with faults, in virtual time; and the harness sees what is planted."""

import asyncio
from collections.abc import Callable

import pytest

from geotrain.wire import codes
from geotrain.wire.partitions import partition_of
from sim.cluster.records import Record
from sim.cluster.sites import rebalance
from sim.cluster.sites.availability import Status
from sim.cluster.sites.subclusters import RecordSet
from tests.simulation import virtual
from tests.simulation.linearizability import Kind, violation

SEEDS_PER_TEST = 25


@pytest.mark.parametrize("first", range(0, 500, SEEDS_PER_TEST))
def test_histories_with_faults_are_linearizable(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        for number, history in enumerate(virtual.run(seed)):
            assert violation(history) is None, f"record {number} of seed {seed}"


def test_a_seed_says_it_all() -> None:
    assert virtual.run(3) == virtual.run(3)
    assert virtual.run(3) != virtual.run(4)


def test_the_histories_have_what_is_worth_checking() -> None:
    operations = [operation for seed in range(10) for history in virtual.run(seed) for operation in history]
    assert len(operations) > 2000
    for kind in Kind:
        assert sum(operation.kind == kind and not operation.is_in_doubt for operation in operations) > 300
        assert sum(operation.kind == kind and operation.is_in_doubt for operation in operations) > 20
    assert sum(operation.refused for operation in operations) > 20


def acknowledge_before_replication(patch: pytest.MonkeyPatch) -> None:
    """A write is on the replicas only a while after its acknowledgement."""
    put = RecordSet.put

    def put_here_first(self: RecordSet, digest: bytes, record: Record | None) -> None:
        pid = partition_of(digest)
        whole = self._copies_to_write(pid)
        self._copies[pid] = whole[:1]
        put(self, digest, record)
        self._copies[pid] = whole
        assert record is not None, "no client deletes"
        for copy in whole[1:]:
            asyncio.get_running_loop().call_later(0.5, copy.__setitem__, digest, record)

    patch.setattr(RecordSet, "put", put_here_first)


def serve_without_a_majority(patch: pytest.MonkeyPatch) -> None:
    """Every side of a cut goes on, and the records that were written last are taken for the newest."""
    patch.setattr(rebalance, "status", lambda *nodes, is_newest_there: Status.AVAILABLE)


def read_an_old_regime(patch: pytest.MonkeyPatch) -> None:
    """Whoever is cut off answers reads with what it has."""
    patch.setattr(virtual, "READ_MODE", codes.INFO3_SC_READ_TYPE | codes.INFO3_SC_READ_RELAX)


@pytest.mark.parametrize("plant", [acknowledge_before_replication, serve_without_a_majority, read_an_old_regime])
def test_a_planted_fault_of_the_cluster_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    histories = [history for seed in range(10) for history in virtual.run(seed)]
    assert any(violation(history) is not None for history in histories)
