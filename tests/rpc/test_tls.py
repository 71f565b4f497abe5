"""The files of mutual TLS, as a program reads them when it starts."""

import shutil
import subprocess
from pathlib import Path

import pytest

from geotrain.errors import ConfigError
from geotrain.rpc.tls import COORDINATOR, OPERATOR, TlsConfig, described, load, site_name
from tests.rpc.certificates import Authority

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make certificates with")
EWR = site_name("ewr")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.mark.parametrize("name", [COORDINATOR, OPERATOR, EWR])
def test_a_certificate_that_the_other_end_takes_is_taken(authority, name):
    assert load(authority.issue(name), name) is not None


def test_without_files_the_links_are_plaintext_and_said_to_be():
    assert load(TlsConfig(), EWR) is None
    assert "plaintext" in described(TlsConfig())


def test_some_of_the_files_are_not_enough():
    with pytest.raises(ValueError, match=r"belong together, tls\.ca and tls\.key is not given"):
        TlsConfig(cert="cert.pem")


@pytest.mark.parametrize("name", [COORDINATOR, EWR])
def test_an_expired_certificate_is_refused_at_the_start(authority, name):
    with pytest.raises(ConfigError, match=r"tls.cert: .* certificate has expired"):
        load(authority.issue(name, days=-1), name)


@pytest.mark.parametrize("name", [COORDINATOR, EWR])
def test_a_certificate_of_another_authority_is_refused_at_the_start(authority, tmp_path, name):
    foreign = Authority(tmp_path / "other").issue(name)
    with pytest.raises(ConfigError, match=r"tls.cert: .* does not hold before tls.ca"):
        load(TlsConfig(ca=str(authority.ca), cert=foreign.cert, key=foreign.key), name)


def test_a_certificate_of_another_site_is_refused_at_the_start(authority):
    with pytest.raises(ConfigError, match=r"tls.cert: .* is for lga\.sites\.geotrain, not for jfk\.sites\.geotrain"):
        load(authority.issue(site_name("lga")), site_name("jfk"))


@pytest.mark.parametrize("field", ["ca", "cert", "key"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("no PEM")])
def test_a_file_that_is_not_there_or_not_pem_is_named(tmp_path, field, spoil):
    config = Authority(tmp_path / "authority").issue(EWR)
    spoil(Path(getattr(config, field)))
    with pytest.raises(ConfigError, match=rf"tls\.{field}") as refused:
        load(config, EWR)
    assert getattr(config, field) in refused.value.what


def test_a_key_that_is_another_certificates_is_named_with_it(authority):
    one, other = authority.issue("one.sites.geotrain"), authority.issue("other.sites.geotrain")
    with pytest.raises(ConfigError, match=r"tls.cert, tls.key: .*MISMATCH"):
        load(TlsConfig(ca=one.ca, cert=one.cert, key=other.key), EWR)


def test_an_encrypted_key_is_refused_and_asks_no_terminal(tmp_path):
    config = Authority(tmp_path / "authority").issue(EWR)
    encrypted = str(tmp_path / "encrypted.pem")
    encrypt = ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-in", config.key, "-out", encrypted]
    subprocess.run(encrypt, check=True, capture_output=True)
    with pytest.raises(ConfigError, match="unencrypted key"):
        load(TlsConfig(ca=config.ca, cert=config.cert, key=encrypted), EWR)
