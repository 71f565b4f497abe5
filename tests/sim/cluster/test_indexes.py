"""What an index finds, in what order, and where it goes on. Against a plain search through Python values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire.codes import Field, OpCode, Particle, ResultCode
from geotrain.wire.messages import Message, decode_message, encode_op, operation
from sim.cluster.execution.indexes import SOURCES, Definition, Lookup, keys_of, lookup_of, order
from sim.cluster.records import Record, make_record, set_name_of
from sim.cluster.values.refused import Refused

OWNER = set_name_of("test", b"s")
numbers = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-5, 5)
values = numbers | st.text(max_size=3) | st.lists(numbers, max_size=3) | st.dictionaries(numbers, numbers, max_size=3)


def record_of(number: int, value: Any) -> Record:
    bins = {b"a": operation(OpCode.READ, "a", value).raw, b"other": operation(OpCode.READ, "other", 0).raw}
    return make_record(OWNER, number.to_bytes(20, "big"), b"", 1, 0, bins)


def elements(value: Any, source: int) -> list[Any]:
    """What of a value an index of this source holds."""
    if not isinstance(value, (int, list, dict, dict)[source]):
        return []
    if source == 0:
        return [value]
    found: Any = value
    return list(found.values() if source == 3 else found)


@given(st.lists(values, max_size=8), st.sampled_from(range(4)), numbers, numbers)
def test_a_lookup_finds_what_a_plain_search_finds_in_the_order_of_the_index(
    held: list[Any], source: int, begin: int, end: int
) -> None:
    lookup = Lookup(Definition(b"s", b"a", Particle.INTEGER, source), begin, end)
    records = [record_of(number, value) for number, value in enumerate(held)]
    matching = [[each for each in elements(value, source) if begin <= each <= end] for value in held]
    expected = sorted((min(found), number) for number, found in enumerate(matching) if found)
    assert lookup.select(records, b"", 0) == [records[number] for _, number in expected]


@given(st.lists(numbers, min_size=1, max_size=8), st.data())
def test_a_resumed_lookup_goes_on_strictly_behind_where_it_was_left(held: list[int], data: st.DataObject) -> None:
    lookup = Lookup(Definition(b"s", b"a", Particle.INTEGER, 0), -(1 << 63), (1 << 63) - 1)
    records = [record_of(number, value) for number, value in enumerate(held)]
    everything = lookup.select(records, b"", 0)
    num_seen = data.draw(st.integers(1, len(everything)))
    row, _ = decode_message(lookup.with_key(lambda record: record.row)(everything[num_seen - 1]))
    (key,) = keys_of(row.fields)
    assert lookup.select(records, row.fields[Field.DIGEST], key) == everything[num_seen:]
    assert row.bins()["a"] == key


@pytest.mark.parametrize("source", range(len(SOURCES)))
@pytest.mark.parametrize("particle", [Particle.INTEGER, Particle.STRING, Particle.LIST, Particle.MAP])
def test_a_malformed_bin_is_not_indexed(source: int, particle: int) -> None:
    bins = {b"a": encode_op(OpCode.READ, b"a", particle, b"\xff\xfe")}
    record = make_record(OWNER, bytes(20), b"", 1, 0, bins)
    for kind in (Particle.INTEGER, Particle.STRING):
        assert Lookup(Definition(b"s", b"a", kind, source), "", "").select([record], b"", 0) == []


def test_strings_are_ordered_by_a_hash_that_stays_the_same() -> None:
    assert order("ewr") == order("ewr") != order("jfk")
    assert -(1 << 63) <= order("ewr") < 1 << 63


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({Field.INDEX_TYPE: b"\5"}, ResultCode.PARAMETER),
        ({Field.INDEX_NAME: b"nosuch"}, ResultCode.INDEX_NOT_FOUND),
        ({Field.INDEX_NAME: b"i", Field.SET: b"t"}, ResultCode.PARAMETER),
        ({Field.INDEX_TYPE: b"\1"}, ResultCode.INDEX_NOT_FOUND),
        ({Field.INDEX_EXPRESSION: b"x"}, ResultCode.INDEX_NOT_FOUND),
    ],
)
def test_a_query_that_no_index_serves_is_refused(fields: dict[int, bytes], code: ResultCode) -> None:
    indexes = {"i": Definition(b"s", b"a", Particle.INTEGER, 0)}
    range_ = b"\1\1a\1" + 2 * (b"\0\0\0\x08" + bytes(8))
    asked = {Field.SET: b"s", Field.INDEX_RANGE: range_}
    assert lookup_of(indexes, Message(fields=asked)) == Lookup(indexes["i"], 0, 0)
    with pytest.raises(Refused) as refusal:
        lookup_of(indexes, Message(fields=asked | fields))
    assert refusal.value.code == code
