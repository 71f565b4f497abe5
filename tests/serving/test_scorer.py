"""What a model gets where it is asked is, to the bit, what it got where it was trained."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from geotrain.errors import ConfigError, DataError
from geotrain.serving.records import record_columns
from geotrain.serving.scorer import Scorer
from geotrain.states.lookup import State
from geotrain.states.manifest import Manifest
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding
from geotrain.tasks.model import TabularNet, build_model
from geotrain.tasks.samples import encode, summarize
from geotrain.tasks.targets import DEFAULT_TARGETS
from geotrain.view.keyed import Record
from sim.flights import SITES, shared_tables, site_data
from site_agent.join.steps import join_rows
from tests.sim.test_config import sim
from tests.tasks.pumps import pumps
from tests.tasks.test_features import joined, row, rows_of_a_site

TASK = pumps()
SITE = "lga"
ROWS_ALONE = 20_000


def state_of(task: TaskConfig, frame: pl.DataFrame, **changes: Any) -> State:
    encoding = Encoding.from_statistics(summarize(frame, task), task)
    torch.manual_seed(1)
    tensors = build_model(task, encoding, DEFAULT_TARGETS).state_dict()
    metadata = {"encoding": encoding.to_json(), "task": task.to_json()}
    manifest = Manifest(
        model=task.name, scope="global", version=1, tensors={}, created_s=0.0, **{"metadata": metadata, **changes}
    )
    return State(manifest, tensors, 0)


def scorer_of(state: State, live: tuple[str, ...] = ()) -> Scorer:
    return Scorer(state, live=live, allowed=DEFAULT_TARGETS)


class Inputs(nn.Module):
    """A model that gives away what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Tensor]] = []

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        self.seen.append(inputs)
        return torch.zeros(len(inputs["numeric"]))


