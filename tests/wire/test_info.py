import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire.codes import ProtocolError
from geotrain.wire.info import (
    decode_entries,
    decode_parameters,
    decode_peers,
    decode_reply,
    decode_request,
    encode_parameters,
    encode_peers,
    encode_reply,
    encode_request,
)
from geotrain.wire.partitions import (
    NUM_PARTITIONS,
    decode_bitmap,
    decode_replicas,
    encode_bitmap,
    encode_replicas,
    partition_of,
)

words = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="=;:,"), min_size=1, max_size=12)
pids = st.sets(st.integers(0, NUM_PARTITIONS - 1), max_size=50)


@given(names=st.lists(words))
def test_a_request_names_what_was_asked(names: list[str]) -> None:
    assert decode_request(encode_request(names)) == names


@given(answers=st.lists(st.tuples(words, st.just("") | words), min_size=1))
def test_a_reply_keeps_names_and_values_in_order(answers: list[tuple[str, str]]) -> None:
    assert decode_reply(encode_reply(answers)) == answers


@given(values=st.dictionaries(words, words))
def test_parameters_survive_a_round_trip(values: dict[str, str]) -> None:
    assert decode_parameters(encode_parameters(values)) == values


def test_truth_values_are_written_as_servers_write_them() -> None:
    assert encode_parameters({"ns": "a", "on": True, "n": 3}, ":") == "ns=a:on=true:n=3"


@pytest.mark.parametrize("body", [b"\xff\n", b"name without a value\n"])
def test_a_malformed_reply_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_reply(body)


def test_peers_are_listed_with_their_addresses() -> None:
    peers = encode_peers(7, 3000, [("A1", "127.0.0.1", 3101), ("A2", "127.0.0.1", 3102)])
    assert peers == "7,3000,[[A1,,[127.0.0.1:3101]],[A2,,[127.0.0.1:3102]]]"
    assert encode_peers(1, 3000, []) == "1,3000,[]"


def test_a_list_of_entries_is_a_mapping_for_each() -> None:
    assert decode_entries("ns=a:set=x:objects=1;ns=a:set=y:objects=0;") == [
        {"ns": "a", "set": "x", "objects": "1"},
        {"ns": "a", "set": "y", "objects": "0"},
    ]
    assert decode_entries("") == []


def test_peers_are_taken_apart_with_all_their_addresses() -> None:
    text = "7,3000,[[A1,,[127.0.0.1:3101,as1.example]],[A2,tls-name,[[::1]:3102,[fe80::2]]]]"
    assert decode_peers(text) == {
        "A1": [("127.0.0.1", 3101, ""), ("as1.example", 3000, "")],
        "A2": [("::1", 3102, "tls-name"), ("fe80::2", 3000, "tls-name")],
    }
    assert decode_peers("1,3000,[]") == {}
    assert decode_peers(encode_peers(7, 3000, [("A1", "127.0.0.1", 3101)])) == {"A1": [("127.0.0.1", 3101, "")]}


@pytest.mark.parametrize(
    "text", ["", "1,3000", "1,3000,[A1]", "1,3000,[[A1,,[]]]", "1,,[[A1,,[host]]]", "1,3000,[[A1,,[a]]"]
)
def test_a_malformed_list_of_peers_is_a_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode_peers(text)


@given(pids=pids)
def test_a_bitmap_holds_the_partitions_put_into_it(pids: set[int]) -> None:
    text = encode_bitmap(pids)
    assert decode_bitmap(text) == sorted(pids)
    assert len(text) == 684


def test_the_first_partition_is_the_highest_bit_of_the_first_byte() -> None:
    assert encode_bitmap([0]).startswith("gAAA")


@given(regime=st.integers(0, 1000), owned=st.lists(pids.map(sorted), min_size=1, max_size=3))
def test_a_partition_map_survives_a_round_trip(regime: int, owned: list[list[int]]) -> None:
    text = encode_replicas("test", regime, owned) + ";" + encode_replicas("other", 0, [[]])
    assert decode_replicas(text) == {"test": (regime, owned), "other": (0, [[]])}


@pytest.mark.parametrize("text", ["test", "test:1", "test:x,1,AAAA", "test:0,2,AAAA", "test:0,1,AAAA", "test:0,1,!"])
def test_a_malformed_partition_map_is_a_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode_replicas(text)


def test_the_partition_is_the_low_12_bits_of_the_first_two_bytes_little_endian() -> None:
    assert partition_of(bytes.fromhex("34f2") + bytes(18)) == 0x234
