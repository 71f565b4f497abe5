"""Expressions through the official client: read, written and as filters."""

from collections.abc import Iterator
from typing import Any

import aerospike
import pytest
from aerospike import exception
from aerospike_helpers import cdt_ctx
from aerospike_helpers import expressions as exp
from aerospike_helpers.operations import expression_operations, operations

from tests.conftest import ClusterUnderTest

Key = tuple[str, str, str]
VALUE, COUNT = aerospike.LIST_RETURN_VALUE, aerospike.LIST_RETURN_COUNT
INTEGER = exp.ResultType.INTEGER
BINS: dict[str, Any] = {
    "i": 5,
    "f": 1.5,
    "s": "hello",
    "b": b"\x0f",
    "t": True,
    "l": [3, 1, 2],
    "m": {"a": 1, "b": {"c": [7]}},
}


@pytest.fixture(scope="module")
def key(client: Any, cluster: ClusterUnderTest) -> Iterator[Key]:
    """A record that no test changes."""
    set_name = "test-expressions"
    client.put((cluster.namespace, set_name, "k"), BINS, policy={"key": aerospike.POLICY_KEY_SEND})
    yield cluster.namespace, set_name, "k"
    client.truncate(cluster.namespace, set_name, 0)


@pytest.fixture
def own_key(client: Any, cluster: ClusterUnderTest, set_name: str) -> Key:
    own_key = cluster.namespace, set_name, "k"
    client.put(own_key, BINS)
    return own_key


def value_of(client: Any, key: Key, expression: Any) -> Any:
    return client.operate(key, [expression_operations.expression_read("r", expression.compile())])[2]["r"]


A_PATH = [cdt_ctx.cdt_ctx_map_key("b"), cdt_ctx.cdt_ctx_map_key("c")]
MAP_VALUE, MAP_KEY = aerospike.MAP_RETURN_VALUE, aerospike.MAP_RETURN_KEY


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (exp.Add(exp.IntBin("i"), 2, -1), 6),
        (exp.Sub(exp.IntBin("i"), 7), -2),
        (exp.Mul(exp.FloatBin("f"), 2.0), 3.0),
        (exp.Div(exp.IntBin("i"), -2), -2),
        (exp.Mod(exp.IntBin("i"), 3), 2),
        (exp.Pow(exp.FloatBin("f"), 2.0), 2.25),
        (exp.Abs(exp.Sub(0, exp.IntBin("i"))), 5),
        (exp.Floor(exp.FloatBin("f")), 1.0),
        (exp.Ceil(exp.FloatBin("f")), 2.0),
        (exp.ToInt(exp.FloatBin("f")), 1),
        (exp.ToFloat(exp.IntBin("i")), 5.0),
        (exp.Min(exp.IntBin("i"), 3, 9), 3),
        (exp.Max(exp.IntBin("i"), 3, 9), 9),
        (exp.IntAnd(exp.IntBin("i"), 4), 4),
        (exp.IntOr(exp.IntBin("i"), 2), 7),
        (exp.IntXOr(exp.IntBin("i"), 1), 4),
        (exp.IntNot(exp.IntBin("i")), -6),
        (exp.IntLeftShift(exp.IntBin("i"), 2), 20),
        (exp.IntRightShift(-1, 60), 15),
        (exp.IntArithmeticRightShift(-8, 1), -4),
        (exp.IntCount(exp.IntBin("i")), 2),
        (exp.IntLeftScan(exp.IntBin("i"), True), 61),
        (exp.IntRightScan(exp.IntBin("i"), True), 63),
        (exp.Cond(exp.GT(exp.IntBin("i"), 3), "big", "small"), "big"),
        (exp.Let(exp.Def("x", exp.IntBin("i")), exp.Add(exp.Var("x"), exp.Var("x"))), 10),
        (exp.And(exp.BoolBin("t"), exp.Not(exp.Eq(exp.StrBin("s"), "x"))), True),
        (exp.Or(exp.Eq(exp.IntBin("i"), 4), exp.BinExists("absent")), False),
        (exp.Exclusive(exp.BoolBin("t"), exp.BinExists("i")), False),
        (exp.BinType("l"), 20),
        (exp.KeyExists(), True),
        (exp.Eq(exp.KeyStr(), "k"), True),
        (exp.SetName(), "test-expressions"),
        (exp.TTL(), -1),
        (exp.VoidTime(), -1),
        (exp.IsTombstone(), False),
        (exp.GE(exp.SinceUpdateTime(), 0), True),
        (exp.GT(exp.LastUpdateTime(), 1_600_000_000_000_000_000), True),
        (exp.GT(exp.RecordSize(), 0), True),
        (exp.LT(exp.DigestMod(7), 7), True),
        (exp.Eq(exp.BlobBin("b"), b"\x0f"), True),
        (exp.Eq(exp.ListBin("l"), [3, 1, 2]), True),
        (exp.GT(exp.ListBin("l"), [3, 1]), True),
        (exp.ListSize(None, exp.ListBin("l")), 3),
        (exp.ListSize(A_PATH, exp.MapBin("m")), 1),
        (exp.ListGetByIndex(None, VALUE, INTEGER, -1, exp.ListBin("l")), 2),
        (exp.ListGetByRank(None, VALUE, INTEGER, exp.Sub(exp.ListSize(None, exp.ListBin("l")), 1), "l"), 3),
        (exp.ListGetByValueList(None, COUNT, [1, 2, 9], exp.ListBin("l")), 2),
        (exp.ListGetByValueRange(None, COUNT, 2, 4, exp.ListBin("l")), 2),
        (exp.ListGetByIndexRange(None, VALUE, 1, 1, exp.ListBin("l")), [1]),
        (exp.ListAppend(None, None, exp.IntBin("i"), exp.ListBin("l")), [3, 1, 2, 5]),
        (exp.ListSort(None, aerospike.LIST_SORT_DEFAULT, exp.ListBin("l")), [1, 2, 3]),
        (exp.ListRemoveByIndex(None, 0, exp.ListBin("l")), [1, 2]),
        (exp.ListSize(None, exp.ListAppendItems(None, None, [8, 9], exp.ListBin("l"))), 5),
        (exp.MapSize(None, exp.MapBin("m")), 2),
        (exp.MapGetByKey(None, MAP_VALUE, INTEGER, "a", exp.MapBin("m")), 1),
        (exp.MapGetByIndexRange(None, MAP_KEY, 0, 2, exp.MapBin("m")), ["a", "b"]),
        (exp.MapPut(None, None, "a", 9, exp.MapRemoveByKey(None, "b", exp.MapBin("m"))), {"a": 9}),
        (exp.BitCount(0, 8, exp.BlobBin("b")), 4),
        (exp.BitResize(None, 2, aerospike.BIT_RESIZE_DEFAULT, exp.BlobBin("b")), b"\x0f\0"),
        (exp.BitGet(4, 4, exp.BlobBin("b")), b"\xf0"),
    ],
)
def test_an_expression_has_the_value_that_its_operations_make(
    client: Any, key: Key, expression: Any, expected: Any
) -> None:
    assert value_of(client, key, expression) == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_strings_match_regular_expressions(client: Any, key: Key) -> None:
    def matches(options: int, pattern: str) -> Any:
        return value_of(client, key, exp.CmpRegex(options, pattern, exp.StrBin("s")))

    assert matches(aerospike.REGEX_NONE, "^h.*o$")
    assert matches(aerospike.REGEX_ICASE, "HELLO")
    assert matches(aerospike.REGEX_EXTENDED, "^(x|he)l+o")
    assert not matches(aerospike.REGEX_NONE, "^ello")


