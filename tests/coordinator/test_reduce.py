"""From updates to the next model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordinator import reduce
from coordinator.reduce import OuterStep, weighted_mean
from geotrain.errors import ConfigError
from tests.updates.files import tensor_file

SGD = {"_target_": "torch.optim.SGD", "lr": 1.0}

Tensors = dict[str, torch.Tensor]


def mean_of(folder: Path, *updates: tuple[float, Tensors]) -> Tensors:
    files = [(weight, tensor_file(folder / f"{n}.st", tensors)) for n, (weight, tensors) in enumerate(updates)]
    return {name: weighted_mean(files, name) for name in updates[0][1]}


def stepped(outer: OuterStep, means: Tensors) -> None:
    for name, mean in means.items():
        outer.step(name, mean.clone())


def test_the_mean_weighs_each_site_by_its_samples(tmp_path):
    mean = mean_of(tmp_path, (1, {"w": torch.tensor([0.0])}), (3, {"w": torch.tensor([4.0])}))
    assert mean["w"].item() == 3.0


def test_small_updates_in_half_precision_are_not_lost_on_each_other(tmp_path):
    half = [torch.full((2,), value, dtype=torch.bfloat16) for value in (256.0, 1.0, 1.0)]
    mean = mean_of(tmp_path, *((1, {"w": tensor}) for tensor in half))
    assert mean["w"].tolist() == pytest.approx([86.0, 86.0])


@given(seed=st.integers(0, 2**32), weights=st.lists(st.integers(1, 10**6), min_size=1, max_size=5), data=st.data())
def test_the_mean_is_the_same_bits_in_whatever_order_updates_came_and_however_it_is_cut(
    tmp_path_factory, seed, weights, data
):
    folder = tmp_path_factory.mktemp("updates")
    generator = torch.Generator().manual_seed(seed)
    tensors = [
        {"w": torch.randn(7, 11, generator=generator), "b": torch.randn((), generator=generator)} for _ in weights
    ]
    whole = sum(
        (update["w"] * (weight / sum(weights)) for weight, update in zip(weights, tensors, strict=True)),
        torch.zeros(7, 11),
    )
    arrived = data.draw(st.permutations(range(len(weights))))
    files = {site: tensor_file(folder / f"site-{site}.st", tensors[site]) for site in arrived}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduce, "BLOCK_BYTES", data.draw(st.integers(1, 400)) * 4)
        # In the order of the sites, as the job's machine names them.
        mean = weighted_mean([(weights[site], files[site]) for site in sorted(files)], "w")
    assert torch.equal(mean, whole)


def test_an_outer_step_of_one_lands_on_the_mean():
    model = {"w": torch.tensor([1.0, 2.0]), "count": torch.tensor(7)}
    OuterStep(SGD, model).step("w", torch.tensor([0.5, -0.5]))
    assert model["w"].tolist() == [1.5, 1.5]
    assert model["count"].item() == 7


def test_momentum_carries_over_from_round_to_round():
    model = {"w": torch.tensor([0.0])}
    outer = OuterStep(SGD | {"momentum": 0.5}, model)
    outer.step("w", torch.tensor([1.0]))
    outer.step("w", torch.tensor([0.0]))
    assert model["w"].item() == 1.5


OPTIMIZERS = [
    SGD,
    SGD | {"momentum": 0.9, "nesterov": True},
    {"_target_": "torch.optim.Adam", "lr": 0.1, "amsgrad": True},
    {"_target_": "torch.optim.NAdam", "lr": 0.1},
    {"_target_": "torch.optim.Adagrad", "lr": 0.1},
]


def models_and_means() -> tuple[Tensors, list[Tensors]]:
    generator = torch.Generator().manual_seed(5)
    base = {"body.w": torch.randn(50, generator=generator), "head.b": torch.randn(1, generator=generator)}
    return base, [{name: torch.randn(t.shape, generator=generator) for name, t in base.items()} for _ in range(4)]


def copied(tensors: Tensors) -> Tensors:
    return {name: tensor.clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_that_is_restored_goes_on_to_the_same_bits(optimizer):
    base, means = models_and_means()
    model, again = copied(base), copied(base)
    undisturbed, disturbed = OuterStep(optimizer, model), OuterStep(optimizer, again)
    for mean in means:
        stepped(undisturbed, mean)
        stepped(disturbed, mean)
        state = copied(dict(disturbed.state()))
        again = copied(again)
        disturbed = OuterStep(optimizer, again)
        disturbed.restore(state)
    assert all(torch.equal(model[name], again[name]) for name in base)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_tensor_by_tensor_is_the_optimizers_own_step(optimizer):
    base, means = models_and_means()
    model = copied(base)
    outer = OuterStep(optimizer, model)
    parameters = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in base.items()}
    arguments = {name: value for name, value in optimizer.items() if name != "_target_"}
    torchs = getattr(torch.optim, optimizer["_target_"].rpartition(".")[2])(list(parameters.values()), **arguments)
    for mean in means:
        stepped(outer, mean)
        for name, parameter in parameters.items():
            parameter.grad = -mean[name]
        torchs.step()
    assert all(torch.equal(model[name], parameter) for name, parameter in parameters.items())


def test_an_outer_step_does_not_load_the_compiler_of_torch():
    step = f"OuterStep({OPTIMIZERS[2]}, model).step('w', torch.ones(3))"
    code = "import sys, torch; from coordinator.reduce import OuterStep; model = {'w': torch.zeros(3)}"
    subprocess.run([sys.executable, "-c", f"{code}; {step}; assert 'torch._dynamo' not in sys.modules"], check=True)


NO_OPTIMIZER = {"_target_": "torch.optim.lr_scheduler.LambdaLR"}


@pytest.mark.parametrize(
    "outer", [{"_target_": "os.system", "command": "true"}, NO_OPTIMIZER, SGD | {"lrr": 1.0}, SGD | {"lr": -1.0}]
)
def test_an_outer_optimizer_that_is_none_is_refused_by_name(outer):
    with pytest.raises(ConfigError, match=r"strategy\.outer"):
        OuterStep.check(outer)


@pytest.mark.parametrize(
    ("outer", "reason"),
    [
        ({"_target_": "torch.optim.LBFGS"}, r"torch\.optim\.LBFGS can't take a step from a mean update"),
        (SGD | {"lr": float("nan")}, "its first step is to nan"),
    ],
)
def test_an_outer_optimizer_that_could_not_take_its_first_step_is_refused_before_anyone_trains(outer, reason):
    with pytest.raises(ConfigError, match=rf"strategy\.outer: {reason}"):
        OuterStep.check(outer)
