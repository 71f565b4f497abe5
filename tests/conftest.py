"""What several rooms of the tests share: the cluster under test."""

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aerospike
import pytest
from hypothesis import HealthCheck, settings

# A moment of load on the machine is no failure of what is tested; pytest has a limit for each test.
settings.register_profile("geotrain", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("geotrain")

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class ClusterUnderTest:
    """A cluster that tests may write to: a simulated one, or the real one that GEOTRAIN_TEST_AEROSPIKE names."""

    hosts: list[str]
    """`host:port` of each node of a simulated cluster, or of one seed of a real one."""
    namespace: str
    rack_ids: list[int]
    """The racks that the nodes stand on, ascending; empty where the edition knows none."""
    strong_consistency: bool

    def connect(self, **config: Any) -> Any:
        """An official client; `config` is merged into its configuration."""
        seeds = [(host, int(port)) for host, _, port in (address.rpartition(":") for address in self.hosts)]
        return aerospike.client({"hosts": seeds, "validate_keys": True, **config}).connect()


@contextlib.contextmanager
def simulated_cluster(
    run_dir: Path, *overrides: str, sites: Sequence[str] = ("ewr", "jfk", "lga")
) -> Iterator[list[str]]:
    """A simulated cluster in its own process, on any free ports. Yields its addresses, in the order of its nodes."""
    ports = [f"nodes.{site}.port=0" for site in sites]
    command = [sys.executable, "-m", "sim.cluster", *ports, f"hydra.run.dir={run_dir}", *overrides]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = ""
        try:
            for line in process.stdout:
                said += line
                if "ready" in line:
                    break
            else:
                raise RuntimeError(f"the simulated cluster did not start:\n{said}")
            # What it logs from here on is dropped: a full pipe would stop it.
            drain = threading.Thread(target=deque, args=(process.stdout, 0))
            drain.start()
            try:
                yield re.findall(r"=(\S+:\d+)", line)
            finally:
                process.terminate()
                drain.join()
        finally:
            process.terminate()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that start whole systems go first: they mostly wait, and what is left over evens out at the end."""
    systems = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: item.path not in systems)


def free_port() -> int:
    """A port that stays free while the program it is for comes and goes: none that the kernel gives to who dials.

    Of those, a process that dials its own host again and again sooner or later gets the very port that it dials.
    """
    while True:
        port = random.randrange(10_000, 32_768)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterUnderTest]:
    """A real cluster where GEOTRAIN_TEST_AEROSPIKE names one, else a simulated one of three sites."""
    address = os.environ.get("GEOTRAIN_TEST_AEROSPIKE")
    with contextlib.ExitStack() as stack:
        run_dir = tmp_path_factory.mktemp("simulated_cluster")
        hosts = [address] if address else stack.enter_context(simulated_cluster(run_dir))
        yield describe(hosts)


def describe(hosts: list[str]) -> ClusterUnderTest:
    """What a cluster at these addresses says of itself."""
    client = ClusterUnderTest(hosts=hosts, namespace="", rack_ids=[], strong_consistency=False).connect()
    try:
        namespaces = _ask(client, "namespaces").split(";")
        namespace = "geotrain" if "geotrain" in namespaces else namespaces[0]
        racks = re.findall(r"rack_(\d+)=", _ask(client, "racks:"))
        return ClusterUnderTest(
            hosts=hosts,
            namespace=namespace,
            rack_ids=sorted(map(int, racks)),
            strong_consistency="strong-consistency=true" in _ask(client, f"namespace/{namespace}"),
        )
    finally:
        client.close()


def _ask(client: Any, name: str) -> str:
    """One node's answer to an info request."""
    answer: str = client.info_random_node(name)
    return answer.partition("\t")[2].strip()
