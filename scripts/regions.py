"""Three regions in containers, as an operator sees them: started in their order, looked at and told from outside."""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.containers import Containers

SITES = ("ewr", "jfk", "lga")
COORDINATORS = ("coordinator-ewr", "coordinator-jfk")
NETWORKS = (*SITES, "nodes")
NODES = tuple(f"node-{site}" for site in SITES)
AGENTS = tuple(f"agent-{site}" for site in SITES)
# Each look is a process of its own, on the cores of those it looks at.
POLL_S = 2.0
LINES_SHOWN = 60
IMAGE = "localhost/geotrain"


def check(holds: bool, what: str) -> None:
    print(f"{'ok' if holds else 'FAILED'}: {what}", flush=True)
    if not holds:
        raise SystemExit(1)


def wait_for(what: str, look: Callable[[], Any], deadline_s: float) -> Any:
    """What `look` returns once it is something. Raises SystemExit where it is nothing for too long."""
    print(f"  waiting: {what}", flush=True)
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        if found := look():
            return found
        time.sleep(POLL_S)
    raise SystemExit(f"FAILED: not within {deadline_s:g} s: {what}")


class Regions:
    """The three regions, as an operator sees them."""

    def __init__(self, containers: Containers) -> None:
        self.containers = containers

    def bring_up(self) -> None:
        """Everything but a job, in the order that the file's `depends_on` has."""
        containers, ingests = self.containers, [f"ingest-{site}" for site in SITES]
        if containers.is_podman:  # podman-compose 1.0 makes networks without options, but takes those that are there
            for name in NETWORKS:
                containers.run("network", "create", "--opt=isolate=true", f"{containers.project}_{name}")
        containers.start("certificates")
        self.wait_done("certificates", deadline_s=60)
        containers.start("cluster", "wan")
        self.wait_healthy("cluster", "wan", deadline_s=120)
        containers.start(*NODES)
        self.wait_healthy(*NODES, deadline_s=60)
        containers.start("view")
        self.wait_done("view", deadline_s=120)
        containers.start(*COORDINATORS, *ingests)
        wait_for("a coordinator leads", self.leader, 180)
        self.wait_done(*ingests, deadline_s=420)
        containers.start(*AGENTS)
        self.wait_healthy(*COORDINATORS, *AGENTS, deadline_s=180)

    def take_down(self) -> None:
        self.containers.down("-v")
        if self.containers.is_podman:
            self.containers.run("network", "rm", *(f"{self.containers.project}_{name}" for name in NETWORKS))

    def show_logs(self) -> None:
        """What the daemons have said last, before they are taken down."""
        for service in (*COORDINATORS, *AGENTS, "cluster", "wan"):
            print(f"--- {service}", *self.containers.logs(service).splitlines()[-LINES_SHOWN:], sep="\n", flush=True)

    def wait_done(self, *services: str, deadline_s: float) -> None:
        for service in services:
            wait_for(f"{service} is done", lambda service=service: self.containers.is_done(service), deadline_s)

    def wait_healthy(self, *services: str, deadline_s: float) -> None:
        for service in services:
            wait_for(f"{service} is healthy", lambda service=service: self.containers.is_healthy(service), deadline_s)

    def asked(self, *command: str) -> Any:
        """What `geotrain` prints, asked at each coordinator until the one that leads answers; None: none does."""
        for name in COORDINATORS:
            said = self.containers.inside(name, "python", "-m", "coordinator.cli", *command, "--json")
            if said.returncode == 0:
                return json.loads(said.stdout)
        return None

    def leader(self) -> str:
        """The service that leads, or nothing."""
        seen = self.asked("status")
        return seen["coordinator"]["address"].partition(":")[0] if seen and seen["coordinator"]["ready"] else ""

    def job(self, name: str) -> Any:
        return self.asked("rounds", name) or {"status": "not seen", "history": [], "round": 0}

    def ended(self, name: str) -> Any:
        seen = self.job(name)
        return seen if seen["status"] in ("finished", "failed", "cancelled") else None

    def committed(self, name: str, holds: Callable[[Any], bool]) -> Any:
        """The last committed round of a job, where something holds of it."""
        rounds = [each for each in self.job(name)["history"] if each["commit"]]
        return rounds[-1] if rounds and holds(rounds[-1]["commit"]["weights"]) else None

    def site(self, name: str) -> Any:
        """What is told of a site."""
        return next((each for each in self.asked("sites") or [] if each["site"] == name), {"state": "", "work": []})

    def operator(self, *command: str, options: tuple[str, ...] = ()) -> bool:
        """What only an operator's certificate may do, from beside the coordinator that leads."""
        network = f"--network={self.containers.project}_{self.leader().rpartition('-')[2]}"
        mount = f"--volume={self.containers.project}_tls-operator:/run/tls:ro"
        done = self.containers.run("run", "--rm", *options, network, mount, IMAGE, *command)
        print(done.stdout + done.stderr, end="", flush=True)
        return done.returncode == 0

    def report(self) -> Any:
        """What the main job has left in its volume."""
        with tempfile.TemporaryDirectory() as folder:
            container = self.containers.id("job")
            self.containers.run("cp", f"{container}:/var/lib/geotrain/report/report.json", f"{folder}/report.json")
            return json.loads(Path(folder, "report.json").read_text())

    def control(self, action: str, name: str) -> bool:
        where = ("--tls", "/run/tls", "--coordinator", f"{self.leader()}:50552")
        return self.operator("coordinator.cli", action, name, *where)

    def order(self, service: str, order: str) -> str:
        """To the wide area for gRPC, `wan`, or to the cluster, which has its own."""
        done = self.containers.inside(service, "python", "-m", "sim.control", "127.0.0.1:3100", order)
        check(done.returncode == 0, f"{service}: {order}")
        return done.stdout
