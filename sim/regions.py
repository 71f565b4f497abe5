"""Starts the parts of the demo, each a process of its own, and puts the data where it belongs. Knows no job."""

import json
from dataclasses import asdict
from pathlib import Path

from geotrain.view.config import ViewConfig
from geotrain.view.connect import View, connect
from sim.config import SimConfig
from sim.ingest import ingest_shared
from sim.processes import Child, Supervisor

START_DEADLINE_S = 60.0
INGEST_DEADLINE_S = 300.0
ANY_PORT = "127.0.0.1:0"


class Regions:
    """The cluster, the coordinator, the relay and the sites of one demo."""

    def __init__(self, config: SimConfig, processes: Supervisor, folder: Path) -> None:
        self._config = config
        self._processes = processes
        self._folder = folder
        self._hosts: list[str] = []

    def connect(self) -> View:
        """The view, from the first site's rack. Raises ViewError unless the cluster is what all sites rely on."""
        racks = [self._config.cluster.racks[site] for site in self._config.sites]
        return connect(self._view(self._config.sites[0]), expected_racks=racks)

    def data_dir(self, site: str) -> Path:
        return self._folder / "sites" / site

    def start_cluster(self) -> str:
        """Start the simulated cluster, or take the one that the configuration names. Returns an address."""
        cluster = self._config.cluster
        self._hosts = cluster.hosts
        if cluster.simulated:
            ports = [f"nodes.{site}.port=0" for site in cluster.racks]
            child = self._start("cluster", "sim.cluster", *ports, f"namespace={self._config.view.namespace}")
            ready = self._processes.wait_says(child, r"ready.*?=(\S+:\d+)", deadline_s=START_DEADLINE_S)
            self._hosts = [ready[1]]
        return self._hosts[0]

    def start_coordinator(self) -> str:
        """Start the coordinator. Returns the coordinator's address."""
        config = self._config
        child = self._start(
            "coordinator",
            "coordinator",
            f"listen={ANY_PORT}",
            f"http_listen={ANY_PORT}",
            f"sites={json.dumps(config.sites)}",
            _override("spool_dir", self._folder / "spool"),
            *self._view_overrides(config.sites[0]),
        )
        return self._processes.wait_says(child, r"ready at (\S+:\d+)", deadline_s=START_DEADLINE_S)[1]

    def start_agents(self, coordinator: str) -> None:
        """Start the relay, and every site's agent, which dials it. Agents come up while the data is written."""
        relay = self._processes.start_python(
            "relay",
            "sim.relay",
            f"--target={coordinator}",
            f"--folder={self._folder / 'wire'}",
            f"--max-bytes={self._config.capture_bytes}",
            *(f"{site}={ANY_PORT}" for site in self._config.sites),
        )
        for site in self._config.sites:
            relayed = self._processes.wait_says(relay, rf"{site} is relayed at (\S+:\d+)", deadline_s=START_DEADLINE_S)
            self.data_dir(site).mkdir(parents=True, exist_ok=True)
            self._start(
                f"agent-{site}",
                "site_agent",
                f"site={site}",
                f"site.rack={self._config.cluster.racks[site]}",
                _override("site.data_dir", self.data_dir(site)),
                f"coordinator={relayed[1]}",
                *self._view_overrides(site),
            )

    def ingest(self, view: View) -> None:
        """Have every site put its data into its folder and its legs into the view; write what is known everywhere."""
        children = [
            self._processes.start_python(
                f"ingest-{site}",
                "sim.ingest",
                f"--site={site}",
                f"--folder={self.data_dir(site)}",
                f"--days-a-month={self._config.days_a_month}",
                f"--task={self._config.task.to_json()}",
                f"--view={json.dumps(asdict(self._view(site)))}",
                ends=True,
            )
            for site in self._config.sites
        ]
        ingest_shared(view)
        for child in children:
            self._processes.wait_done(child, deadline_s=INGEST_DEADLINE_S)

    def _start(self, name: str, module: str, *overrides: str) -> Child:
        """Start one of the Hydra programs; its output goes to the demo's log of it, not to a folder of its own."""
        return self._processes.start_python(
            name,
            module,
            *overrides,
            "hydra/job_logging=stdout",
            "hydra.output_subdir=null",
            _override("hydra.run.dir", self._folder / "logs"),
        )

    def _view(self, site: str) -> ViewConfig:
        return self._config.view_of(site, self._hosts)

    def _view_overrides(self, site: str) -> list[str]:
        fields = asdict(self._view(site))
        fields |= {f"tls.{name}": value for name, value in fields.pop("tls").items()}
        return [f"view.{name}={json.dumps(value)}" for name, value in fields.items()]


def _override(name: str, path: Path) -> str:
    """A path as Hydra takes it, whatever its name holds."""
    return f"{name}={json.dumps(str(path))}"
