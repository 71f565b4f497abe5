import pytest

from geotrain.view.config import ViewConfig


def test_hosts_are_taken_apart_with_their_ports():
    config = ViewConfig(hosts=["as1.example:3000", "[::1]:4000"])
    assert config.seeds() == [("as1.example", 3000), ("::1", 4000)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hosts", []),
        ("hosts", ["as1.example"]),
        ("hosts", [":3000"]),
        ("hosts", ["as1.example:70000"]),
        ("reads", "fast"),
        ("deadline_s", 0),
        ("connect_timeout_s", float("nan")),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"view.{field}"):
        ViewConfig(**{field: value})
