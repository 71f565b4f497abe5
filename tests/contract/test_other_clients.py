"""Clients that nobody here wrote, where they are installed: aerospike-py, and the Node.js client by NODE_PATH."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ClusterUnderTest

SCRIPT = Path(__file__).parent / "node_client.js"


@pytest.fixture
def other(cluster: ClusterUnderTest) -> Iterator[Any]:
    """A client of aerospike-py."""
    module = pytest.importorskip("aerospike_py", reason="aerospike-py is not installed")
    host, _, port = cluster.hosts[0].rpartition(":")
    with module.client({"hosts": [(host, int(port))]}).connect() as client:
        yield client


def test_aerospike_py_connects_to_every_node(other: Any, cluster: ClusterUnderTest) -> None:
    assert other.is_connected()
    names = set(other.get_node_names())
    assert len(names) == len(other.get_node_names()) >= len(cluster.rack_ids)
    assert {answer.node_name for answer in other.info_all("node")} == names
    assert all(answer.response.strip().endswith(answer.node_name) for answer in other.info_all("node"))


def test_aerospike_py_puts_and_gets(other: Any, cluster: ClusterUnderTest, set_name: str) -> None:
    key = (cluster.namespace, set_name, "k")
    bins = {"n": 1, "x": 0.5, "text": "é", "raw": b"\0", "list": [1, "a"], "map": {"a": 1}}
    other.put(key, bins)
    other.put(key, {"n": 2})
    record = other.get(key)
    assert (record.bins, record.meta.gen) == (bins | {"n": 2}, 2)
    assert other.exists((cluster.namespace, set_name, "absent")).meta is None


def test_aerospike_py_reads_and_writes_batches(other: Any, cluster: ClusterUnderTest, set_name: str) -> None:
    keys = [(cluster.namespace, set_name, n) for n in range(30)]
    written = other.batch_write([(key, {"n": key[2]}) for key in keys])
    assert [row.result for row in written.batch_records] == [0] * 30
    found = other.batch_read([*keys, (cluster.namespace, set_name, 99)])
    assert found.found_count() == 30
    assert {key: bins["n"] for key, bins in found.to_dict().items()} == {n: n for n in range(30)}


def test_aerospike_py_scans_and_queries(other: Any, cluster: ClusterUnderTest, set_name: str) -> None:
    predicates = pytest.importorskip("aerospike_py.predicates")
    for n in range(30):
        other.put((cluster.namespace, set_name, n), {"n": n, "other": 0})
    scan = other.query(cluster.namespace, set_name)
    scan.select("n")
    assert sorted(record.bins["n"] for record in scan.results()) == list(range(30))
    other.index_integer_create(cluster.namespace, set_name, "n", f"{set_name}-index")
    query = other.query(cluster.namespace, set_name)
    query.where(predicates.between("n", 4, 6))
    assert sorted(record.bins["n"] for record in query.results()) == [4, 5, 6]
    other.index_remove(cluster.namespace, f"{set_name}-index")


def test_the_node_client_puts_gets_batches_scans_and_queries(cluster: ClusterUnderTest, set_name: str) -> None:
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require('aerospike')"], capture_output=True).returncode != 0:
        pytest.skip("the Node.js client is not installed (npm install aerospike, and NODE_PATH that leads to it)")
    command = [node, str(SCRIPT), cluster.hosts[0], cluster.namespace, set_name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["nodes"] >= len(cluster.rack_ids)
    assert seen["get"] == [{"n": 7, "text": "node 7", "list": [7, "x"], "map": {"half": 7.5}}, 1]
    assert seen["batch"] == [3, None, 5]
    assert seen["batchWrite"] == [0, 0]
    assert seen["scan"] == list(range(22))
    assert seen["query"] == [4, 5, 6]
