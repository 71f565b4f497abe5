"""Scans while nodes die, stand still or misbehave: every row once, or an error that says what is missing."""

import threading
from collections.abc import Iterator

import aerospike
import pyarrow as pa
import pytest
from aerospike_helpers.batch.records import BatchRecords, Write
from aerospike_helpers.operations import operations

from geotrain.errors import ViewError
from geotrain.view.config import ViewConfig
from geotrain.view.scan import Scan
from geotrain.wire.codes import INFO3_LAST, Field, Particle
from geotrain.wire.frames import MESSAGE, encode_frame, frame_header
from geotrain.wire.info import decode_parameters
from geotrain.wire.messages import HEADER_BYTES, Message, encode_message, operation
from geotrain.wire.partitions import encode_replicas
from sim.control import Control
from tests.conftest import simulated_cluster
from tests.sim.cluster.wire_client import WireClient
from tests.view.fake_node import FakeNode, PausingNode, TricklingNode

SITES = ("ewr", "jfk", "lga", "sfo", "sea")
NUM_ROWS = 10_000
COLUMNS = {"n": "int64", "filler": "binary"}


class FiveRacks:
    """A cluster with a node on each of five racks, and everything on each: a set too large for sockets to hold."""

    def __init__(self, hosts: list[str]) -> None:
        self.hosts = dict(zip(SITES, hosts, strict=True))
        with WireClient(hosts[0]) as client:
            self.control = Control(client.info("sim-control"))

    def config(self, rack: int, **changes) -> ViewConfig:
        """Of a site that leaves no node for being slow, as all are on a loaded machine."""
        limits = {"deadline_s": 100.0, "connect_timeout_s": 100.0} | changes
        return ViewConfig(hosts=list(self.hosts.values()), rack=rack, **limits)

    def num_scans(self) -> dict[str, int]:
        """How many scans each node that answers has finished."""
        found = {}
        for site, host in self.hosts.items():
            with WireClient(host) as client:
                found[site] = int(decode_parameters(client.info("namespace/geotrain"))["pi_query_long_basic_complete"])
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[FiveRacks]:
    more = [f"+schema@nodes.{site}=simulated_node" for site in SITES[3:]]
    overrides = [*more, "nodes.sfo.rack=4", "nodes.sea.rack=5", "replication_factor=5"]
    with simulated_cluster(tmp_path_factory.mktemp("five"), *overrides) as hosts:
        fill(hosts[0])
        yield FiveRacks(hosts)


@pytest.fixture
def racks(running: FiveRacks) -> Iterator[FiveRacks]:
    """The cluster, healed afterwards."""
    yield running
    for site in SITES:
        for order in ("behave", "resume", "start"):
            running.control.order(f"{order}:node={site}")


def fill(host: str) -> None:
    name, _, port = host.rpartition(":")
    client = aerospike.client({"hosts": [(name, int(port))]}).connect()
    for start in range(0, NUM_ROWS, 1000):
        rows = range(start, start + 1000)
        writes = [
            Write(("geotrain", "s", n), [operations.write("n", n), operations.write("filler", bytes(2000))])
            for n in rows
        ]
        assert all(row.result == 0 for row in client.batch_write(BatchRecords(writes)).batch_records)
    client.close()


def numbers(tables: list[pa.RecordBatch]) -> list[int]:
    return sorted(n for table in tables for n in table["n"].to_pylist())


@pytest.mark.parametrize("rack", [1, 4, 5])
def test_on_any_of_five_racks_only_the_own_one_is_asked(racks, rack):
    before = racks.num_scans()
    assert numbers(list(Scan(racks.config(rack), "s", COLUMNS).reader())) == list(range(NUM_ROWS))
    after = racks.num_scans()
    assert {site: after[site] - before[site] for site in SITES if after[site] > before[site]} == {SITES[rack - 1]: 2}


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("order", ["kill:node=sea", "pause:node=sea"])
def test_a_node_that_dies_or_falls_silent_in_the_middle_is_replaced_and_every_row_comes_once(racks, order, caplog):
    scan = Scan(racks.config(5, deadline_s=1.0, connect_timeout_s=2.0), "s", COLUMNS, batch_rows=100)
    reader = scan.reader()
    batches = [reader.read_next_batch()]
    racks.control.order(order)
    batches += list(reader)
    assert numbers(batches) == list(range(NUM_ROWS))
    assert scan.num_rows == NUM_ROWS
    assert scan.fingerprints.any()
    assert "not all came from node" in caplog.text


