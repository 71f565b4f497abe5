import socket
from collections.abc import Iterator

import pytest
from hypothesis import settings

from geotrain.view.connect import View, connect
from geotrain.view.nodes import Nodes
from tests.conftest import ClusterUnderTest
from tests.view.views import view_config

# A loaded machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def view(cluster: ClusterUnderTest) -> Iterator[View]:
    with connect(view_config(cluster, ride_through_s=1.0), expected_racks=cluster.rack_ids) as connected:
        yield connected


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader does not take stays at the node: kernels may keep tens of MB for it, as busy as they are."""
    plain_open = Nodes.open

    def small_open(nodes: Nodes, node: str) -> socket.socket:
        connection = plain_open(nodes, node)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        return connection

    monkeypatch.setattr(Nodes, "open", small_open)


@pytest.fixture
def set_name(request: pytest.FixtureRequest) -> str:
    """A set of the test's own."""
    return f"t{abs(hash(request.node.nodeid)):x}"