def inputs_of(scorer: Scorer, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    scorer._forward = model = Inputs()
    scorer.outputs(rows)
    [seen] = model.seen
    return seen


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
        assert tensor.dtype == other[name].dtype


@pytest.fixture(scope="module")
def flights() -> tuple[TaskConfig, pl.DataFrame]:
    """The task, and a site's joined flights of a year."""
    task, data = sim().task, site_data(SITE)
    legs = pl.concat([site_data(site).legs for site in SITES])
    tables = {"flights": data.flights, "weather": data.weather, "planes": shared_tables()["planes"], "legs": legs}
    return task, join_rows(task, data.flights, tables)


def test_every_flight_of_a_year_is_encoded_as_it_was_for_training(flights: tuple[TaskConfig, pl.DataFrame]) -> None:
    task, frame = flights
    state = state_of(task, frame)
    trained = encode(frame, task, Encoding.from_json(state.manifest.metadata["encoding"]))
    scorer, rows = scorer_of(state), frame.rows(named=True)
    assert_same(trained, inputs_of(scorer, rows))
    assert len(rows) > 100_000
    scorer._forward = alone = Inputs()
    some = range(0, len(rows), len(rows) // ROWS_ALONE)
    for number in some:
        scorer.outputs([rows[number]])
    one_by_one = {name: torch.cat([seen[name] for seen in alone.seen]) for name in trained}
    assert_same({name: tensor[list(some)] for name, tensor in trained.items()}, one_by_one)


@given(rows_of_a_site.filter(len), rows_of_a_site)
@settings(max_examples=60, deadline=None)
def test_any_row_is_encoded_alone_as_it_was_among_others(known: Any, asked: Any) -> None:
    frame = joined(asked)
    state = state_of(TASK, joined(known))
    trained = encode(frame, TASK, Encoding.from_json(state.manifest.metadata["encoding"]))
    scorer = scorer_of(state)
    for number, one in enumerate(frame.iter_rows(named=True)):
        assert_same({name: tensor[number : number + 1] for name, tensor in trained.items()}, inputs_of(scorer, [one]))


def test_the_output_is_that_of_the_states_own_model() -> None:
    frame = joined([row(pressure=2.0), row(pressure=None, kind="new")])
    state = state_of(TASK, frame)
    encoding = Encoding.from_json(state.manifest.metadata["encoding"])
    model = build_model(TASK, encoding, DEFAULT_TARGETS)
    model.load_state_dict(dict(state.tensors))
    expected = model.eval()(encode(frame, TASK, encoding)).detach().numpy()
    assert scorer_of(state).outputs(frame.rows(named=True)).tolist() == expected.tolist()


class Hooked(TabularNet):
    """A model whose calls do more than `forward`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_forward_hook(lambda module, given, output: output + 1000)


def test_what_a_model_hooks_into_its_calls_is_done() -> None:
    frame = joined([row()])
    plain = state_of(TASK, frame)
    task = plain.manifest.metadata["task"].replace("geotrain.tasks.model.TabularNet", f"{__name__}.Hooked")
    hooked = state_of(TASK, frame, metadata=dict(plain.manifest.metadata) | {"task": task})
    rows = frame.rows(named=True)
    scored = Scorer(hooked, live=(), allowed=[f"{__name__}.*"]).outputs(rows)
    assert scored == pytest.approx(scorer_of(plain).outputs(rows) + 1000)


def test_a_model_takes_the_states_tensors_and_no_copies() -> None:
    state = state_of(TASK, joined([row()]))
    held = scorer_of(state)._model.state_dict()
    assert all(held[name].data_ptr() == tensor.data_ptr() for name, tensor in state.tensors.items())


class Watched(TabularNet):
    """A model that refuses to work where autograd keeps anything of what it does."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        assert torch.is_inference_mode_enabled()
        assert all(tensor.is_inference() for tensor in [*self.parameters(), *inputs.values()])
        return super().forward(inputs)


def test_a_model_is_asked_where_autograd_keeps_nothing() -> None:
    frame = joined([row()])
    plain = state_of(TASK, frame)
    task = plain.manifest.metadata["task"].replace("geotrain.tasks.model.TabularNet", f"{__name__}.Watched")
    watched = state_of(TASK, frame, metadata=dict(plain.manifest.metadata) | {"task": task})
    scored = Scorer(watched, live=(), allowed=[f"{__name__}.*"]).outputs(frame.rows(named=True))
    assert scored == pytest.approx(scorer_of(plain).outputs(frame.rows(named=True)))
    assert not torch.is_inference_mode_enabled()
    assert not any(tensor.is_inference() for tensor in plain.tensors.values())


def test_what_numpy_has_read_is_taken_too() -> None:
    frame = joined([row(), row(kind="vane", is_new=False)] * 2)
    scorer = scorer_of(state_of(TASK, frame))
    plain = frame.row(0, named=True)
    numpy = plain | {
        "pressure": np.float32(1.0),
        "alarms_1h": np.int64(0),
        "is_new": np.bool_(True),
        "kind": np.str_("gear"),
    }
    assert_same(inputs_of(scorer, [plain]), inputs_of(scorer, [numpy]))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pressure": "3.5"}, "row 1: pressure is '3.5'"),
        ({"pressure": 10**400}, "row 1: pressure is 1000"),
        ({"kind": 3.0}, r"row 1: kind: 3\.0 is no text, whole number or truth"),
    ],
)
def test_a_value_of_another_type_is_named(changes: dict[str, Any], named: str) -> None:
    scorer = scorer_of(state_of(TASK, joined([row()])))
    plain = joined([row()]).row(0, named=True)
    with pytest.raises(DataError, match=named):
        scorer.outputs([plain, plain | changes])


def test_a_column_that_a_row_lacks_is_named_with_all_that_it_needs() -> None:
    scorer = scorer_of(state_of(TASK, joined([row()])))
    plain = joined([row()]).row(0, named=True)
    for name in ("pressure", "kind"):
        with pytest.raises(DataError, match=f"no column {name}") as refused:
            scorer.outputs([{column: value for column, value in plain.items() if column != name}])
        assert refused.value.remedy.endswith("a row needs pressure, since_visit_s, alarms_1h, kind, is_new")


def test_a_state_without_what_its_model_needs_is_refused_by_the_tensors_names() -> None:
    state = state_of(TASK, joined([row()]))
    tensors = dict(state.tensors)
    del tensors["head.bias"]
    tensors["head.weight"] = tensors["head.weight"][:, 1:]
    with pytest.raises(DataError, match=r"pumps/global@1 lacks .*: head\.weight, head\.bias"):
        scorer_of(State(state.manifest, tensors, 0))
    other = Encoding.from_json(state.manifest.metadata["encoding"])
    del other.numeric["pressure"]
    for encoding in (other.to_json(), "{", "[]", '{"numeric": {}}'):
        metadata = dict(state.manifest.metadata) | {"encoding": encoding}
        with pytest.raises(DataError, match=r"the encoding of the state pumps/global@1"):
            scorer_of(state_of(TASK, joined([row()]), metadata=metadata))
    with pytest.raises(DataError, match="names no task"):
        scorer_of(state_of(TASK, joined([row()]), metadata={"encoding": "{}"}))


