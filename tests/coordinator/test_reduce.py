"""From updates to the next model."""

import itertools

import pytest
import torch

from coordinator.reduce import OuterStep, weighted_mean
from geotrain.errors import ConfigError

SGD = {"_target_": "torch.optim.SGD", "lr": 1.0}


def test_the_mean_weighs_each_site_by_its_samples():
    updates = [(1, {"w": torch.tensor([0.0])}), (3, {"w": torch.tensor([4.0])})]
    assert weighted_mean(updates)["w"].item() == 3.0


def test_the_mean_leaves_the_updates_as_they_were():
    first = {"w": torch.tensor([1.0])}
    weighted_mean([(1, first), (1, {"w": torch.tensor([3.0])})])
    assert first["w"].item() == 1.0


def test_an_outer_step_of_one_lands_on_the_mean():
    base = {"w": torch.tensor([1.0, 2.0]), "count": torch.tensor(7)}
    moved = OuterStep(SGD, base).step(base, {"w": torch.tensor([0.5, -0.5])})
    assert moved["w"].tolist() == [1.5, 1.5]
    assert moved["count"].item() == 7


def test_momentum_carries_over_from_round_to_round():
    base = {"w": torch.tensor([0.0])}
    outer = OuterStep(SGD | {"momentum": 0.5}, base)
    first = outer.step(base, {"w": torch.tensor([1.0])})
    second = outer.step(first, {"w": torch.tensor([0.0])})
    assert second["w"].item() == 1.5


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD,
        SGD | {"momentum": 0.9, "nesterov": True},
        {"_target_": "torch.optim.Adam", "lr": 0.1, "amsgrad": True},
        {"_target_": "torch.optim.NAdam", "lr": 0.1},
        {"_target_": "torch.optim.Adagrad", "lr": 0.1},
    ],
)
def test_an_optimizer_that_is_restored_goes_on_to_the_same_bits(optimizer):
    generator = torch.Generator().manual_seed(5)
    base = {"body.w": torch.randn(50, generator=generator), "head.b": torch.randn(1, generator=generator)}
    means = [{name: torch.randn(t.shape, generator=generator) for name, t in base.items()} for _ in range(4)]
    undisturbed, model = OuterStep(optimizer, base), base
    disturbed, again = OuterStep(optimizer, base), base
    for mean in means:
        model = undisturbed.step(model, mean)
        again = disturbed.step(again, mean)
        state = disturbed.state()
        disturbed = OuterStep(optimizer, base)
        disturbed.restore(state)
    assert all(torch.equal(model[name], again[name]) for name in base)


def test_the_same_updates_in_the_same_order_give_the_same_bits():
    updates = [
        (number, {"w": torch.randn(1000, generator=torch.Generator().manual_seed(number))}) for number in (3, 5, 7)
    ]
    results = [weighted_mean(updates)["w"] for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in itertools.pairwise(results))


@pytest.mark.parametrize(
    "outer", [{"_target_": "os.system", "command": "true"}, SGD | {"lrr": 1.0}, SGD | {"lr": -1.0}]
)
def test_an_outer_optimizer_that_is_none_is_refused_by_name(outer):
    with pytest.raises(ConfigError, match=r"strategy\.outer"):
        OuterStep(outer, {"w": torch.zeros(1)})
