"""Faults of a running cluster, as its clients see them."""

import socket
from collections.abc import Iterator

import aerospike
import pytest

from geotrain.wire import codes
from geotrain.wire.codes import Field, OpCode, ResultCode
from geotrain.wire.info import decode_parameters
from geotrain.wire.messages import Message, operation
from geotrain.wire.partitions import decode_replicas
from sim.control import Control, OrderError
from tests.conftest import free_port, simulated_cluster
from tests.sim.cluster.wire_client import ALL_PARTITIONS, WireClient

RELAXED = {
    "session": 0,
    "linearize": codes.INFO3_SC_READ_TYPE,
    "replica": codes.INFO3_SC_READ_RELAX,
    "unavailable": codes.INFO3_SC_READ_TYPE | codes.INFO3_SC_READ_RELAX,
}


class Sites:
    """A cluster of three sites, each with its own listeners for clients of every site."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = dict(zip(("ewr", "jfk", "lga"), addresses, strict=True))
        with WireClient(addresses[0]) as client:
            self.control = Control(client.info("sim-control"))

    def client(self, site: str, timeout_s: float = 20.0) -> WireClient:
        return WireClient(self.addresses[site], timeout_s)

    def reached_from(self, client_site: str, site: str) -> str:
        """The address of a site's node for the clients of a site."""
        for line in self.control.order("state").split("|"):
            facts = decode_parameters(line)
            if facts["node"] == site:
                return dict(entry.split("@") for entry in facts["addresses"].split(","))[client_site]
        raise AssertionError(site)

    def info(self, site: str, name: str) -> str:
        with self.client(site) as client:
            return client.info(name)

    def namespace(self, site: str) -> dict[str, str]:
        return decode_parameters(self.info(site, "namespace/geotrain"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with simulated_cluster(tmp_path_factory.mktemp("faults"), "client_sites=[ewr,jfk,lga]") as addresses:
        yield Sites(addresses)


@pytest.fixture
def sites(running: Sites) -> Iterator[Sites]:
    """The cluster, healed afterwards."""
    yield running
    running.control.order("heal")
    for site in running.addresses:
        for order in ("behave", "resume", "start"):
            running.control.order(f"{order}:node={site}")
        running.control.order(f"skew:node={site};ms=0")
    for site in running.addresses:
        assert running.namespace(site)["unavailable_partitions"] == "0"


def digest_of(number: int) -> bytes:
    return number.to_bytes(2, "little") + bytes(18)


def fields_of(number: int) -> dict[int, bytes]:
    return {Field.NAMESPACE: b"geotrain", Field.SET: b"s", Field.DIGEST: digest_of(number)}


def put(number: int, value: int) -> Message:
    return Message(info2=codes.INFO2_WRITE, fields=fields_of(number), ops=[operation(OpCode.WRITE, "n", value)])


def get(number: int, mode: str = "session") -> Message:
    info1 = codes.INFO1_READ | codes.INFO1_GET_ALL
    return Message(info1=info1, info3=RELAXED[mode], fields=fields_of(number))


def code_of(client: WireClient, request: Message) -> int:
    return client.messages(request)[-1].result_code


def test_a_site_that_is_cut_off_serves_nothing_and_the_others_go_on(sites: Sites) -> None:
    with sites.client("jfk") as cut_off, sites.client("ewr") as other:
        assert code_of(cut_off, put(1, 1)) == ResultCode.OK
        regime = decode_replicas(cut_off.info("replicas"))["geotrain"][0]
        sites.control.order("cut:site=jfk")
        assert code_of(cut_off, put(1, 2)) == ResultCode.UNAVAILABLE
        assert code_of(other, put(1, 3)) == ResultCode.OK
        read = {mode: cut_off.messages(get(1, mode))[0] for mode in RELAXED}
        codes_ = {mode: reply.result_code for mode, reply in read.items()}
        assert codes_ == {"session": 11, "linearize": 11, "replica": 11, "unavailable": 0}
        assert read["unavailable"].bins() == {"n": 1}
        later, owned = decode_replicas(cut_off.info("replicas"))["geotrain"]
        assert later > regime
        assert owned == [[], [], []]
        sites.control.order("heal:site=jfk")
        assert cut_off.messages(get(1, "replica"))[0].bins() == {"n": 3}


def test_both_sides_of_a_cut_say_what_they_see(sites: Sites) -> None:
    sites.control.order("cut:site=jfk")
    seen = {site: sites.namespace(site) for site in sites.addresses}
    assert {site: values["ns_cluster_size"] for site, values in seen.items()} == {"ewr": "2", "jfk": "1", "lga": "2"}
    assert {site: values["unavailable_partitions"] for site, values in seen.items()} == {
        "ewr": "0",
        "jfk": "4096",
        "lga": "0",
    }
    assert sites.info("ewr", "cluster-stable:") == sites.info("lga", "cluster-stable:")
    assert sites.info("ewr", "cluster-stable:") != sites.info("jfk", "cluster-stable:")
    roster = dict(part.split("=") for part in sites.info("jfk", "roster:namespace=geotrain").split(":"))
    assert len(roster["roster"].split(",")) == 3
    assert len(roster["observed_nodes"].split(",")) == 1
    assert sites.info("jfk", "peers-clear-std").endswith(",[]")


def test_a_scan_of_a_site_that_is_cut_off_names_every_partition_as_unavailable(sites: Sites) -> None:
    sites.control.order("cut:site=jfk")
    fields = {Field.NAMESPACE: b"geotrain", Field.SET: b"s", Field.PARTITION_IDS: ALL_PARTITIONS}
    with sites.client("jfk") as client:
        *failed, last = client.messages(
            Message(info1=codes.INFO1_READ, info3=codes.INFO3_PARTITION_DONE, fields=fields)
        )
    assert len(failed) == 4096
    assert {message.result_code for message in failed} == {ResultCode.UNAVAILABLE}
    assert last.result_code == ResultCode.OK


def test_a_killed_node_hangs_up_and_comes_back_on_its_port_with_the_newest_records(sites: Sites) -> None:
    with sites.client("lga") as client, sites.client("ewr") as other:
        assert code_of(client, put(2, 1)) == ResultCode.OK
        sites.control.order("kill:node=lga;memory=lost")
        with pytest.raises((EOFError, ConnectionError)):
            client.info("status")
        with pytest.raises(OSError, match="refused"):
            sites.client("lga")
        assert code_of(other, put(2, 2)) == ResultCode.OK
    sites.control.order("start:node=lga")
    with sites.client("lga") as client:
        assert client.messages(get(2, "replica"))[0].bins() == {"n": 2}


def test_a_node_whose_port_was_taken_meanwhile_stays_dead_until_it_is_free(sites: Sites) -> None:
    host, _, port = sites.addresses["lga"].rpartition(":")
    sites.control.order("kill:node=lga")
    with socket.create_server((host, int(port))), pytest.raises(OrderError, match="node lga stays dead"):
        sites.control.order("start:node=lga")
    assert "site=lga;state=down" in sites.control.order("state")
    sites.control.order("start:node=lga")
    with sites.client("lga") as client:
        assert code_of(client, put(2, 1)) == ResultCode.OK


def test_a_paused_node_answers_once_it_goes_on_and_is_no_master_any_more(sites: Sites) -> None:
    with sites.client("jfk") as paused, sites.client("ewr") as other:
        assert code_of(paused, put(3, 1)) == ResultCode.OK
        sites.control.order("pause:node=jfk")
        assert code_of(other, put(3, 2)) == ResultCode.OK
        paused.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            paused.messages(get(3))
        paused.socket.settimeout(20)
        sites.control.order("resume:node=jfk")
        reply, *_ = paused.messages(put(3, 3))
        assert reply.bins() == {"n": 2}, "the answer to the read that waited"


@pytest.mark.parametrize(
    ("order", "is_applied"), [("drop", True), ("close", True), ("code;code=18", False), ("late;delay_ms=1", True)]
)
def test_a_node_misbehaves_once_as_ordered(sites: Sites, order: str, is_applied: bool) -> None:
    with sites.client("ewr", timeout_s=0.5) as client:
        assert code_of(client, put(4, 0)) == ResultCode.OK
        sites.control.order(f"misbehave:node=ewr;kind={order}")
        if order == "drop":
            with pytest.raises(TimeoutError):
                client.messages(put(4, 1))
        elif order == "close":
            with pytest.raises(EOFError):
                client.messages(put(4, 1))
        else:
            assert code_of(client, put(4, 1)) == (0 if is_applied else 18)
    with sites.client("ewr") as client:
        assert client.messages(get(4))[0].bins() == {"n": int(is_applied)}


def test_writes_stop_where_clocks_are_more_than_twenty_seconds_apart(sites: Sites) -> None:
    sites.control.order("skew:node=lga;ms=20000")
    with sites.client("ewr") as client:
        assert code_of(client, put(5, 1)) == ResultCode.OK
        sites.control.order("skew:node=lga;ms=20001")
        assert code_of(client, put(5, 2)) == ResultCode.FORBIDDEN
        assert client.messages(get(5))[0].bins() == {"n": 1}
    assert sites.namespace("jfk")["clock_skew_stop_writes"] == "true"
    assert decode_parameters(sites.info("jfk", "statistics"))["cluster_clock_skew_ms"] == "20001"


def test_every_client_site_hears_the_addresses_that_are_meant_for_it(sites: Sites) -> None:
    from_jfk = {site: sites.reached_from("jfk", site) for site in sites.addresses}
    assert len({*from_jfk.values(), *sites.addresses.values()}) == 6
    with WireClient(from_jfk["ewr"]) as client:
        assert client.info("service-clear-std") == from_jfk["ewr"]
        peers = client.info("peers-clear-std")
    assert from_jfk["jfk"] in peers
    assert from_jfk["lga"] in peers


def test_a_client_site_reaches_the_nodes_at_the_address_that_is_given_for_it(tmp_path) -> None:
    port = free_port()
    overrides = ("client_sites=[jfk]", f"+client_addresses.jfk=localhost:{port}")
    with simulated_cluster(tmp_path, *overrides), WireClient(f"localhost:{port}") as client:
        assert client.info("service-clear-std") == f"localhost:{port}"
        peers = client.info("peers-clear-std")
        assert all(f"localhost:{port + number}" in peers for number in (1, 2))


def test_what_is_sent_over_a_cut_link_arrives_when_it_heals(sites: Sites) -> None:
    with WireClient(sites.reached_from("jfk", "ewr"), timeout_s=0.2) as client, sites.client("ewr") as near:
        assert code_of(client, put(6, 1)) == ResultCode.OK
        sites.control.order("cut:from=ewr;to=jfk")
        with pytest.raises(TimeoutError):
            client.messages(put(6, 2))
        assert near.messages(get(6))[0].bins() == {"n": 2}, "only the answer is on its way"
        sites.control.order("heal")
        client.socket.settimeout(20)
        reply, *_ = client.messages(get(6))
        assert (reply.generation, reply.ops) == (2, []), "the answer to the write"


def test_quiescing_and_a_new_roster_take_effect_at_the_recluster(sites: Sites) -> None:
    def everywhere(name: str) -> list[str]:
        return [sites.info(site, name) for site in sites.addresses]

    before = sites.info("ewr", "roster:namespace=geotrain")
    assert sites.info("lga", "quiesce:") == "ok"
    assert sites.namespace("lga")["effective_is_quiesced"] == "false"
    assert sorted(everywhere("recluster:")) == ["ignored-by-non-principal"] * 2 + ["ok"]
    assert sites.namespace("lga")["effective_is_quiesced"] == "true"
    assert decode_replicas(sites.info("lga", "replicas"))["geotrain"][1] == [[], [], []]
    nodes = [node for node in dict(p.split("=") for p in before.split(":"))["roster"].split(",") if "@3" not in node]
    assert sites.info("ewr", f"roster-set:namespace=geotrain;nodes={','.join(nodes)}") == "ok"
    assert before.split(":")[0] in sites.info("jfk", "roster:namespace=geotrain")
    everywhere("recluster:")
    assert f"roster={','.join(nodes)}:" in sites.info("jfk", "roster:namespace=geotrain")
    whole = before.split(":")[0].partition("=")[2]
    assert sites.info("lga", "quiesce-undo:") == "ok"
    assert sites.info("ewr", f"roster-set:namespace=geotrain;nodes={whole}") == "ok"
    everywhere("recluster:")
    assert sites.info("jfk", "roster:namespace=geotrain") == before
    assert sites.info("ewr", "roster-set:namespace=geotrain;nodes=xyz").startswith("ERROR:4:")


def test_what_all_sites_have_lost_is_dead_until_it_is_revived(sites: Sites) -> None:
    for site in sites.addresses:
        sites.control.order(f"kill:node={site};memory=lost")
    for site in sites.addresses:
        sites.control.order(f"start:node={site}")
    assert sites.namespace("ewr")["dead_partitions"] == "4096"
    with sites.client("ewr") as client:
        assert code_of(client, get(1)) == ResultCode.UNAVAILABLE
        assert client.info("revive:namespace=geotrain") == "ok"
        for site in sites.addresses:
            sites.info(site, "recluster:")
        assert code_of(client, get(1)) == ResultCode.NOT_FOUND
        assert code_of(client, put(1, 1)) == ResultCode.OK


def test_the_official_client_rides_through_the_loss_of_a_site(sites: Sites) -> None:
    host, _, port = sites.reached_from("ewr", "ewr").rpartition(":")
    retries = {"max_retries": 100, "sleep_between_retries": 50, "socket_timeout": 300, "total_timeout": 20_000}
    client = aerospike.client({"hosts": [(host, int(port))], "tend_interval": 250}).connect()
    try:
        sites.control.order("kill:node=jfk;memory=lost")
        for n in range(60):
            client.put(("geotrain", "ride", n), {"n": n}, policy=retries)
        sites.control.order("start:node=jfk")
        sites.control.order("cut:site=lga")
        found = [client.get(("geotrain", "ride", n), policy=retries)[2]["n"] for n in range(60)]
    finally:
        client.close()
    assert found == list(range(60))


@pytest.mark.parametrize(
    "order",
    [
        "explode",
        "kill:node=xyz",
        "kill:node=ewr;memory=half",
        "kill:node=ewr;mem=lost",
        "kill:node=ewr;site=jfk",
        "cut:site=xyz",
        "cut:from=ewr",
        "cut:from=ewr;to=ewr",
        "cut:site=ewr;to=jfk",
        "heal:sit=ewr",
        "slow:site=ewr;delay=3",
        "skew:node=ewr;ms=x",
        "skew:node=ewr;s=30",
        "misbehave:node=ewr;kind=code",
        "misbehave:node=ewr;kind=code;code=0",
        "misbehave:node=ewr;kind=code;code=256",
        "misbehave:node=ewr;kind=code;code=18;counts=5",
    ],
)
def test_an_order_that_can_not_be_carried_out_says_why(sites: Sites, order: str) -> None:
    with pytest.raises(OrderError):
        sites.control.order(order)
