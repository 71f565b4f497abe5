import logging
import time
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pytest

from geotrain.errors import DataError, ViewError
from geotrain.view import lookup as lookup_module
from geotrain.view.config import ViewConfig
from geotrain.view.cut import Cut
from geotrain.view.lookup import lookup
from geotrain.view.nodes import Nodes
from geotrain.view.write import write
from geotrain.wire.batches import encode_reads
from geotrain.wire.codes import OpCode, Particle
from geotrain.wire.messages import Message, Operation, encode_message, encode_op
from geotrain.wire.partitions import NUM_PARTITIONS, encode_replicas
from tests.view.fake_node import ScriptedNode, TricklingNode
from tests.wire.streams import encode_stream

COLUMNS = {"n": "int64", "x": "float64"}


@pytest.fixture
def planes(view, set_name):
    """Two records; the second has no bin x."""
    write(view, pa.table({"id": ["a", "b"], "n": [1, 2], "x": [0.5, None]}), set_name, "id")
    return set_name


def rows(view, set_name, keys, columns=COLUMNS, **options):
    return lookup(view, set_name, keys, columns, **options).to_pylist()


def test_rows_come_in_the_order_of_the_keys_and_what_is_absent_is_null(view, planes):
    assert rows(view, planes, ["b", "absent", "a"]) == [
        {"n": 2, "x": None, "__generation": 1},
        {"n": None, "x": None, "__generation": None},
        {"n": 1, "x": 0.5, "__generation": 1},
    ]


@pytest.mark.parametrize("keys", [[], ["absent"], ["a"]])
def test_the_schema_is_what_was_declared_even_of_no_rows(view, planes, keys):
    found = lookup(view, planes, keys, {"n": "timestamp", "x": "float64", "legs": "list<int64>"})
    assert found.schema.types == [pa.timestamp("us"), pa.float64(), pa.list_(pa.int64()), pa.int32()]
    assert found.num_rows == len(keys)


def test_without_columns_it_says_which_keys_have_a_record(view, planes):
    assert rows(view, planes, ["a", "absent"], {}) == [{"__generation": 1}, {"__generation": None}]


def test_a_key_that_comes_again_is_read_once(view, planes, monkeypatch):
    num_asked = []

    def note(namespace, of_set, digests, *rest, **options):
        num_asked.append(len(digests))
        return encode_reads(namespace, of_set, digests, *rest, **options)

    monkeypatch.setattr(lookup_module, "encode_reads", note)
    assert [row["n"] for row in rows(view, planes, ["a", "b", "a", "a"])] == [1, 2, 1, 1]
    assert sum(num_asked) == 2


def test_more_keys_than_a_chunk_are_all_read(view, set_name, monkeypatch):
    monkeypatch.setattr(lookup_module, "KEYS_PER_CHUNK", 7)
    write(view, pa.table({"id": range(100), "n": range(100)}), set_name, "id")
    keys = [*range(0, 200, 3), *range(50)]
    assert [row["n"] for row in rows(view, set_name, keys)] == [key if key < 100 else None for key in keys]


@pytest.mark.parametrize(
    "keys",
    [
        pa.chunked_array([["a"], [], ["b"]]),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["a", "b"], pa.string_view()),
        pd.Series(["a", "b"]),
        ("a", "b"),
    ],
    ids=lambda keys: type(keys).__name__,
)
def test_keys_come_in_any_form_that_arrow_takes(view, planes, keys):
    assert [row["n"] for row in rows(view, planes, keys)] == [1, 2]


def test_binary_keys_find_what_was_written_with_them(view, set_name):
    write(view, pa.table({"id": [b"\0a", b"b"], "n": [1, 2]}), set_name, "id")
    assert [row["n"] for row in rows(view, set_name, [b"b", b"\0a"])] == [2, 1]


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        (["a", None], "the column of keys is null in 1 rows"),
        (["a", 1], "the keys are not of one type"),
        ([2**63], "the keys are not of one type"),
        ([0.5], "the column of keys has the type double"),
        ([True], "the column of keys has the type bool"),
        (["a\0b"], "the column of keys has a text with a NUL character"),
    ],
)
def test_keys_that_no_record_has_are_refused(view, planes, keys, wrong):
    with pytest.raises(DataError, match=f"set {planes}: {wrong}"):
        lookup(view, planes, keys, COLUMNS)


def test_a_record_of_another_type_than_declared_is_refused_by_column(view, planes):
    with pytest.raises(DataError, match=f"set {planes}: column n is declared float64, but a record holds"):
        lookup(view, planes, ["a", "b"], {"n": "float64"})


def test_a_set_that_is_not_there_is_said_and_not_taken_for_absent_records(view, planes):
    with pytest.raises(DataError, match=f"there is no set {planes}-typo in namespace"):
        lookup(view, f"{planes}-typo", ["a"], COLUMNS)


def test_a_type_that_no_column_has_is_refused(view, planes):
    with pytest.raises(DataError, match=f"set {planes}: column n has the unknown type 'number'"):
        lookup(view, planes, ["a"], {"n": "number"})


@pytest.mark.parametrize("name", ["n" * 16, "", "__key", "__generation"])
def test_a_column_that_can_be_no_bin_is_refused(view, planes, name):
    with pytest.raises(DataError, match=f"set {planes}: column {name} can't be a bin"):
        lookup(view, planes, ["a"], {name: "int64"})


