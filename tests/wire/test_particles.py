import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire import packing
from geotrain.wire.codes import Particle, ProtocolError
from geotrain.wire.particles import Opaque, Value, decode_value, encode_value

scalars = (
    st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
nested = st.recursive(
    scalars | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=12,
)
values = st.none() | scalars | st.lists(nested, max_size=5) | st.dictionaries(scalars, nested, max_size=5)


@given(value=values)
def test_a_value_decodes_to_what_was_encoded(value: Value) -> None:
    decoded = decode_value(*encode_value(value))
    assert decoded == value
    assert type(decoded) is type(value)


@pytest.mark.parametrize(
    ("value", "particle", "data"),
    [
        (42, Particle.INTEGER, "000000000000002a"),
        (-1, Particle.INTEGER, "ffffffffffffffff"),
        (1.5, Particle.FLOAT, "3ff8000000000000"),
        ("élo", Particle.STRING, "c3a96c6f"),
        (b"\0\xff", Particle.BLOB, "00ff"),
        (True, Particle.BOOL, "01"),
        ([1, "a", 2.5, b" x"], Particle.LIST, "9401a20361cb4004000000000000a3042078"),
        ({"x": 1}, Particle.MAP, "81a2037801"),
    ],
)
def test_values_have_the_bytes_that_the_official_client_writes(value: Value, particle: int, data: str) -> None:
    assert encode_value(value) == (particle, bytes.fromhex(data))


@pytest.mark.parametrize(
    ("data", "value"),
    [("82c70001c0a2036101", {"a": 1}), ("93c700010102", [1, 2]), ("80", {}), ("81c70001c0", {})],
)
def test_order_markers_of_maps_and_lists_are_not_values(data: str, value: Value) -> None:
    assert packing.unpack(bytes.fromhex(data)) == value


def test_a_value_of_a_type_that_is_not_read_is_carried_unchanged() -> None:
    value = Opaque(Particle.HLL, b"abc")
    assert encode_value(value) == (Particle.HLL, b"abc")
    assert decode_value(Particle.HLL, b"abc") == value


@given(particle=st.integers(0, 30), data=st.binary(max_size=60))
def test_garbage_is_decoded_or_a_protocol_error_and_nothing_else(particle: int, data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode_value(particle, data)


def test_a_type_without_a_particle_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="a set can't be the value of a bin"):
        encode_value({1, 2})  # type: ignore[arg-type]


def test_a_list_nested_beyond_measure_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        decode_value(Particle.LIST, b"\x91" * 900 + b"\x01")
