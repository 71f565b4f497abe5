"""The view over TLS and logged in, on both ways in: the official client, and geotrain's own connections."""

import logging
import pickle
import shutil
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from geotrain.errors import ConfigError, ViewError
from geotrain.view import links
from geotrain.view.config import ViewConfig, ViewTlsConfig
from geotrain.view.connect import View, connect
from geotrain.view.cut import Cut
from geotrain.view.keyed import Record
from geotrain.view.links import Links
from geotrain.view.nodes import Nodes
from geotrain.view.scan import Scan
from geotrain.wire import admin
from sim.control import Control
from tests.conftest import simulated_cluster
from tests.rpc.certificates import Authority
from tests.view.test_scan import wait_for_the_next_millisecond
from tests.view.views import view_config

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make certificates with")

USER, PASSWORD = "ewr-agent", "correct horse battery"
NAME = "as.example"  # in the certificate of every node; their hosts are addresses
COLUMNS = {"n": "int64", "name": "string"}
LARGE, NUM_LARGE = {"n": "int64", "filler": "binary"}, 10_000
hashed = admin.credential


@dataclass(frozen=True, kw_only=True)
class Secured:
    """A cluster that asks for certificates and logins. config: of one who has both."""

    config: ViewConfig
    authority: Authority


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder / "authority")
    node, client = authority.issue(NAME), authority.issue("ewr.sites.geotrain")
    overrides = [f"tls_name={NAME}", f"tls_certificate={node.cert}", f"tls_key={node.key}", f"tls_ca={node.ca}"]
    with simulated_cluster(folder / "run", *overrides, f"+users={{{USER}: {PASSWORD}}}") as hosts:
        (folder / "password").write_text(f"{PASSWORD}\n")
        config = ViewConfig(
            hosts=hosts,
            rack=1,
            tls=ViewTlsConfig(ca=client.ca, cert=client.cert, key=client.key, name=NAME),
            user=USER,
            password_file=str(folder / "password"),
            connect_timeout_s=20.0,  # these tests share the machine with others
        )
        yield Secured(config=config, authority=authority)


@pytest.fixture
def view(secured: Secured) -> Iterator[View]:
    with connect(secured.config, expected_racks=[1, 2, 3]) as connected:
        yield connected


@pytest.fixture(params=[connect, lambda config: Nodes(config).partition_map()], ids=["client", "own connections"])
def way_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[ViewConfig], object]:
    """Either way to the nodes, for one who has not logged in yet."""
    monkeypatch.setattr(links, "_tokens", {})
    return request.param


def fill(view: View, set_name: str, num_rows: int = 200) -> pl.DataFrame:
    rows = pl.DataFrame({"n": range(num_rows), "name": [f"row {n}" for n in range(num_rows)]})
    assert view.write(rows, set_name, key="n").written == num_rows
    return rows


def test_records_by_key_go_in_and_out(view, set_name):
    view.put(set_name, "k", {"a": 1})
    assert view.get(set_name, "k") == view.get(set_name, "k", reads="linearizable") == Record({"a": 1}, 1)
    assert view.get_many(set_name, ["k", "absent"]) == [Record({"a": 1}, 1), None]


def test_nodes_are_found_through_one_of_them(secured):
    assert len(Nodes(replace(secured.config, hosts=secured.config.hosts[1:2])).partition_map().nodes) == 3


def test_tables_scans_and_look_ups_go_in_and_out(view, set_name):
    rows = fill(view, set_name)
    assert pl.from_arrow(view.scan(set_name, COLUMNS).read_all()).sort("n").equals(rows)
    assert view.scan(set_name).read_all().num_rows == len(rows)  # columns by a sample
    found = view.lookup(set_name, [3, -1, 1], COLUMNS)
    assert found["name"].to_pylist() == ["row 3", None, "row 1"]


def test_every_site_reads_the_same_cut_and_what_changed_since(secured, view, set_name):
    fill(view, set_name)
    cut = Cut(time.time_ns())
    wait_for_the_next_millisecond(cut)
    fill(view, set_name, 20)
    scans = [Scan(replace(secured.config, rack=rack), set_name, COLUMNS, cut=cut) for rack in (1, 2, 3)]
    assert [scan.reader().read_all().num_rows for scan in scans] == [180, 180, 180]
    assert all((scan.fingerprints == scans[0].fingerprints).all() for scan in scans)
    assert view.changes(set_name, since=cut, columns=COLUMNS).read_all().num_rows == 20


