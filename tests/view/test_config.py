import pytest

from geotrain.view.config import ViewConfig, ViewTlsConfig


def test_hosts_are_taken_apart_with_their_ports():
    config = ViewConfig(hosts=["as1.example:3000", "[::1]:4000"])
    assert config.seeds() == [("as1.example", 3000, "as1.example"), ("::1", 4000, "::1")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hosts", []),
        ("hosts", ["as1.example"]),
        ("hosts", [":3000"]),
        ("hosts", ["as1.example:70000"]),
        ("hosts", ["as1..example:3000"]),
        ("reads", "fast"),
        ("deadline_s", 0),
        ("connect_timeout_s", float("nan")),
        ("deadline_s", float("inf")),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"view.{field}"):
        ViewConfig(**{field: value})


def test_the_name_of_the_certificate_stands_for_every_seed():
    tls = ViewTlsConfig(ca="ca.pem", name="as.example")
    assert ViewConfig(hosts=["10.0.0.1:4333"], tls=tls).seeds() == [("10.0.0.1", 4333, "as.example")]


@pytest.mark.parametrize(
    ("make", "missing"),
    [
        (lambda: ViewConfig(user="ewr"), r"view\.password_file is not given"),
        (lambda: ViewConfig(password_file="password"), r"view\.user is not given"),
        (lambda: ViewTlsConfig(ca="ca.pem", cert="cert.pem"), r"view\.tls\.key is not given"),
        (lambda: ViewTlsConfig(ca="ca.pem", key="key.pem"), r"view\.tls\.cert is not given"),
        (lambda: ViewTlsConfig(cert="cert.pem", key="key.pem"), r"view\.tls\.cert is given without view\.tls\.ca"),
        (lambda: ViewTlsConfig(ca="ca.pem", name=".example"), r"view\.tls\.name: '\.example' can't be"),
        (lambda: ViewTlsConfig(name="as.example"), r"view\.tls\.name is given without view\.tls\.ca"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_by_name(make, missing):
    with pytest.raises(ValueError, match=missing):
        make()