def test_a_state_can_not_have_code_run_that_was_not_allowed() -> None:
    state = state_of(TASK, joined([row()]))
    task = state.manifest.metadata["task"].replace("geotrain.tasks.model.TabularNet", "os.system")
    evil = state_of(TASK, joined([row()]), metadata=dict(state.manifest.metadata) | {"task": task})
    with pytest.raises(ConfigError, match=r"'os\.system' is not allowed"):
        scorer_of(evil)


def test_what_the_view_has_by_key_and_what_lives_there_a_row_need_not_bring() -> None:
    task = pumps({"view.kinds.key": "kind", "join.2.by": {"kind": "maker"}})
    [kinds, alarms] = record_columns(task, ["alarms"])
    asked = {"kind": "gear", "at": datetime(2024, 1, 1)}
    assert (kinds.columns, kinds.place(asked)) == ({"maker"}, ("kinds", "gear"))
    assert kinds.values({"kind": "gear", "maker": "x"}, asked) == {"maker": "x"}
    assert kinds.values({"kind": "gear"}, asked) == kinds.values(None, asked) == {"maker": None}
    assert kinds.place({"kind": None}) is None
    with pytest.raises(DataError, match="column kind holds 3, and the keys of kinds are str"):
        kinds.place({"kind": 3})
    assert alarms.columns == {"alarms_1h"}
    assert alarms.values(None, asked) == {"alarms_1h": 0}
    with pytest.raises(DataError, match="column at holds 5"):
        alarms.values(None, {"kind": "gear", "at": 5})
    scorer = scorer_of(state_of(task, joined([row()])), live=("alarms",))
    assert scorer.columns == ["kind", "at", "pressure", "since_visit_s", "is_new"]


def test_a_record_that_differs_in_another_key_is_no_match() -> None:
    changes = {
        "view.kinds.key": "kind",
        "view.kinds.columns": {"kind": "string", "maker": "string", "pump": "string"},
        "join.1.by": {"kind": "kind", "pump": "pump"},
    }
    [kinds] = record_columns(pumps(changes), [])
    bins = {"kind": "gear", "pump": "p1", "maker": "x"}
    found = [kinds.values(bins, {"kind": "gear", "pump": pump}) for pump in ("p1", "p2", None)]
    assert found == [{"maker": "x"}, {"maker": None}, {"maker": None}]
    assert kinds.values({"kind": "gear", "maker": "x"}, {"kind": "gear", "pump": None}) == {"maker": None}


def test_all_records_of_all_rows_are_read_at_once_and_each_once() -> None:
    task = pumps({"view.kinds.key": "kind", "join.2.by": {"kind": "maker"}, "features.maker": {"kind": "categorical"}})
    frame = joined([row()]).with_columns(maker=pl.lit("x"))
    scorer = scorer_of(state_of(task, frame), live=("alarms",))
    reads: list[Any] = []

    def read(places: Any) -> list[None]:
        reads.append(places)
        return [None] * len(places)

    own = {"pressure": 1.0, "since_visit_s": 2.0, "is_new": True}
    rows = [{**own, "kind": kind, "at": datetime(2024, 1, 1) + timedelta(1)} for kind in ("gear", "vane", "gear", None)]
    found = scorer.joined(rows, read)
    [places] = reads
    assert [key for name, key in places if name == "kinds"] == ["gear", "vane"]
    assert len(places) == 4
    assert [(one["maker"], one["alarms_1h"]) for one in found] == [(None, 0)] * 4
    brought = [one | {"maker": "x", "alarms_1h": 7} for one in rows]
    assert scorer.joined(brought, read) == brought
    assert len(reads) == 1


def test_of_a_record_a_row_takes_only_what_it_does_not_bring_itself() -> None:
    task = pumps(
        {
            "view.kinds": {"key": "kind", "columns": {"kind": "string", "maker": "string", "nation": "string"}},
            "join.1.columns": {"maker": "maker", "nation": "nation"},
        }
    )
    scorer = scorer_of(state_of(task, joined([row()])))
    record = Record({"kind": "gear", "maker": "x", "nation": "y"}, 1)
    [found] = scorer.joined([{"kind": "gear", "maker": "own"}], lambda places: [record])
    assert found == {"kind": "gear", "maker": "own", "nation": "y"}


@pytest.mark.parametrize("features", [{"pressure": {}}, {"kind": {"kind": "categorical"}}])
def test_a_task_without_numbers_or_without_categories_is_served_too(features: dict[str, Any]) -> None:
    task = pumps({"features": features})
    frame = joined([row(), row(kind="vane")])
    state = state_of(task, frame)
    trained = encode(frame, task, Encoding.from_json(state.manifest.metadata["encoding"]))
    assert_same(trained, inputs_of(scorer_of(state), frame.rows(named=True)))