def test_fingerprints_are_the_same_whatever_happened_on_the_way(racks):
    whole = Scan(racks.config(1), "s", COLUMNS)
    whole.reader().read_all()
    racks.control.order("misbehave:node=sfo;kind=close;count=3")
    racks.control.order("misbehave:node=ewr;kind=close;count=1")
    broken = Scan(racks.config(4), "s", COLUMNS)
    assert numbers(list(broken.reader())) == list(range(NUM_ROWS))
    assert (broken.fingerprints == whole.fingerprints).all()


@pytest.mark.parametrize("code", [9, 11, 18])
def test_a_node_that_can_not_now_is_replaced(racks, code, caplog):
    racks.control.order(f"misbehave:node=sfo;kind=code;code={code};count=2")
    assert numbers(list(Scan(racks.config(4), "s", COLUMNS).reader())) == list(range(NUM_ROWS))
    assert f"it answered with code {code}" in caplog.text


def test_a_node_that_refuses_for_good_ends_the_scan_with_its_reason(racks):
    racks.control.order("misbehave:node=sfo;kind=code;code=22;count=2")
    with pytest.raises(ViewError, match="scanning set s: the cluster forbids it now"):
        Scan(racks.config(4), "s", COLUMNS).reader().read_all()


def test_columns_are_inferred_from_another_copy_where_the_nearest_hangs_up(racks):
    racks.control.order("misbehave:node=sfo;kind=close;count=1")
    assert Scan(racks.config(4), "s").schema.names == ["n", "filler"]


def test_a_sample_that_is_refused_says_so(racks):
    racks.control.order("misbehave:node=sfo;kind=code;code=22;count=1")
    with pytest.raises(ViewError, match="reading a sample of set s: the cluster forbids it now"):
        Scan(racks.config(4), "s")


@pytest.mark.usefixtures("small_buffers")
def test_a_cluster_that_stays_away_ends_in_an_error_that_says_how_much_is_missing(racks):
    scan = Scan(racks.config(5, ride_through_s=0.3), "s", COLUMNS, batch_rows=100)
    reader = scan.reader()
    reader.read_next_batch()
    for site in SITES:
        racks.control.order(f"kill:node={site}")
    with pytest.raises(ViewError, match=r"set s: \d+ partitions can't be read .* 0\.3 s \(node .* refused") as refused:
        list(reader)
    assert "not the whole" in refused.value.remedy


@pytest.mark.usefixtures("small_buffers")
def test_a_reader_that_leaves_ends_the_streams(racks):
    reader = Scan(racks.config(5), "s", COLUMNS, batch_rows=100).reader()
    reader.read_next_batch()
    streams = [thread for thread in threading.enumerate() if thread.name == "scanning set s"]
    assert len(streams) == 2
    del reader
    for stream in streams:
        stream.join(timeout=10)
        assert not stream.is_alive()


@pytest.mark.usefixtures("small_buffers")
def test_a_reader_that_stands_still_stops_the_server(racks):
    reader = Scan(racks.config(5), "s", COLUMNS, batch_rows=100).reader()
    batches = [reader.read_next_batch()]
    before = racks.num_scans()["sea"]
    Scan(racks.config(5), "s", COLUMNS).reader().read_all()  # in that time the node could have sent all of the first
    assert racks.num_scans()["sea"] == before + 2
    batches += list(reader)
    assert numbers(batches) == list(range(NUM_ROWS))


def record(digest: bytes = bytes(20)) -> bytes:
    return encode_message(Message(fields={Field.DIGEST: digest}, ops=[operation(1, "n", 1)]))


LAST = encode_message(Message(info3=INFO3_LAST))