def test_records_later_than_the_cut_are_not_there(view, planes):
    for cut, generation in ((Cut(until_ns=1), None), (Cut(until_ns=time.time_ns() + 10**12), 1)):
        found = lookup(view, planes, ["a", "b"], COLUMNS, cut=cut)
        assert found["__generation"].to_pylist() == [generation] * 2


def found(position, n):
    """What a node says of a key that has a record with the bin n."""
    op = encode_op(OpCode.READ, b"n", Particle.INTEGER, n.to_bytes(8, "big"))
    ops = [Operation(OpCode.READ, Particle.INTEGER, b"n", op)]
    return Message(generation=1, transaction_ttl=position, ops=ops)


def refused(position, code):
    return Message(result_code=code, transaction_ttl=position)


def seen(*nodes, **changes):
    """A view of these nodes, as far as look-ups know views."""
    config = ViewConfig(hosts=[node.address for node in nodes], rack=1, **{"deadline_s": 5.0, **changes})
    return SimpleNamespace(config=config, nodes=Nodes(config), consistency="strong")


@pytest.mark.parametrize(
    "trouble",
    [
        encode_stream([[found(0, 1), refused(1, 11)]]),
        encode_stream([[found(0, 1)]], result_code=9),
        encode_stream([[found(0, 1)]])[:-30],
        b"",
    ],
    ids=["a key is refused", "an end with an error", "it hangs up", "no answer"],
)
def test_keys_that_are_not_answered_are_asked_for_again(trouble):
    is_refused = encode_message(refused(1, 11)) in trouble
    rest = [[found(1, 2)]] if is_refused else [[found(1, 2)], [found(0, 1)]]
    with ScriptedNode("A1", trouble, encode_stream(rest)) as node:
        assert [row["n"] for row in rows(seen(node), "s", ["a", "b"], {"n": "int64"})] == [1, 2]


@pytest.mark.parametrize(
    ("reply", "wrong"),
    [
        (encode_stream([], result_code=20), "reading 2 records of s: the namespace does not exist"),
        (encode_stream([[found(0, 1), refused(1, 20)]]), "reading 2 records of s: the namespace does not exist"),
        (encode_stream([[found(0, 1)]]), "it ended before all keys were answered"),
        (encode_stream([[found(0, 1), found(0, 1)]]), "a record is of a key that was not asked for"),
        (encode_stream([[found(2, 1)]]), "a record is of a key that was not asked for"),
        (encode_stream([[refused(0, 11), refused(1, 11)]]), "2 partitions refused with code 11"),
        (encode_stream([[found(0, 1)]])[:-30], "it hung up in the middle of its answer"),
    ],
)
def test_records_that_can_not_be_read_are_an_error_not_nulls(reply, wrong):
    with ScriptedNode("A1", reply) as node, pytest.raises(ViewError, match=wrong):
        lookup(seen(node, deadline_s=0.2), "s", ["a", "b"], {"n": "int64"})


def test_a_node_that_never_comes_to_an_end_is_given_up():
    with (
        TricklingNode("A1", encode_stream([[found(0, 1), found(1, 2)]])) as node,
        pytest.raises(ViewError, match="it sent no whole message within"),
    ):
        lookup(seen(node, deadline_s=0.2), "s", ["a", "b"], {"n": "int64"})


def test_keys_are_read_in_the_own_rack_and_linearizable_from_the_masters():
    mine = encode_replicas("geotrain", 1, [[], list(range(NUM_PARTITIONS))])
    theirs = encode_replicas("geotrain", 1, [list(range(NUM_PARTITIONS)), []])
    reply = encode_stream([[found(0, 1)]])
    for reads, expected in (("local", (1, 0)), ("linearizable", (0, 1))):
        with ScriptedNode("A1", reply) as near, ScriptedNode("A2", reply) as far:
            near.answer({"replicas": mine, "rack-ids": "geotrain:1"})
            far.answer({"replicas": theirs, "rack-ids": "geotrain:2"})
            assert lookup(seen(near, far, reads=reads), "s", ["a"], {"n": "int64"})["n"].to_pylist() == [1]
            assert (near.queries, far.queries) == expected


def test_another_copy_answers_for_a_node_that_is_gone():
    everything = encode_replicas("geotrain", 1, [[], list(range(NUM_PARTITIONS))])
    with ScriptedNode("A1", b"") as dead, ScriptedNode("A2", encode_stream([[found(0, 1)]])) as alive:
        alive.answer({"replicas": everything, "rack-ids": "geotrain:2"})
        assert lookup(seen(dead, alive), "s", ["a"], {"n": "int64"})["n"].to_pylist() == [1]
        assert (dead.queries, alive.queries) == (1, 1)


def test_a_column_that_no_record_has_is_told(view, planes, caplog):
    with caplog.at_level(logging.WARNING):
        lookup(view, planes, ["a", "b"], {"n": "int64", "seat": "int64"})
        lookup(view, planes, ["absent"], {"n": "int64"})
    assert [record.getMessage() for record in caplog.records] == [
        f"set {planes}: none of the 2 records found by key has the column seat"
    ]
