from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from geotrain.errors import ConfigError, GeotrainError
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding, Scale
from geotrain.tasks.model import build_model
from geotrain.tasks.samples import Samples
from geotrain.tasks.targets import DEFAULT_TARGETS
from site_agent import training
from site_agent.training import Share, choose_parameters, evaluate, predict, seed_of, train
from tests.tasks.pumps import pumps

NUM_ROWS = 300


def samples(num_rows: int = NUM_ROWS) -> Samples:
    """Pumps that fail where the pressure is high, or the kind is the second."""
    generator = torch.Generator().manual_seed(0)
    numeric = torch.randn(num_rows, 3, generator=generator)
    categorical = torch.randint(0, 3, (num_rows, 2), generator=generator)
    labels = ((numeric[:, 0] > 0.5) | (categorical[:, 0] == 2)).float()
    inputs = {"numeric": numeric, "missing": torch.zeros_like(numeric), "categorical": categorical}
    return Samples(inputs, labels)


def model_of(task: TaskConfig) -> nn.Module:
    names = ("pressure", "since_visit_s", "alarms_1h")
    encoding = Encoding(
        numeric={name: Scale(0.0, 1.0) for name in names}, categorical={"kind": ["a", "b"], "is_new": ["false", "true"]}
    )
    torch.manual_seed(0)
    return build_model(task, encoding, DEFAULT_TARGETS)


def trained(task: TaskConfig, seed: int = 1, **arguments: Any) -> nn.Module:
    model = model_of(task)
    train(task, "training", model, samples(), allowed=DEFAULT_TARGETS, seed=seed, **arguments)
    return model


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_training_learns_what_there_is_to_learn() -> None:
    task = pumps({"training.epochs": 20})
    assert evaluate(task, model_of(task), samples(), allowed=DEFAULT_TARGETS) < 0.8
    assert evaluate(task, trained(task), samples(), allowed=DEFAULT_TARGETS) > 0.95


def test_the_same_seed_gives_the_same_model_to_the_bit_whatever_ran_before() -> None:
    fresh, again = model_of(pumps()), model_of(pumps())
    train(pumps(), "training", fresh, samples(), allowed=DEFAULT_TARGETS, seed=1)
    torch.rand(1)
    train(pumps(), "training", again, samples(), allowed=DEFAULT_TARGETS, seed=1)
    assert same(fresh, again)


def test_another_seed_shuffles_the_rows_otherwise() -> None:
    task = pumps({"model.dropout": 0.0})
    assert not same(trained(task, seed=1), trained(task, seed=2))


def test_a_long_gradient_is_cut_to_the_norm_that_the_task_allows() -> None:
    optimizer = {"_target_": "torch.optim.SGD", "lr": 1.0}
    task = pumps({"training": {"optimizer": optimizer, "batch_size": NUM_ROWS, "max_grad_norm": 0.01}})
    moved = parameters_to_vector(trained(task).parameters()) - parameters_to_vector(model_of(task).parameters())
    assert float(moved.detach().norm()) == pytest.approx(0.01, rel=0.01)


def test_a_seed_follows_from_all_its_parts_and_nothing_else() -> None:
    assert seed_of(7, 1, "ewr") == seed_of(7, 1, "ewr")
    assert len({seed_of(7, 1, "ewr"), seed_of(7, 2, "ewr"), seed_of(7, 1, "jfk"), seed_of(8, 1, "ewr")}) == 4


def test_each_step_is_reported_and_the_last_epoch_s_mean_loss_returned() -> None:
    task, steps = pumps({"training.batch_size": 100, "training.epochs": 2}), []
    loss = train(
        task,
        "training",
        model_of(task),
        samples(),
        allowed=DEFAULT_TARGETS,
        seed=1,
        on_step=lambda *step: steps.append(step),
    )
    assert [step[:2] for step in steps] == [(number, 6) for number in range(1, 7)]
    assert loss == pytest.approx(sum(step[2] for step in steps[3:]) / 3)


def test_localizing_a_head_leaves_the_rest_to_the_bit_and_fine_tuning_does_not() -> None:
    task = pumps()
    for patterns, rest_stays in ((["head.*"], True), (["*"], False)):
        task.localize.parameters = patterns
        model, before = model_of(task), model_of(task).state_dict()
        choose_parameters(task, "localize", model)
        train(task, "localize", model, samples(), allowed=DEFAULT_TARGETS, seed=1)
        after = model.state_dict()
        assert not torch.equal(before["head.weight"], after["head.weight"])
        assert torch.equal(before["body.0.weight"], after["body.0.weight"]) is rest_stays


def test_patterns_that_match_no_parameter_are_refused_and_the_names_shown() -> None:
    task = pumps({"localize.parameters": ["tail.*"]})
    with pytest.raises(ConfigError, match=r"task\.localize\.parameters: \['tail\.\*'\] matches none\n.*head\.weight"):
        choose_parameters(task, "localize", model_of(task))


def test_workers_share_every_batch_between_them_and_miss_no_row() -> None:
    alone = list(training._batches(samples(), 2, 3, 5, Share()))
    shares = [list(training._batches(samples(), 2, 3, 5, Share(rank, 2))) for rank in range(2)]
    for whole, first, second in zip(alone, *shares, strict=True):
        assert sorted(whole.tolist()) == sorted(first.tolist() + second.tolist())
    assert sorted(torch.cat(alone[:3]).tolist()) == list(range(NUM_ROWS))


def test_gradients_averaged_over_two_workers_are_those_of_one() -> None:
    task = pumps({"model.dropout": 0.0, "training.optimizer": {"_target_": "torch.optim.SGD", "lr": 1.0}})
    task.training.batch_size, task.training.epochs, task.training.max_grad_norm = NUM_ROWS, 1, 1e9
    base = model_of(task)
    moved = [trained(task, share=Share(rank, 2)) for rank in range(2)]
    for start, whole, *parts in zip(
        base.parameters(), trained(task).parameters(), *(model.parameters() for model in moved), strict=True
    ):
        torch.testing.assert_close(sum(part - start for part in parts) / 2, whole - start)


def test_a_loss_that_is_not_finite_stops_the_training_and_says_so() -> None:
    broken = samples()
    broken.inputs["numeric"][:] = float("inf")
    with pytest.raises(GeotrainError, match=r"training: the loss is (nan|inf) at step 1 of"):
        train(pumps(), "training", model_of(pumps()), broken, allowed=DEFAULT_TARGETS, seed=1)


def test_a_site_without_training_rows_is_told_so() -> None:
    with pytest.raises(GeotrainError, match="localize: there are no training rows"):
        train(pumps(), "localize", model_of(pumps()), samples(0), allowed=DEFAULT_TARGETS, seed=1)


def test_predictions_do_not_depend_on_how_many_rows_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(pumps())
    at_once = predict(model, samples().inputs)
    monkeypatch.setattr(training, "MAX_ROWS_ASKED", 7)
    torch.testing.assert_close(predict(model, samples().inputs), at_once)
    assert predict(model, samples(0).inputs).shape == (0,)
