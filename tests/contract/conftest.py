"""The official client against the cluster under test, and what a test may rely on there."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import ClusterUnderTest


@pytest.fixture(scope="session")
def client(cluster: ClusterUnderTest) -> Iterator[Any]:
    """One official client for all tests."""
    client = cluster.connect()
    yield client
    client.close()


@pytest.fixture
def set_name(client: Any, cluster: ClusterUnderTest) -> Iterator[str]:
    """A set of the test's own, emptied afterwards."""
    name = f"test-{uuid4().hex[:8]}"
    yield name
    client.truncate(cluster.namespace, name, 0)


@pytest.fixture
def remove_policy(cluster: ClusterUnderTest) -> dict[str, Any]:
    """How records are removed: strongly consistent namespaces take durable deletes only."""
    return {"durable_delete": cluster.strong_consistency}


@pytest.fixture
def strong(cluster: ClusterUnderTest) -> None:
    """For tests of what only a strongly consistent namespace does."""
    if not cluster.strong_consistency:
        pytest.skip(f"namespace {cluster.namespace} is not strongly consistent")


@pytest.fixture
def racks(cluster: ClusterUnderTest) -> list[int]:
    """For tests of several racks that each hold everything: their numbers."""
    if len(cluster.rack_ids) < 2:
        pytest.skip(f"the cluster has {len(cluster.rack_ids)} racks, two needed")
    return cluster.rack_ids
