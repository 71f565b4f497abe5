"""Rows scored over the view: by the newest state, with what the view has of them, in threads and under asyncio."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
import torch

from geotrain.errors import DataError, ViewError
from geotrain.serving.live import LiveWriter
from geotrain.serving.predictor import Predictor
from geotrain.states.publish import publish
from geotrain.states.watch import ModelWatcher
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.features import Encoding
from geotrain.tasks.model import build_model
from geotrain.tasks.samples import encode, summarize
from geotrain.tasks.targets import DEFAULT_TARGETS
from geotrain.view.connect import View, connect
from site_agent.join.steps import join_rows
from tests.conftest import ROOT, ClusterUnderTest
from tests.tasks.pumps import pumps
from tests.view.views import view_config

START = datetime(2024, 1, 1)
KINDS = pl.DataFrame({"kind": ["gear", "screw"], "maker": ["x", "y"]})
ALARMS = pl.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "maker": ["gear", "gear", "screw", "gear"],
        "raised_at": [START + timedelta(minutes=minute) for minute in (5, 30, 40, 90)],
        "level": [1.0, 2.0, 3.0, 4.0],
    }
)
ROWS = pl.DataFrame(
    {
        "at": [START + timedelta(minutes=minute) for minute in (10, 35, 60, 95, 300, 60)],
        "pump": ["p"] * 6,
        "kind": ["gear", "gear", "screw", "gear", "vane", None],
        "pressure": [1.0, None, 3.0, 4.0, float("nan"), 2.0],
        "is_new": [True, False, None, True, False, True],
        "failures": [0, 1, 0, 1, 0, 1],
    }
)
OWN = ["at", "kind", "pressure", "is_new", "since_visit_s"]


@pytest.fixture
def view(cluster: ClusterUnderTest) -> Iterator[View]:
    with connect(view_config(cluster)) as connected:
        yield connected


@pytest.fixture
def task(request: pytest.FixtureRequest) -> TaskConfig:
    """A task of the test's own, whose kinds lie in the view by key, and whose alarms live there."""
    return pumps(
        {
            "name": f"p{abs(hash(request.node.nodeid)):x}",
            "view.kinds.key": "kind",
            "join.2.by": {"kind": "maker"},
            "features.maker": {"kind": "categorical", "min_count": 1},
        }
    )


@pytest.fixture
def joined(view: View, task: TaskConfig) -> pl.DataFrame:
    """The rows as training sees them; what they are joined with is in the view."""
    view.write(KINDS, "kinds", "kind")
    LiveWriter(view, task, "alarms", late_s=86_400).write(ALARMS, "id")
    visits = pl.DataFrame({"pump": ["p"], "visited_at": [START]})
    return join_rows(task, ROWS, {"visits": visits, "kinds": KINDS, "alarms": ALARMS})


@pytest.fixture
def put(view: View, task: TaskConfig, joined: pl.DataFrame) -> Any:
    """Publishes a state, and returns its outputs for the rows as training would have them, one by one."""
    encoding = Encoding.from_statistics(summarize(joined, task), task)
    metadata = {"encoding": encoding.to_json(), "task": task.to_json()}

    def published(seed: int, expected: dict[int, list[float]] | None = None, **changes: Any) -> list[float]:
        torch.manual_seed(seed)
        model = build_model(task, encoding, DEFAULT_TARGETS).eval()
        outputs = [model(encode(joined[i], task, encoding)).item() for i in range(len(joined))]
        if expected is not None:
            expected[seed] = outputs  # before anyone can see the state
        state = {"tensors": model.state_dict(), "lineage": {}, "metadata": metadata} | changes
        publish(view, model=task.name, scope="global", **state)
        return outputs

    return published


@pytest.fixture
def watch(cluster: ClusterUnderTest, task: TaskConfig) -> Iterator[Any]:
    made: list[ModelWatcher] = []

    def watcher(**options: Any) -> ModelWatcher:
        made.append(ModelWatcher(view_config(cluster), task.name, **{"interval_s": None} | options))
        return made[-1]

    yield watcher
    for one in made:
        one.close()


def rows_of(joined: pl.DataFrame) -> list[dict[str, Any]]:
    """What a service knows of the rows itself."""
    return joined.select(OWN).rows(named=True)


def test_rows_score_as_in_training_with_what_the_view_has_of_them(joined: pl.DataFrame, put: Any, watch: Any) -> None:
    expected = put(1)
    predictor = Predictor(watch(), live=["alarms"])
    assert predictor.columns == ["kind", "at", "pressure", "since_visit_s", "is_new"]
    rows = rows_of(joined)
    assert [predictor.predict(row) for row in rows] == expected
    assert predictor.predict_many(rows) == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) == len(expected)
    assert predictor.predict_many([]).tolist() == []


