import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aerospike
from aerospike import predicates

from geotrain.wire.codes import Field, OpCode
from geotrain.wire.frames import MESSAGE, FrameReader, encode_frame
from geotrain.wire.messages import Message, decode_message, encode_message, operation
from tests.sim.cluster.test_program import start
from tests.sim.cluster.wire_client import WireClient

SET = "restarts"


@contextmanager
def running(tmp_path: Path, *overrides: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A cluster that keeps its records in a folder, and the addresses of its nodes."""
    with start(tmp_path / "run", f"data_dir={tmp_path / 'data'}", *overrides) as process:
        assert process.stdout is not None
        ready = next(line for line in process.stdout if "ready" in line)
        try:
            yield process, re.findall(r"=(\S+:\d+)", ready)
        finally:
            process.kill()


def put(number: int, value: int) -> bytes:
    digest = aerospike.calc_digest("geotrain", SET, number)
    fields = {Field.NAMESPACE: b"geotrain", Field.SET: SET.encode(), Field.DIGEST: bytes(digest)}
    message = Message(info2=1, fields=fields, ops=[operation(OpCode.WRITE, "value", value)])
    return encode_frame(MESSAGE, encode_message(message))


def num_acknowledged(address: str, requests: list[bytes], process: subprocess.Popen[str], kill_after: int) -> int:
    """Send requests without waiting, kill the cluster after some acknowledgements, and count all that came."""
    num_replies, reader = 0, FrameReader()
    with WireClient(address) as client:
        threading.Thread(target=send, args=(client, b"".join(requests))).start()
        try:
            while data := client.socket.recv(2048):
                replies = reader.feed(data)
                assert all(decode_message(reply.body)[0].result_code == 0 for reply in replies)
                num_replies += len(replies)
                if num_replies >= kill_after:
                    process.send_signal(signal.SIGKILL)
        except ConnectionError:
            pass
    return num_replies


def send(client: WireClient, data: bytes) -> None:
    try:
        client.socket.sendall(data)
    except OSError:
        return  # the cluster was killed


def connect(address: str) -> aerospike.Client:
    host, _, port = address.rpartition(":")
    return aerospike.client({"hosts": [(host, int(port))]}).connect()


def test_a_cluster_killed_in_mid_write_again_and_again_has_all_it_acknowledged(tmp_path: Path) -> None:
    known: dict[int, int] = {}
    for value, kill_after in enumerate([3, 700, 200], start=1):
        with running(tmp_path) as (process, addresses):
            requests = [put(number, value) for number in range(5000)]
            num_done = num_acknowledged(addresses[value - 1], requests, process, kill_after)
        assert kill_after <= num_done < 5000
        known |= dict.fromkeys(range(num_done), value)
    with running(tmp_path) as (_, addresses):
        client = connect(addresses[0])
        records = client.batch_read([("geotrain", SET, number) for number in range(5000)]).batch_records
        client.close()
    found = {record.key[2]: record.record[2]["value"] for record in records if record.result == 0}
    assert known.keys() <= found.keys()
    assert all(found[number] >= value for number, value in known.items())


def test_records_come_back_on_every_node_with_their_generations_and_keys(tmp_path: Path) -> None:
    key = ("geotrain", SET, "kept")
    gone = ("geotrain", SET, "gone")
    with running(tmp_path) as (process, addresses):
        client = connect(addresses[0])
        for number in range(3):
            client.put(key, {"value": number}, policy={"key": aerospike.POLICY_KEY_SEND})
            client.put(gone, {"value": number})
        client.remove(gone, policy={"durable_delete": True})
        client.close()
        process.terminate()
        assert process.wait(timeout=60) == 0
    with running(tmp_path) as (_, addresses):
        client = connect(addresses[0])
        assert client.get(key)[1]["gen"] == 3
        (found,) = client.query("geotrain", SET).results()
        assert (found[0][2], found[2]) == ("kept", {"value": 2})
        assert client.exists(gone)[1] is None
        client.put(gone, {"value": 9})
        assert client.get(gone)[1]["gen"] == 5
        sets = client.info_all("sets/geotrain").values()
        assert all("objects=2" in answer for _, answer in sets)
        client.close()


def test_a_folder_in_use_is_said_in_two_lines(tmp_path: Path) -> None:
    with running(tmp_path), start(tmp_path / "second", f"data_dir={tmp_path / 'data'}") as second:
        _, err = second.communicate(timeout=60)
    assert err.splitlines() == [
        f"error: data_dir: {tmp_path / 'data'} is in use by another cluster",
        "  Stop that cluster, or choose another folder.",
    ]


def test_a_transaction_that_was_open_when_the_cluster_died_can_still_be_committed(tmp_path: Path) -> None:
    keys = [("geotrain", SET, number) for number in range(2)]
    with running(tmp_path) as (_, addresses):
        client = connect(addresses[0])
        transaction = aerospike.Transaction()
        transaction.timeout = 60
        for key in keys:
            client.put(key, {"value": 1})
            client.put(key, {"value": 2}, policy={"txn": transaction})
    ports = [
        f"nodes.{site}.port={address.rpartition(':')[2]}"
        for site, address in zip(("ewr", "jfk", "lga"), addresses, strict=True)
    ]
    with running(tmp_path, *ports):
        reader = connect(addresses[0])
        assert [reader.get(key)[2]["value"] for key in keys] == [1, 1]
        client.commit(transaction)
        assert [reader.get(key)[2]["value"] for key in keys] == [2, 2]
        reader.close()
        client.close()


def test_what_operators_have_decided_survives_a_kill(tmp_path: Path) -> None:
    with running(tmp_path) as (_, addresses):
        client = connect(addresses[0])
        for number in range(3):
            client.put(("geotrain", SET, number), {"value": number})
            client.put(("geotrain", "truncated", number), {"value": number})
        client.index_single_value_create("geotrain", SET, "value", aerospike.INDEX_NUMERIC, "by_value")
        client.truncate("geotrain", "truncated", 0)
        client.close()
        with WireClient(addresses[0]) as first:
            roster = first.info("roster:namespace=geotrain").partition(":")[0].removeprefix("roster=")
            fewer = roster.partition(",")[2]
            assert first.info(f"roster-set:namespace=geotrain;nodes={fewer}") == "ok"
    with running(tmp_path) as (_, addresses):
        client = connect(addresses[0])
        query = client.query("geotrain", SET)
        query.where(predicates.between("value", 1, 2))
        assert sorted(record[2]["value"] for record in query.results()) == [1, 2]
        assert client.query("geotrain", "truncated").results() == []
        client.close()
        with WireClient(addresses[0]) as again:
            assert again.info("roster:namespace=geotrain").startswith(f"roster={roster}:pending_roster={fewer}:")
