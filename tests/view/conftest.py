from collections.abc import Iterator

import pytest
from hypothesis import settings

from geotrain.view.connect import View, connect
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
def set_name(request: pytest.FixtureRequest) -> str:
    """A set of the test's own."""
    return f"t{abs(hash(request.node.nodeid)):x}"
