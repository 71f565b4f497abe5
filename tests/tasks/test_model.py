from datetime import datetime
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn

from geotrain.errors import ConfigError
from geotrain.tasks.features import Encoding, Scale
from geotrain.tasks.model import TabularNet, build_model
from geotrain.tasks.samples import encode
from geotrain.tasks.targets import DEFAULT_TARGETS, check_targets, instantiate
from tests.tasks.pumps import pumps

ENCODING = Encoding(
    numeric={name: Scale(0.0, 1.0) for name in ("pressure", "since_visit_s", "alarms_1h")},
    categorical={"kind": ["gear", "screw", "vane"], "is_new": ["false", "true"]},
)


def test_the_model_turns_what_encode_gives_into_one_output_a_row() -> None:
    row = {"at": datetime(2024, 1, 1), "pressure": 1.0, "since_visit_s": None, "alarms_1h": 2, "kind": "vane"}
    frame = pl.DataFrame([{**row, "is_new": True}, {**row, "is_new": None}])
    model = build_model(pumps(), ENCODING, DEFAULT_TARGETS)
    assert model(encode(frame, pumps(), ENCODING)).shape == (2,)


def test_the_output_is_that_of_the_models_layers_one_after_the_other() -> None:
    model = TabularNet(2, [3, 5], width=6, depth=2, dropout=0.5).eval()
    inputs = {"numeric": torch.randn(7, 2), "missing": torch.zeros(7, 2), "categorical": torch.randint(0, 3, (7, 2))}
    embedded = [layer(inputs["categorical"][:, i]) for i, layer in enumerate(model.embeddings)]
    hidden = model.body(torch.cat([inputs["numeric"], inputs["missing"], *embedded], dim=1))
    assert torch.equal(model(inputs), model.head(hidden).squeeze(1))
    model.train()
    assert not torch.equal(model(inputs), model(inputs))


def test_the_output_of_a_row_alone_is_that_of_the_models_layers_too() -> None:
    model = TabularNet(2, [3, 5], width=6, depth=2).eval()
    with torch.no_grad():
        for weights in model.parameters():  # whole numbers: their sums are the same in every order
            weights.copy_(torch.randint(-4, 5, weights.shape))
    inputs = {
        "numeric": torch.tensor([[3.0, -2.0]]),
        "missing": torch.zeros(1, 2),
        "categorical": torch.tensor([[2, 0]]),
    }
    embedded = [layer(inputs["categorical"][:, i]) for i, layer in enumerate(model.embeddings)]
    hidden = model.body(torch.cat([inputs["numeric"], inputs["missing"], *embedded], dim=1))
    assert torch.equal(model(inputs), model.head(hidden).squeeze(1))


def test_a_row_alone_trains_the_categories_that_it_has_and_no_others() -> None:
    model = TabularNet(2, [3, 5], width=6)
    model(
        {"numeric": torch.ones(1, 2), "missing": torch.zeros(1, 2), "categorical": torch.tensor([[2, 0]])}
    ).sum().backward()
    trained = [(of.weight.grad != 0).any(dim=1).tolist() for of in model.embeddings if of.weight.grad is not None]
    assert trained == [[False, False, True], [True, False, False, False, False]]


def test_the_same_seed_makes_the_same_model() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build_model(pumps(), ENCODING, DEFAULT_TARGETS).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_model_that_is_no_module_is_refused() -> None:
    task = pumps({"model": {"_target_": "torch.nn.functional.dropout", "input": 1}})
    with pytest.raises(ConfigError, match=r"task\.model"):
        build_model(task, ENCODING, DEFAULT_TARGETS)
    task = pumps({"model": {"_target_": "builtins.dict"}})
    with pytest.raises(ConfigError, match=r"task\.model\._target_: builtins\.dict makes no torch\.nn\.Module"):
        build_model(task, ENCODING, ["builtins.*"])


def test_arguments_that_the_model_does_not_take_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"task\.model: .*'heigth'"):
        build_model(pumps({"model": {**pumps().model, "heigth": 3}}), ENCODING, DEFAULT_TARGETS)


def test_a_block_may_nest_other_blocks() -> None:
    block = {
        "_target_": "torch.nn.Sequential",
        "_args_": [{"_target_": "torch.nn.ReLU"}, {"_target_": "torch.nn.GELU"}],
    }
    made = instantiate(block, DEFAULT_TARGETS, "task.model")
    assert [type(layer) for layer in made] == [nn.ReLU, nn.GELU]


@pytest.mark.parametrize(
    ("field", "block", "named"),
    [
        ("model", {"_target_": "subprocess.run", "args": "id"}, "task.model._target_: 'subprocess.run'"),
        ("loss", {"_target_": "torch.load", "f": "x"}, "task.loss._target_: 'torch.load'"),
        ("metric", {"_target_": "os.system"}, "task.metric._target_: 'os.system'"),
        ("training.optimizer", {"_target_": "eval"}, "task.training.optimizer._target_: 'eval'"),
        ("localize.optimizer", {"_target_": 3}, "task.localize.optimizer._target_: 3"),
        (
            "model",
            {"_target_": "torch.nn.Sequential", "layers": [{"deep": {"_target_": "os.system"}}]},
            "task.model.layers[0].deep._target_: 'os.system'",
        ),
    ],
)
def test_a_name_that_no_pattern_allows_is_refused_by_its_path(field: str, block: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_targets(pumps({field: block}), DEFAULT_TARGETS)
    assert refused.value.what.startswith(f"{named} is not allowed")


def test_a_refused_name_is_not_even_imported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "not_for_here.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError):
        instantiate({"_target_": "not_for_here.Model"}, DEFAULT_TARGETS, "task.model")


@pytest.mark.parametrize(
    "target", ["torch.nn.functional.torch.hub.load", "geotrain.tasks.metrics.np.load", "torch.nn.init"]
)
def test_an_allowed_module_is_no_way_to_what_it_has_imported(target: str) -> None:
    with pytest.raises(ConfigError, match="which is not allowed here"):
        instantiate({"_target_": target}, DEFAULT_TARGETS, "task.model")


def test_a_name_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.loss: .*no attribute 'BCELogitLoss'"):
        instantiate({"_target_": "torch.nn.BCELogitLoss"}, DEFAULT_TARGETS, "task.loss")


@pytest.mark.parametrize(
    "block",
    [
        {"_target_": "geotrain.tasks.targets.instantiate", "block": {}, "allowed": [], "field": "x"},
        {"_target_": "geotrain.tasks.samples.split"},
        [["_target_", "torch.hub.load"]],
    ],
)
def test_what_the_defaults_allow_does_not_lead_to_what_they_do_not(block):
    with pytest.raises(ConfigError):
        instantiate(block, DEFAULT_TARGETS, "task.loss")
