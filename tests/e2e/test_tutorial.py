"""The tutorial as a stranger follows it: its own files, real processes, two sites, and the mistakes one makes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sim.processes import Child, Supervisor
from tests.conftest import ROOT, simulated_cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TUTORIAL = ROOT / "docs" / "tutorial.md"
TARGETS = "allowed_targets=[diabetes.*,torch.nn.*,torch.optim.*]"


def files_of(tutorial: str) -> dict[str, str]:
    """The files that the tutorial has its reader write: path -> content."""
    return dict(re.findall(r"^`(my/[\w/.]+)`:\n\n```\w+\n(.*?)^```", tutorial, re.MULTILINE | re.DOTALL))


@dataclass
class Hospitals:
    """Both hospitals' agents, the coordinator and the view, running; and how to type a command beside them."""

    folder: Path
    view: str
    coordinator: str
    status: str
    supervisor: Supervisor

    def start(self, name: str, module: str, *arguments: str) -> Child:
        return self.supervisor.start_python(name, module, *arguments)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, text=True, capture_output=True, timeout=300, check=False
        )

    def geotrain(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "coordinator.cli", *command, "--coordinator", self.status)

    def launch(self, *overrides: str) -> subprocess.CompletedProcess[str]:
        return self.run(
            *("-m", "coordinator.launch", "--config-dir", "my/configs", "task=diabetes", "sites=[north,south]"),
            *(f"coordinator={self.coordinator}", "gather_deadline_s=60", *overrides),
        )


def agent(site: str, view: str, coordinator: str) -> list[str]:
    return ["--config-dir", "my/configs", f"site={site}", f"view.hosts=[{view}]", f"coordinator={coordinator}"]


def write_tutorial(folder: Path) -> None:
    """Write the files that the tutorial shows."""
    for name, text in files_of(TUTORIAL.read_text()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    folder = tmp_path_factory.mktemp("tutorial")
    write_tutorial(folder)
    with pytest.MonkeyPatch.context() as patch, simulated_cluster(folder / "cluster") as (view, *_):
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(folder / "my")]))
        patch.chdir(folder)
        with Supervisor(folder / "logs") as supervisor:
            coordinator = supervisor.start_python(
                *("coordinator", "coordinator", f"view.hosts=[{view}]", "listen=127.0.0.1:0"),
                *("http_listen=127.0.0.1:0", TARGETS),
            )
            address = supervisor.wait_says(coordinator, r"coordinator ready at (\S+:\d+)", deadline_s=60)[1]
            status = supervisor.wait_says(coordinator, r"status at http://(\S+)/snapshot", deadline_s=60)[1]
            made = subprocess.run([sys.executable, "my/make_data.py", view], text=True, capture_output=True, check=True)
            assert "written=442" in made.stdout
            # The south trains with two workers: the same model, by DistributedDataParallel.
            agents = [
                supervisor.start_python("north", "site_agent", *agent("north", view, address)),
                supervisor.start_python(
                    "south", "site_agent", *agent("south", view, address), "site.training.num_workers=2"
                ),
            ]
            for child in agents:
                supervisor.wait_says(child, "joined the coordinator", deadline_s=120)
            yield Hospitals(folder, view, address, status, supervisor)