@pytest.mark.parametrize(
    "expression",
    [
        exp.IntBin("absent"),
        exp.IntBin("s"),
        exp.Div(exp.IntBin("i"), 0),
        exp.ListGetByIndex(None, VALUE, INTEGER, 9, exp.ListBin("l")),
        exp.ListGetByIndex(None, VALUE, exp.ResultType.STRING, 0, exp.ListBin("l")),
        exp.Unknown(),
    ],
)
def test_what_can_not_be_known_is_no_value(client: Any, key: Key, expression: Any) -> None:
    with pytest.raises(exception.OpNotApplicable):
        value_of(client, key, expression)
    lenient = expression_operations.expression_read("r", expression.compile(), aerospike.EXP_READ_EVAL_NO_FAIL)
    assert client.operate(key, [lenient])[2] == {"r": None}
    with pytest.raises(exception.FilteredOut):
        client.get(key, policy={"expressions": exp.Eq(exp.IntBin("absent"), 1).compile()})


def test_a_bin_is_set_to_what_an_expression_makes_of_the_bins_so_far(client: Any, own_key: Key) -> None:
    doubled = expression_operations.expression_write("i", exp.Add(exp.IntBin("i"), exp.IntBin("i")).compile())
    read = expression_operations.expression_read("r", exp.IntBin("i").compile())
    assert client.operate(own_key, [operations.write("i", 7), doubled, read])[2]["r"] == 14
    appended = exp.ListAppend(None, None, 9, exp.ListBin("l")).compile()
    client.operate(own_key, [expression_operations.expression_write("new", appended)])
    assert client.get(own_key)[2] == BINS | {"i": 14, "new": [3, 1, 2, 9]}


@pytest.mark.parametrize(
    ("name", "flags", "error"),
    [
        ("i", aerospike.EXP_WRITE_CREATE_ONLY, exception.BinExistsError),
        ("new", aerospike.EXP_WRITE_UPDATE_ONLY, exception.BinNotFound),  # type: ignore[attr-defined]
    ],
)
def test_a_bin_is_set_only_where_the_policy_says(
    client: Any, own_key: Key, name: str, flags: int, error: type[Exception]
) -> None:
    one = exp.Add(exp.IntBin("i"), 1).compile()
    with pytest.raises(error):
        client.operate(own_key, [expression_operations.expression_write(name, one, flags)])
    lenient = flags | aerospike.EXP_WRITE_POLICY_NO_FAIL
    client.operate(own_key, [expression_operations.expression_write(name, one, lenient)])
    assert client.get(own_key)[2] == BINS


def test_a_filter_looks_into_lists_and_maps(client: Any, key: Key) -> None:
    has_seven = exp.Eq(exp.ListGetByValue(A_PATH, COUNT, 7, exp.MapBin("m")), 1)
    found = client.query(*key[:2]).results({"expressions": has_seven.compile()})
    assert len(found) == 1
    assert client.query(*key[:2]).results({"expressions": exp.Not(has_seven).compile()}) == []


def test_in_list_and_the_keys_and_values_of_maps(client: Any, key: Key) -> None:
    try:
        assert value_of(client, key, exp.InList(2, exp.ListBin("l"))) is True
    except exception.InvalidRequest:
        pytest.skip("this server's expressions know no in_list")
    assert value_of(client, key, exp.InList(9, exp.ListBin("l"))) is False
    assert value_of(client, key, exp.MapGetKeys(exp.MapBin("m"))) == ["a", "b"]
    assert value_of(client, key, exp.MapGetValues(exp.MapBin("m"))) == [1, {"c": [7]}]