@pytest.fixture(scope="module")
def large_set(secured: Secured) -> str:
    """More than sockets hold."""
    with connect(secured.config) as view:
        view.write(pl.DataFrame({"n": range(NUM_LARGE), "filler": [bytes(2000)] * NUM_LARGE}), "large", key="n")
    return "large"


@pytest.mark.usefixtures("small_buffers")
def test_a_node_that_dies_in_the_middle_is_replaced_by_another(secured, large_set, caplog):
    control = Control(Links(secured.config).ask(secured.config.seeds()[1], ["sim-control"], 20.0)["sim-control"])
    reader = Scan(secured.config, large_set, LARGE, batch_rows=100).reader()
    batches = [reader.read_next_batch()]
    control.order("kill:node=ewr")
    try:
        batches += list(reader)
    finally:
        control.order("start:node=ewr")
    assert sorted(n for batch in batches for n in batch["n"].to_pylist()) == list(range(NUM_LARGE))
    assert "not all came from node" in caplog.text


@pytest.mark.usefixtures("small_buffers")
def test_a_reader_that_leaves_ends_the_streams(secured, large_set):
    reader = Scan(secured.config, large_set, LARGE, batch_rows=100).reader()
    reader.read_next_batch()
    streams = [thread for thread in threading.enumerate() if thread.name == f"scanning set {large_set}"]
    assert streams
    del reader
    for stream in streams:
        stream.join(timeout=60)
        assert not stream.is_alive()


def test_a_process_logs_in_once_at_a_node_and_again_when_its_session_has_ended(secured, view, set_name, monkeypatch):
    fill(view, set_name)
    logins = []
    monkeypatch.setattr(admin, "credential", lambda password: logins.append(1) or hashed(password))
    monkeypatch.setattr(links, "_tokens", {})

    def scan() -> int:
        return Scan(secured.config, set_name, COLUMNS).reader().read_all().num_rows

    assert (scan(), len(logins)) == (200, 3)
    assert (scan(), len(logins)) == (200, 3)
    for node in links._tokens:
        links._tokens[node] = b"ended"
    assert (scan(), len(logins)) == (200, 6)


def test_a_cluster_without_users_takes_one_that_logs_in(cluster, secured, set_name, way_in):
    login = {"user": USER, "password_file": secured.config.password_file}
    close = getattr(way_in(view_config(cluster, **login)), "close", None)
    if close:
        close()


@pytest.mark.parametrize(
    ("user", "password", "why"),
    [
        (USER, "wrong", "the password is wrong"),
        ("nobody", PASSWORD, "the cluster has no such user"),
        ("", "", "the cluster asks for a login"),
    ],
)
def test_one_who_may_not_log_in_is_told_why_and_what_to_set(secured, way_in, tmp_path, user, password, why):
    (tmp_path / "password").write_text(password)
    config = replace(secured.config, user=user, password_file=user and str(tmp_path / "password"))
    with pytest.raises(ViewError, match=why) as refused:
        way_in(config)
    assert "view.user" in refused.value.remedy or "view.password_file" in refused.value.remedy


@pytest.mark.parametrize(
    ("changes", "why", "remedy"),
    [
        ({"name": "other.example"}, "its certificate is not for other.example", "view.tls.name"),
        ({"name": ""}, r"its certificate is not for 127\.0\.0\.1", "view.tls.name"),
        (
            {"cert": "", "key": ""},
            "hung up before|TLS with it fails: .*CERTIFICATE_REQUIRED",
            "view.tls.cert",
        ),
        ({"ca": "", "cert": "", "key": "", "name": ""}, "hung up before it had answered", "view.tls.ca"),
    ],
)
def test_tls_that_the_two_ends_do_not_agree_on_says_what_to_set(secured, way_in, changes, why, remedy):
    with pytest.raises(ViewError, match=why) as refused:
        way_in(replace(secured.config, tls=replace(secured.config.tls, **changes)))
    assert remedy in refused.value.remedy


def test_a_node_of_another_authority_is_not_trusted(secured, way_in, tmp_path):
    other = Authority(tmp_path / "other")
    with pytest.raises(ViewError, match=r"does not hold before view\.tls\.ca"):
        way_in(replace(secured.config, tls=replace(secured.config.tls, ca=str(other.ca))))


def test_a_cluster_that_speaks_no_tls_is_told_from_one_that_is_not_there(cluster, secured, way_in):
    with pytest.raises(ViewError, match="breaks the TLS handshake off") as refused:
        way_in(view_config(cluster, tls=secured.config.tls))
    assert "view.tls" in refused.value.remedy