def test_a_task_of_ones_own_is_a_yaml_file_and_a_module(hospitals):
    launched = hospitals.launch("rounds=5")
    assert launched.returncode == 0, launched.stdout + launched.stderr
    assert re.search(r"round 5: cut of 442 rows, equal everywhere", launched.stdout)
    metrics = {
        site: {name: float(value) for name, value in re.findall(r"(\w+) (-?\d\.\d+)", line)}
        for site, line in re.findall(r"diabetes/site/(\w+)@\d+: (.*)", launched.stdout)
    }
    assert metrics.keys() == {"north", "south"}
    assert all(metric["localized"] > metric["local_only"] for metric in metrics.values()), metrics

    predicted = hospitals.run("my/predict.py", hospitals.view)
    assert re.search(r"diabetes/site/north@\d+ .*'head.weight': \(1, 32\)", predicted.stdout), predicted.stderr

    [job] = re.findall(r"job (\S+): 5 rounds at", launched.stdout)
    assert f"{job}  finished, round 5 of 5" in hospitals.geotrain("status").stdout
    explained = hospitals.geotrain("explain", job, "5").stdout
    for said in (r"why it closed +every live site reported", "442 rows", r"north +yes", r"south +yes", r"training \d"):
        assert re.search(said, explained), explained


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ("task.local.visits.columns.bmi=bool", r"column bmi is Float64, expected bool"),
        ("+task.local.visits.columns.weight=float64", r"there is no column weight"),
        ("task.local.visits.path=visit.parquet", r"there is no file .*visit.parquet"),
        ("task.training.optimizer.lr=1e30", r"the loss is (nan|inf)"),
        ("task.training.optimizer.lr=1e9", r"the update's norm .* is over strategy.max_update_norm"),
        ("task.view.labs.columns.s1=int64", r"column s1 is declared int64, but a record holds float64"),
    ],
)
def test_a_job_that_its_sites_cannot_run_fails_with_the_reason_and_the_next_one_runs(hospitals, mistake, reason):
    launched = hospitals.launch("rounds=1", mistake)
    assert launched.returncode == 7, launched.stdout + launched.stderr
    assert re.search(reason, launched.stderr), launched.stderr
    assert "Traceback" not in launched.stderr
    assert "ray::" not in launched.stderr


def test_a_site_that_never_comes_is_named_when_the_deadline_passes(hospitals):
    launched = hospitals.launch("sites=[north,mars]", "gather_deadline_s=2")
    assert launched.returncode == 7
    assert "deadline passed without mars" in launched.stderr


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ("rounds=0", "rounds must be at least 1, got 0"),
        ("rounds=many", "rounds"),
        ("roundz=3", "roundz"),
        ("min_sites=3", "min_sites must be from 1 to the number of sites"),
        ("task=cancer", "cancer"),
        ("task.join.0.kind=outer", "kind"),
        ("task.features.s1.kind=text", "task.features.s1.kind"),
        ("strategy.outer._target_=os.system", "strategy.outer._target_"),
        ("strategy.outer.lrr=1", "strategy.outer"),
        ("task.model._target_=subprocess.Popen", "task.model._target_: 'subprocess.Popen' is not allowed here"),
    ],
)
def test_a_misspelt_launch_is_refused_with_the_fields_name(hospitals, mistake, reason):
    launched = hospitals.launch(mistake)
    assert launched.returncode in (1, 2)
    assert reason in launched.stderr
    assert "Traceback" not in launched.stderr


def test_a_second_agent_of_a_site_is_refused(hospitals):
    second = hospitals.run("-m", "site_agent", *agent("north", hospitals.view, hospitals.coordinator))
    assert second.returncode == 6
    assert "another agent is connected as site 'north'" in second.stderr


def test_a_port_in_use_is_said(hospitals):
    second = hospitals.run("-m", "coordinator", f"view.hosts=[{hospitals.view}]", f"listen={hospitals.coordinator}")
    assert second.returncode == 2
    assert "can't be bound" in second.stderr


def test_no_coordinator_at_the_address_is_said(hospitals):
    launched = hospitals.launch("coordinator=127.0.0.1:1")
    assert launched.returncode == 1
    assert "no coordinator answers at 127.0.0.1:1" in launched.stderr


def test_no_cluster_at_the_address_is_said(hospitals):
    started = hospitals.run("-m", "site_agent", *agent("north", "127.0.0.1:1", hospitals.coordinator))
    assert started.returncode == 3
    assert "127.0.0.1:1" in started.stderr
    assert "Traceback" not in started.stderr


def test_an_unknown_site_is_refused_with_those_there_are(hospitals):
    started = hospitals.run("-m", "site_agent", *agent("mars", hospitals.view, hospitals.coordinator))
    assert started.returncode == 1
    assert "north" in started.stderr
    assert "mars" in started.stderr
