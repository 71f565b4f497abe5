"""`benchmarks.publish` measures what it says, and leaves nothing behind."""

import pytest
import torch

from benchmarks import publish
from geotrain.states.manifest import ALIASES, MANIFESTS, TENSORS
from geotrain.view.connect import connect
from tests.conftest import ClusterUnderTest
from tests.view.views import view_config


def test_the_second_state_writes_and_fetches_little_and_all_is_removed_again(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "TENSOR_VALUES", 50_000)
    with connect(view_config(cluster)) as view:
        before = {name: num_records(view, name) for name in (TENSORS, MANIFESTS, ALIASES, publish.SET)}
        results = publish.run(view, 4)
        assert {name: num_records(view, name) for name in before} == before
    assert results["first state, bytes"] == 4 * 200_000
    assert 200_000 <= results["second state, bytes of parts and manifest written"] < 210_000
    assert 200_000 <= results["second state, bytes of parts and manifest fetched"] < 210_000


def test_a_second_state_differs_in_one_percent_of_the_values() -> None:
    tensors = {f"layer{number}": torch.zeros(publish.TENSOR_VALUES) for number in range(5)}
    ((name, new),) = publish.changed(tensors).items()
    assert int((new != tensors[name]).sum()) == 5 * publish.TENSOR_VALUES // 100


def num_records(view, set_name):
    return len(view.client.query(view.config.namespace, set_name).results({}, {"nobins": True}))