@pytest.mark.parametrize(
    ("reply", "wrong"),
    [
        (b"\2\3" + b"\xff" * 6, "not the header of a frame"),
        (frame_header(MESSAGE, 2**27) + record()[:-1] + b"\xff" * 100, ""),
        (encode_frame(MESSAGE, record()[:22] + b"\xff\xff\xff\xff\4"), ""),
        (encode_frame(MESSAGE, record() + LAST).replace(b"\1n", b"\xffn"), "impossible size or name"),
        (encode_frame(MESSAGE, record(b"\1" * 20) + LAST), "a partition that was not asked for"),
        (encode_frame(MESSAGE, encode_message(Message(ops=[operation(1, "n", 1)])) + LAST), "without its digest"),
    ],
)
def test_a_damaged_answer_is_refused_with_set_and_node(reply, wrong):
    with FakeNode("A1", reply) as node:
        scan = Scan(ViewConfig(hosts=[node.address], ride_through_s=0.1), "s", {"n": "int64"}, partitions=[0])
        with pytest.raises(ViewError, match=f"set s: .*A1.*{wrong}"):
            scan.reader().read_all()


def test_rows_before_a_hang_up_in_mid_frame_count_and_the_rest_is_asked_of_another():
    whole = encode_frame(MESSAGE, record() + record(b"\0" * 19 + b"\1"))
    rest = encode_frame(MESSAGE, record(b"\0" * 19 + b"\1") + LAST)
    second_copy = encode_replicas("geotrain", 1, [[], [0]])
    with (
        FakeNode("A1", whole[:-1]) as one,
        FakeNode("A2", rest, rack_ids="geotrain:2", replicas=second_copy) as two,
    ):
        config = ViewConfig(hosts=[one.address, two.address], rack=1)
        scan = Scan(config, "s", {"n": "int64"}, partitions=[0], metadata=("__digest",))
        digests = scan.reader().read_all()["__digest"].to_pylist()
    assert digests == [bytes(20), b"\0" * 19 + b"\1"]
    assert (one.queries, two.queries) == (1, 1)


def test_a_node_that_trickles_is_left_like_one_that_is_silent():
    large = Message(fields={Field.DIGEST: bytes(20)}, ops=[operation(1, "n", bytes(100_000))])
    with TricklingNode("A1", encode_frame(MESSAGE, encode_message(large))) as node:
        config = ViewConfig(hosts=[node.address], deadline_s=0.5, ride_through_s=0.1)
        with pytest.raises(ViewError, match=r"partitions can't be read .*A1: it sent no whole message within 0\.5 s"):
            Scan(config, "s", {"n": "binary"}, partitions=[0]).reader().read_all()
        with pytest.raises(ViewError, match=r"no record can be read .*A1: it sent no whole frame within 0\.5 s"):
            Scan(config, "s")


def test_a_node_may_search_long_for_a_row_that_a_condition_holds_for():
    pause = threading.Event()
    with PausingNode("A1", encode_frame(MESSAGE, record() + LAST), pause) as node:
        config = ViewConfig(hosts=[node.address], deadline_s=0.1, scan_deadline_s=60, ride_through_s=0.1)
        scan = Scan(config, "s", {"n": "int64"}, where=[("n", ">=", 0)], partitions=[0])
        threading.Timer(0.3, pause.set).start()
        assert scan.reader().read_all().num_rows == 1
        assert node.queries == 1
        pause.clear()
        with pytest.raises(ViewError, match=r"A1: timed out"):
            Scan(config, "s", {"n": "int64"}, partitions=[0]).reader().read_all()
        pause.set()


def test_a_string_that_is_not_text_is_refused_with_its_bin():
    op = operation(1, "n", "ab")._replace(particle=Particle.STRING)
    raw = op.raw[:-2] + b"\xff\xfe"
    message = Message(fields={Field.DIGEST: bytes(20)}, ops=[op._replace(raw=raw)])
    assert len(raw) + HEADER_BYTES < len(encode_message(message))
    with FakeNode("A1", encode_frame(MESSAGE, encode_message(message) + LAST)) as node:
        scan = Scan(ViewConfig(hosts=[node.address]), "s", {"n": "string"}, partitions=[0])
        with pytest.raises(ViewError, match="node A1 sent what can't be read: bin n holds a string that is not UTF-8"):
            scan.reader().read_all()
