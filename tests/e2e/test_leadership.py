"""Two real coordinators, one job: the leader is stopped for longer than its lease, wakes up, and leads again later."""

import asyncio
import collections
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from benchmarks.agents import STEP, site_name
from benchmarks.rounds import free_port, job
from coordinator.config import register
from coordinator.dial import ask_leader
from coordinator.launch import launch
from coordinator.ledger import ROUNDS, Ledger
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.states.lookup import ModelLookup
from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from sim.processes import Child, Supervisor
from tests.conftest import simulated_cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LEASE_S = 2.0
START_DEADLINE_S = 120
NUM_SITES = 2
NUM_ROUNDS = 12
TRAIN_S = 0.5


class World:
    """Two coordinators, two agents that add a constant, and a view."""

    def __init__(self, supervisor: Supervisor, hosts: list[str], folder: Path) -> None:
        rows = pl.DataFrame({"at": [0], "x": [0.0], "y": [0.0]}).with_columns(pl.col("at").cast(pl.Datetime("us")))
        rows.write_parquet(folder / "rows.parquet")
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        self.supervisor = supervisor
        self.coordinators = [
            supervisor.start_python(
                *(f"coordinator-{number}", "coordinator", f"listen={address}", f"view.hosts=[{hosts[number]}]"),
                *(
                    f"view.rack={number + 1}",
                    "http_listen=",
                    f"lease_s={LEASE_S}",
                    f"spool_dir={folder}/spool-{number}",
                ),
                *("hydra.output_subdir=null", "hydra/job_logging=stdout", f"hydra.run.dir={folder}/run"),
            )
            for number, address in enumerate(self.addresses)
        ]
        self.agents = supervisor.start_python(
            *("agents", "benchmarks.agents", "", hosts[0], str(folder), str(NUM_SITES), str(TRAIN_S))
        )
        self.config = job(1, [site_name(number) for number in range(NUM_SITES)], NUM_ROUNDS, ",".join(self.addresses))

    def says(self, child: Child, pattern: str) -> None:
        self.supervisor.wait_says(child, pattern, deadline_s=START_DEADLINE_S)


@pytest.fixture
def hosts(tmp_path) -> Iterator[list[str]]:
    with simulated_cluster(tmp_path / "cluster") as addresses:
        yield addresses


@pytest.fixture
def world(hosts, tmp_path) -> Iterator[World]:
    register()
    with Supervisor(tmp_path / "logs", grace_s=3) as supervisor:
        yield World(supervisor, hosts, tmp_path)


def committed(view: View, job_id: str) -> list[int]:
    """Under which epoch each round was committed, from the first model on."""
    records = view.get_many(ROUNDS, [f"{job_id}/{number}" for number in range(NUM_ROUNDS + 1)])
    return [record.bins["epoch"] for record in records if record and record.bins["status"] == "committed"]


def order(address: str, job_id: str, action: pb.ControlRequest.Action) -> None:
    request = pb.ControlRequest(job=job_id, action=action, reason="to see who is told")
    asyncio.run(ask_leader([address], lambda stub: stub.Control(request, timeout=START_DEADLINE_S)))


def disturb(world: World, view: View, job_id: str, told: list[pb.JobEvent]) -> None:
    """Stop the leader, wake it up when another has committed rounds and is followed, and end that one."""

    def until_round(number: int) -> None:
        world.supervisor.wait_ready(
            world.agents, lambda: len(committed(view, job_id)) > number, "get on", deadline_s=START_DEADLINE_S
        )

    first, second = world.coordinators
    address = world.addresses[1]
    if "leading: " in second.log_text():
        first, second, address = second, first, world.addresses[0]
    until_round(1)
    world.says(second, "standby: epoch 1 leads")
    first.process.send_signal(signal.SIGSTOP)
    world.says(second, "leading: leads under epoch 2")
    until_round(4)
    # Agents have left the stopped leader, and so must whoever follows: it is told what only the other one does.
    order(address, job_id, pb.ControlRequest.PAUSE)
    world.supervisor.wait_ready(
        second, lambda: any(event.phase.phase == "paused" for event in told), "be followed", deadline_s=START_DEADLINE_S
    )
    order(address, job_id, pb.ControlRequest.RESUME)
    first.process.send_signal(signal.SIGCONT)
    world.says(first, r"stopping: (.|\n)*standby: epoch 2 leads")
    world.supervisor.children.remove(second)
    second.process.send_signal(signal.SIGTERM)
    world.says(first, "leading: leads under epoch 3")
    assert second.process.wait(START_DEADLINE_S) == 0
    assert "the lease is given back" in second.log_text()


async def play(world: World, view: View) -> list[pb.JobEvent]:
    """Runs the job to its end; returns what those who follow it are told."""
    told: list[pb.JobEvent] = []
    disturbing: asyncio.Task[None] | None = None
    async for event in launch(world.config):
        told.append(event)
        if disturbing is None:
            disturbing = asyncio.create_task(asyncio.to_thread(disturb, world, view, event.job, told))
    assert disturbing is not None
    await disturbing
    return told


def test_a_leader_that_is_stopped_is_replaced_writes_nothing_when_it_wakes_and_leads_again_in_its_turn(world, hosts):
    for child in world.coordinators:
        world.says(child, "ready")
    with connect(ViewConfig(hosts=hosts[:1])) as view:
        told = asyncio.run(play(world, view))
        assert told[-1].ended.status == "finished", told[-1].ended.reason
        assert [event.round.version for event in told if event.HasField("round")] == list(range(2, NUM_ROUNDS + 2))
        epochs = committed(view, told[-1].job)
        assert epochs == sorted(epochs)
        assert (len(epochs), set(epochs)) == (NUM_ROUNDS + 1, {1, 2, 3})
        facts = Ledger(view, told[-1].job, epoch=0).facts()
        assert [past.commit.version for past in facts.rounds] == list(range(1, NUM_ROUNDS + 2))
        lookup = ModelLookup(view, world.config.task.name)
        first, last = lookup.at(1).tensors, lookup.latest().tensors
        moved = [float(tensor.flatten()[0] - first[name].flatten()[0]) for name, tensor in last.items()]
        assert moved == pytest.approx([NUM_ROUNDS * STEP] * len(moved), rel=1e-3)
    trainings = collections.Counter(re.findall(r"(\S+ trains round \d+)", world.agents.log_text()))
    assert set(trainings.values()) == {1}
    assert len(trainings) == NUM_SITES * NUM_ROUNDS
