import json
import re
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from geotrain.errors import ConfigError
from geotrain.program import config_from_json
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.targets import DEFAULT_TARGETS, check_targets
from tests.tasks.pumps import PUMPS, pumps


@pytest.mark.parametrize("text", ['{"name": "\\u0024{oc.env:HOME}"}', "null", "[]", "{"])
def test_text_that_is_no_task_is_refused_also_where_json_hides_an_interpolation(text):
    with pytest.raises(ConfigError):
        config_from_json(TaskConfig, text)


def flights() -> TaskConfig:
    ConfigStore.instance().store(group="schema", name="task", node=TaskConfig)
    with initialize_config_module("configs", version_base="1.3"):
        task = OmegaConf.to_object(compose("task/flights").task)
    assert isinstance(task, TaskConfig)
    return task


SHUFFLED_WITHOUT_KEYS = {
    "kind": "latest",
    "source": "alarms",
    "known_at": "raised_at",
    "columns": {"alarms_1h": "level"},
    "plan": "shuffle",
}


def test_the_flights_task_is_valid_and_needs_no_more_than_the_default_allow_list() -> None:
    check_targets(flights(), DEFAULT_TARGETS)


@pytest.mark.parametrize("task", [flights(), pumps()], ids=["flights", "pumps"])
def test_a_task_survives_its_journey_as_json_with_its_features_in_order(task: TaskConfig) -> None:
    arrived = config_from_json(TaskConfig, task.to_json())
    assert arrived == task
    assert list(arrived.features) == list(task.features)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("local.readings.columns.pump", "text", "task.local.readings.columns.pump: 'text' is none of int64"),
        ("local.readings.path", "../other/*.parquet", "task.local.readings.path: '../other/*.parquet' leaves"),
        ("local.readings.path", "/etc/readings.parquet", "task.local.readings.path: '/etc/readings.parquet' leaves"),
        ("local.readings.path", ".", "task.local.readings.path: '.' names no file"),
        ("view.alarms.columns.level", "float32", "task.view.alarms.columns.level: 'float32' is none of"),
        ("view.visits", {"columns": {"pump": "string"}}, "task.view.visits: is also the name of a local dataset"),
        ("view.rows", {"columns": {"pump": "string"}}, "task.view.rows: a set can't be called rows"),
        ("rows.dataset", "pumps", "task.rows.dataset: 'pumps' is none of readings, visits"),
        ("rows.time", "pump", "task.rows.time: 'pump' is string, must be timestamp"),
        ("label.column", "failed", "task.label.column: there is no column 'failed', only at, failures"),
        ("split.test_from", "next month", "task.split.test_from: Invalid isoformat string: 'next month'"),
        ("join.0.kind", "nearest", "task.join[0].kind: 'nearest' is none of equi, latest, window"),
        ("join.1.source", "types", "task.join[1].source: 'types' is none of readings, visits, kinds, alarms"),
        ("join.2.by", {"maker": "factory"}, "task.join[2].by: there is no column 'factory', only level"),
        ("join.2.by", {"is_new": "maker"}, "task.join[2].by: 'maker' is string, must be bool"),
        ("join.1.by", {}, "task.join[1].by: an equi step needs a key"),
        ("join.1.known_at", "kind", "task.join[1].known_at: for latest and window steps only"),
        ("join.2.known_at", "level", "task.join[2].known_at: 'level' is float64, must be timestamp"),
        ("join.2.known_at", None, "task.join[2].known_at: a window step needs it"),
        ("join.2.within_s", None, "task.join[2].within_s: a window step needs it"),
        ("join.2.within_s", 0, "task.join[2].within_s: must be more than 0 seconds, got 0"),
        ("join.2.aggregate", "median", "task.join[2].aggregate: 'median' is none of count, sum, mean, min, max"),
        ("join.0.aggregate", "mean", "task.join[0].aggregate: for window steps only"),
        ("join.0.how", "outer", "task.join[0].how: 'outer' is none of left, inner"),
        ("join.0.plan", "fastest", "task.join[0].plan: 'fastest' is none of auto, co_partitioned, lookup, broadcast"),
        ("join.0.plan", "lookup", "task.join[0].plan: lookup needs a set of the view with a `key`"),
        ("join.1.plan", "co_partitioned", "task.join[1].plan: co_partitioned needs a set of the view with a `key`"),
        ("join.2", SHUFFLED_WITHOUT_KEYS, "task.join[2].plan: a shuffle needs keys in `by`"),
        ("view.kinds.key", "kinds", "task.view.kinds.key: there is no column 'kinds'"),
        ("view.alarms.key", "level", "task.view.alarms.key: 'level' is float64, must be int64 or string"),
        ("local.visits.format", "xml", "task.local.visits.format: 'xml' is none of auto, parquet, csv"),
        ("join.2.columns", {"x": "maker"}, "task.join[2].columns: 'maker' is string, must be int64 or float64 or bool"),
        ("join.2.columns", {"pump": "level"}, "task.join[2].columns: the rows have a column 'pump' already"),
        ("join.2.columns", {}, "task.join[2].columns: the step adds no column"),
        ("join.2.columns", {"__row": "level"}, "task.join[2].columns: '__row' starts with __"),
        ("local.readings.columns.__time", "int64", "task.local.readings.columns: '__time' starts with __"),
        ("join.2.age_s", "age", "task.join[2].age_s: for latest steps only"),
        ("features", {}, "task.features: there are none"),
        ("features.presure", {}, "task.features.presure: there is no column 'presure'"),
        ("features.maker", {}, "task.features.maker: 'maker' is string, must be int64 or float64 or bool"),
        ("features.pressure.transform", "log", "task.features.pressure.transform: 'log' is none of none, signed_log"),
        ("features.kind.min_count", 0, "task.features.kind.min_count: must be at least 1, got 0"),
        ("features.failures", {}, "task.features.failures: is the label's column"),
        ("training.epochs", 0, "task.training.epochs: must be at least 1, got 0"),
        ("localize.max_grad_norm", 0, "task.localize.max_grad_norm: must be more than 0"),
        ("localize.parameters", [], "task.localize.parameters: there are none"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        pumps({path: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modle": {}}, "modle"),
        ({"training": {"optimizer": {}, "epochs": "many"}}, "many"),
        ({"model": {"_target_": "torch.nn.Linear", "token": "${oc.env:HOME}"}}, "interpolation"),
        ({"split": {"test_from": "soon"}}, "task.split.test_from"),
    ],
)
def test_a_task_from_elsewhere_that_is_wrong_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_json(TaskConfig, json.dumps(json.loads(pumps().to_json()) | change))


def test_what_comes_of_the_view_is_known_even_through_several_steps() -> None:
    from_local_by_a_shared_key = {
        "kind": "equi",
        "source": "visits",
        "by": {"maker": "pump"},
        "columns": {"visited": "visited_at"},
    }
    task = pumps({"join": [*PUMPS["join"], from_local_by_a_shared_key]})
    assert task.view_columns() == {"maker", "alarms_1h", "visited"}


def test_without_the_view_a_task_keeps_only_what_the_site_has_itself() -> None:
    alone = pumps().without_view()
    assert alone.view == {}
    assert [step.source for step in alone.join] == ["visits"]
    assert list(alone.features) == ["pressure", "since_visit_s", "kind", "is_new"]
    assert (alone.model, alone.training, alone.localize) == (pumps().model, pumps().training, pumps().localize)


def test_a_set_whose_steps_all_look_rows_up_is_not_among_those_that_are_proven() -> None:
    looked_up = {"view.kinds.key": "kind", "join.1.plan": "lookup"}
    assert pumps().proven() == ["kinds", "alarms"]
    assert pumps(looked_up).proven() == ["alarms"]
    also_scanned = {"kind": "equi", "source": "kinds", "by": {"kind": "kind"}, "columns": {"again": "maker"}}
    steps = [PUMPS["join"][0], {**PUMPS["join"][1], "plan": "lookup"}, also_scanned, PUMPS["join"][2]]
    with pytest.raises(ValueError, match=re.escape("task.join[1].plan: another step reads kinds whole")):
        pumps({"view.kinds.key": "kind", "join": steps})