def test_all_of_a_row_is_read_at_once_and_what_it_brings_is_not_read(
    joined: pl.DataFrame, put: Any, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = put(1)
    watcher = watch()
    predictor = Predictor(watcher, live=["alarms"])
    reads = []
    get_records = watcher.view.get_records
    monkeypatch.setattr(watcher.view, "get_records", lambda places: (reads.append(places), get_records(places))[1])
    rows = rows_of(joined)
    predictor.predict(rows[0])
    predictor.predict_many(rows)
    assert [len(places) for places in reads] == [2, 6]
    reads.clear()
    assert predictor.predict_many(joined.rows(named=True)) == pytest.approx(expected, abs=1e-6)
    assert reads == []


def test_a_new_state_scores_as_soon_as_it_is_served(joined: pl.DataFrame, put: Any, watch: Any) -> None:
    first = put(1)
    watcher = watch()
    predictor = Predictor(watcher, live=["alarms"])
    second = put(2)
    row = rows_of(joined)[0]
    assert (predictor.predict(row), predictor.version) == (first[0], 1)
    watcher.check()
    assert (predictor.predict(row), predictor.version) == (second[0], 2)
    assert first[0] != second[0]


def test_a_state_that_lacks_a_tensor_is_never_served_and_the_one_before_stays(
    joined: pl.DataFrame, put: Any, watch: Any
) -> None:
    expected = put(1)
    watcher = watch()
    predictor = Predictor(watcher, live=["alarms"])
    put(2, tensors={"head.bias": torch.zeros(1)})
    with pytest.raises(DataError, match=r"lacks .*head\.weight"):
        watcher.check()
    assert (predictor.predict(rows_of(joined)[0]), predictor.version, watcher.version) == (expected[0], 1, 1)
    assert "head.weight" in watcher.problem.what
    put(3)
    watcher.check()
    assert (predictor.version, watcher.version, watcher.problem) == (3, 3, None)
    put(4, tensors={"head.bias": torch.zeros(1)})
    with pytest.raises(DataError, match=r"lacks .*head\.weight"):
        Predictor(watch())


def test_a_feature_that_nobody_keeps_up_must_come_with_the_row(joined: pl.DataFrame, put: Any, watch: Any) -> None:
    put(1)
    predictor = Predictor(watch())
    with pytest.raises(DataError, match="no column alarms_1h"):
        predictor.predict(rows_of(joined)[0])
    predictor.predict(rows_of(joined)[0] | {"alarms_1h": 1})


def test_a_view_that_can_not_be_read_is_said_and_rows_that_need_none_still_score(
    joined: pl.DataFrame, put: Any, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = put(1)
    watcher = watch()
    predictor = Predictor(watcher, live=["alarms"])

    def fails(*_: Any) -> None:
        raise ViewError("no connection to the cluster")

    monkeypatch.setattr(watcher.view, "get_records", fails)
    with pytest.raises(ViewError, match="no connection"):
        predictor.predict(rows_of(joined)[0])
    assert predictor.predict(joined.row(0, named=True)) == expected[0]


def test_threads_and_tasks_score_while_states_change_each_call_by_one_version(
    joined: pl.DataFrame, put: Any, watch: Any
) -> None:
    outputs: dict[int, list[float]] = {}
    put(1, outputs)
    watcher = watch(interval_s=0.005)
    predictor = Predictor(watcher, live=["alarms"])
    rows, arrived = rows_of(joined), threading.Event()

    def matches(found: Any) -> bool:
        return any(found == pytest.approx(expected, abs=1e-6) for expected in list(outputs.values()))

    def score() -> bool:
        all_match = True
        while not arrived.is_set():
            all_match &= matches(predictor.predict_many(rows).tolist())
            arrived.wait(0.001)
        return all_match

    async def tasks() -> bool:
        all_match = True
        while not arrived.is_set():
            found = await asyncio.gather(*(predictor.predict_async(row) for row in rows))
            all_match &= len(found) == len(rows)
            all_match &= matches((await predictor.predict_many_async(rows)).tolist())
        return all_match

    with ThreadPoolExecutor(3) as pool:
        scoring = [pool.submit(score), pool.submit(score), pool.submit(asyncio.run, tasks())]
        try:
            for number in (2, 3):
                put(number, outputs)
            while predictor.version < 3:
                assert not any(one.done() for one in scoring)
                arrived.wait(0.01)
        finally:
            arrived.set()
        assert [one.result() for one in scoring] == [True] * 3


def test_who_serves_loads_no_ray_spark_polars_or_arrow_and_no_compiler(
    joined: pl.DataFrame, put: Any, cluster: ClusterUnderTest, task: TaskConfig
) -> None:
    expected = put(1)
    row = rows_of(joined)[0]
    program = f"""
import datetime, sys
from geotrain.serving.predictor import Predictor
from geotrain.states.watch import ModelWatcher
from geotrain.view.config import ViewConfig, ViewTlsConfig
with ModelWatcher({view_config(cluster)!r}, {task.name!r}) as watcher:
    print(Predictor(watcher, live=["alarms"]).predict({row!r}))
heavy = ("ray", "pyspark", "polars", "pyarrow", "pandas", "numba", "torch._dynamo", "torch._inductor")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [str(expected[0]), "[]"], done.stderr