@pytest.mark.parametrize("has_tls", [True, False], ids=["handshake", "login"])
def test_a_node_that_falls_silent_before_it_can_be_used_is_given_up(secured, way_in, has_tls):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        tls = secured.config.tls if has_tls else ViewTlsConfig()
        with pytest.raises(ViewError, match=r"no cluster answers .*within 0\.2 s"):
            way_in(replace(secured.config, hosts=[host], tls=tls, connect_timeout_s=0.2))


class Hosts:
    """A name with its addresses, and which of these answers: after 3 s by this clock, like those that don't."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] = []
        self.reached = ""
        self.num_resolved = 0
        self.tried: list[tuple[str, float]] = []
        self._now_s = 0.0
        monkeypatch.setattr(links, "time", SimpleNamespace(monotonic=lambda: self._now_s))
        monkeypatch.setattr(socket, "getaddrinfo", self._resolve)
        monkeypatch.setattr(socket, "create_connection", self._connect)
        monkeypatch.setattr(links, "_addresses", {})

    def open(self) -> None:
        self.tried.clear()
        Links(ViewConfig(hosts=["as.example:3000"])).open(("as.example", 3000, ""), 4.0).close()

    def _resolve(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        self.num_resolved += 1
        return [(0, 0, 0, "", (address, port)) for address in self.addresses]

    def _connect(self, address: tuple[str, int], timeout_s: float) -> socket.socket:
        self.tried.append((address[0], timeout_s))
        self._now_s += 3
        if address[0] != self.reached:
            raise TimeoutError
        return socket.socket()


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    return Hosts(monkeypatch)


def test_a_host_of_several_addresses_gets_no_more_time_for_them(hosts):
    hosts.addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    with pytest.raises(TimeoutError):
        hosts.open()
    assert hosts.tried == [("192.0.2.1", 3.0), ("192.0.2.2", 1.0)]


def test_a_name_is_resolved_again_only_when_nobody_answers_where_it_was(hosts):
    hosts.addresses, hosts.reached = ["192.0.2.1"], "192.0.2.1"
    hosts.open()
    hosts.open()
    assert hosts.num_resolved == 1
    hosts.addresses, hosts.reached = ["192.0.2.2"], "192.0.2.2"
    hosts.open()
    assert hosts.tried == [("192.0.2.1", 3.0), ("192.0.2.2", 1.0)]


@pytest.mark.parametrize("field", ["ca", "cert", "key"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("no PEM")], ids=["missing", "no PEM"])
def test_a_file_that_does_not_serve_is_named_with_its_field(secured, way_in, tmp_path, field, spoil):
    tls = replace(secured.config.tls, **{field: str(tmp_path / "file")})
    (tmp_path / "file").touch()
    spoil(tmp_path / "file")
    with pytest.raises(ConfigError, match=rf"view\.tls\.{field}.*{tmp_path}/file"):
        way_in(replace(secured.config, tls=tls))


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"], ids=["missing", "empty", "blank", "not text"])
def test_a_password_file_that_does_not_serve_is_named(secured, way_in, tmp_path, content):
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"view\.password_file: {path} (can't be read|holds no password)"):
        way_in(replace(secured.config, password_file=str(path)))


def test_the_password_is_in_no_log_no_error_and_in_nothing_that_is_passed_on(
    secured, way_in, tmp_path, caplog, set_name, monkeypatch
):
    caplog.set_level(logging.DEBUG, "geotrain")
    with connect(secured.config) as view:
        fill(view, set_name)
        scan = Scan(secured.config, set_name, COLUMNS, cut=Cut(time.time_ns()))
        scan.reader().read_all()
        said = [caplog.text, repr(view), repr(vars(view)), repr(scan), repr(vars(scan)), repr(vars(view.nodes))]
    said += [repr(secured.config), str(asdict(secured.config)), pickle.dumps(secured.config).decode("latin-1")]
    wrong = "battery " + PASSWORD
    (tmp_path / "password").write_text(wrong)
    monkeypatch.setattr(links, "_tokens", {})
    with pytest.raises(ViewError) as refused:
        way_in(replace(secured.config, password_file=str(tmp_path / "password")))
    said += ["".join(traceback.format_exception(refused.value))]
    assert not [text for text in said if PASSWORD in text or hashed(PASSWORD.encode()).decode() in text]


def test_who_connects_says_how(secured, cluster, caplog):
    caplog.set_level(logging.INFO, "geotrain")
    connect(secured.config).close()
    connect(view_config(cluster)).close()
    assert f"{secured.config.hosts[2]}: TLS, as user {USER}" in caplog.text
    assert f"{cluster.hosts[-1]}: plaintext" in caplog.text
