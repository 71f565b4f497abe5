import base64
from typing import Any

import numpy as np
import pytest
from aerospike_helpers import expressions as exp

from geotrain.wire.codes import Particle
from geotrain.wire.filters import encode_filter, named_bins
from tests.conftest import ClusterUnderTest

INT, STR = exp.IntBin("i"), exp.StrBin("s")
OFFICIAL = [
    ([("i", "==", 1)], exp.Eq(INT, 1)),
    ([("i", "!=", -5)], exp.NE(INT, -5)),
    ([("i", ">", 2**63 - 1)], exp.GT(INT, 2**63 - 1)),
    ([("i", ">=", -(2**63))], exp.GE(INT, -(2**63))),
    ([("i", "<", np.int32(300))], exp.LT(INT, 300)),
    ([("f", "<=", 1.5)], exp.LE(exp.FloatBin("f"), 1.5)),
    ([("declared", "<", 2)], exp.LT(exp.FloatBin("declared"), 2.0)),
    ([("b", "==", True)], exp.Eq(exp.BoolBin("b"), True)),
    ([("s", "==", "é" * 200)], exp.Eq(STR, "é" * 200)),
    ([("s", "==", "x" * 40)], exp.Eq(STR, "x" * 40)),
    ([("x", "==", b"\xff\0")], exp.Eq(exp.BlobBin("x"), b"\xff\0")),
    ([("x", "==", b"\xff" * 70_000)], exp.Eq(exp.BlobBin("x"), b"\xff" * 70_000)),
    ([("i", "in", [1, 300])], exp.Or(exp.Eq(INT, 1), exp.Eq(INT, 300))),
    ([("s", "in", {"a"})], exp.Eq(STR, "a")),
    ([("i", "not in", (1, 2))], exp.Not(exp.Or(exp.Eq(INT, 1), exp.Eq(INT, 2)))),
    ([("i", ">", 1), ("s", "==", "a")], exp.And(exp.GT(INT, 1), exp.Eq(STR, "a"))),
    (
        [[("i", ">", 1), ("i", "<", 5)], [("s", "==", "a")]],
        exp.Or(exp.And(exp.GT(INT, 1), exp.LT(INT, 5)), exp.Eq(STR, "a")),
    ),
]


@pytest.mark.parametrize(("where", "expression"), OFFICIAL)
def test_filters_are_the_bytes_of_the_official_client(cluster: ClusterUnderTest, where: Any, expression: Any) -> None:
    assert encode_filter(where, {"declared": Particle.FLOAT}) == compiled(cluster, expression)


def test_times_of_the_last_update_go_before_the_conditions(cluster: ClusterUnderTest) -> None:
    after, until = exp.GT(exp.LastUpdateTime(), 5), exp.LE(exp.LastUpdateTime(), 2**60)
    assert encode_filter(None, until_ns=2**60) == compiled(cluster, until)
    assert encode_filter([], after_ns=5) == compiled(cluster, after)
    both = encode_filter([("i", "==", 1)], after_ns=5, until_ns=2**60)
    assert both == compiled(cluster, exp.And(after, until, exp.Eq(INT, 1)))


def compiled(cluster: ClusterUnderTest, expression: Any) -> bytes:
    client = cluster.connect()
    try:
        return base64.b64decode(client.get_expression_base64(expression.compile()))
    finally:
        client.close()


@pytest.mark.parametrize("where", [None, [], ()])
def test_without_conditions_there_is_no_filter(where: Any) -> None:
    assert encode_filter(where) == b""


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ([("i", "==", "x")], "compares with 'x', but i holds values of type int"),
        ([("i", "==", 1.5)], "compares with 1.5, but i holds values of type int"),
        ([("i", "==", True)], "compares with True, but i holds values of type int"),
        ([("l", "==", 1)], "l holds values of type list or map"),
        ([("i", "==", None)], "the filter on i compares with None"),
        ([("i", "==", [1])], r"the filter on i compares with \[1\]"),
        ([("i", "==", 2**63)], "more than 64 bits"),
        ([("i", "~", 1)], "unknown comparison '~'"),
        ([("i", "in", [])], "needs a list of values"),
        ([("i", "in", "abc")], "needs a list of values"),
        ([("i", "in", 5)], "needs a list of values"),
        ([("a" * 16, "==", 1)], "1 to 15 bytes"),
        ([("", "==", 1)], "1 to 15 bytes"),
        (("i", "==", 1), "a condition of a filter is"),
        ([("i", "==")], "a condition of a filter is"),
        ([[], [("i", "==", 1)]], "a filter is a list of conditions"),
        ({"i": 1}, "a filter is a list of conditions"),
        ("i == 1", "a filter is a list of conditions"),
    ],
)
def test_filters_that_can_not_be_are_refused_and_the_bin_is_named(where: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_filter(where, {"i": Particle.INTEGER, "l": Particle.LIST})


def test_the_bins_that_conditions_are_about_are_named_once_each() -> None:
    assert named_bins(None) == set()
    assert named_bins([("a", ">", 5), ("b", "in", [1])]) == {"a", "b"}
    assert named_bins([[("a", ">", 5)], [("a", "<", 1), ("c", "==", "x")]]) == {"a", "c"}
    with pytest.raises(ValueError, match="a condition of a filter is"):
        named_bins([("a", ">")])
