"""Logging in, and TLS, through the official client and below it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aerospike
import pytest
from aerospike import exception

from geotrain.wire import admin, codes, frames
from geotrain.wire.admin import AdminField, Command
from geotrain.wire.codes import Field, ResultCode
from geotrain.wire.frames import FrameReader, encode_frame
from geotrain.wire.messages import Message
from sim.cluster.security import Security
from tests.conftest import simulated_cluster
from tests.sim.cluster.wire_client import WireClient

USER, PASSWORD = "ewr-agent", "correct horse"
KEY = ("geotrain", "s", "k")


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with simulated_cluster(tmp_path_factory.mktemp("users"), f"+users={{{USER}: {PASSWORD}}}") as addresses:
        yield addresses


def connect(addresses: list[str], **config: Any) -> Any:
    hosts = [(host, int(port)) for host, _, port in (address.rpartition(":") for address in addresses)]
    return aerospike.client({"hosts": hosts, **config}).connect()


def ask(client: WireClient, command: int, fields: dict[int, bytes]) -> tuple[int, dict[int, bytes]]:
    client.socket.sendall(encode_frame(frames.ADMIN, admin.encode_request(command, fields)))
    ((_, body),) = FrameReader().feed(client.socket.recv(1000))
    code, _, answer = admin.decode(body)
    return code, answer


@pytest.mark.parametrize("mode", [aerospike.AUTH_INTERNAL, aerospike.AUTH_EXTERNAL_INSECURE])
def test_a_user_logs_in_with_the_hash_of_a_password_or_with_the_password_itself(
    addresses: list[str], mode: int
) -> None:
    policies = {"auth_mode": mode}
    client = connect(addresses, user=USER, password=PASSWORD, policies=policies)
    try:
        client.put(KEY, {"a": mode})
        assert client.get(KEY)[2] == {"a": mode}
        assert len(client.query(*KEY[:2]).results()) == 1
    finally:
        client.close()


@pytest.mark.parametrize(("user", "password"), [(USER, "wrong"), ("nobody", PASSWORD)])
def test_a_wrong_password_or_user_does_not_get_in(addresses: list[str], user: str, password: str) -> None:
    with pytest.raises(exception.AerospikeError):
        connect(addresses, user=user, password=password)


def test_one_who_has_not_logged_in_gets_no_answers(addresses: list[str]) -> None:
    with WireClient(addresses[0]) as client:
        assert client.info("node") == "ERROR:80:not authenticated"
        fields = {Field.NAMESPACE: b"geotrain", Field.DIGEST: bytes(20)}
        (reply,) = client.messages(Message(info1=codes.INFO1_READ, fields=fields))
        assert reply.result_code == ResultCode.NOT_AUTHENTICATED


def test_a_session_token_opens_other_connections_for_its_user_only(addresses: list[str]) -> None:
    with WireClient(addresses[0]) as client, WireClient(addresses[1]) as other:
        login = {AdminField.USER: USER.encode(), AdminField.CLEAR_PASSWORD: PASSWORD.encode()}
        code, session = ask(client, Command.LOGIN, login)
        assert code == ResultCode.OK
        assert int.from_bytes(session[AdminField.SESSION_TTL], "big") > 60
        token = session[AdminField.SESSION_TOKEN]
        for user, sent, expected in [
            (b"nobody", token, ResultCode.INVALID_CREDENTIAL),
            (USER.encode(), b"", ResultCode.INVALID_CREDENTIAL),
            (USER.encode(), token, ResultCode.OK),
        ]:
            fields = {AdminField.USER: user, AdminField.SESSION_TOKEN: sent}
            assert ask(other, Command.AUTHENTICATE, fields)[0] == expected
        assert other.info("status") == "ok"


def test_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    security = Security({USER: PASSWORD})
    login = {AdminField.USER: USER.encode(), AdminField.CLEAR_PASSWORD: PASSWORD.encode()}
    reply, _ = security.answer(admin.encode_request(Command.LOGIN, login), is_known=False)
    token = admin.decode(reply)[2][AdminField.SESSION_TOKEN]
    proof = admin.encode_request(Command.AUTHENTICATE, {0: USER.encode(), AdminField.SESSION_TOKEN: token})
    assert security.answer(proof, is_known=False)[1]
    monkeypatch.setattr("sim.cluster.security.time.monotonic", lambda: 1e12)
    refused, is_known = security.answer(proof, is_known=True)
    assert (admin.decode(refused)[0], is_known) == (ResultCode.EXPIRED_SESSION, False)


@pytest.mark.parametrize("is_known", [False, True])
def test_other_admin_commands_change_nothing_about_who_is_known(is_known: bool) -> None:
    reply, is_known_now = Security({USER: PASSWORD}).answer(admin.encode_request(1, {}), is_known=is_known)
    assert (admin.decode(reply)[0], is_known_now) == (ResultCode.UNSUPPORTED, is_known)


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
def test_the_official_client_speaks_tls_with_every_node(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=simulated", "-addext", "subjectAltName=DNS:simulated", "-days", "1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files], check=True)
    overrides = ["tls_name=simulated", f"tls_certificate={certificate}", f"tls_key={key}"]
    with simulated_cluster(tmp_path / "run", *overrides) as addresses:
        host, _, port = addresses[0].rpartition(":")
        tls = {"enable": True, "cafile": str(certificate)}
        client = aerospike.client({"hosts": [(host, int(port), "simulated")], "tls": tls}).connect()
        try:
            assert len(client.info_all("node")) == 3
            client.put(KEY, {"a": 1})
            assert client.get(KEY)[2] == {"a": 1}
        finally:
            client.close()
        with pytest.raises(exception.AerospikeError):
            connect(addresses)
